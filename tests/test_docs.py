"""The pages say what the code does: every link, command, option, path and name in them exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import typer.main

from medphantom.flows.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = "core|phantoms|cohorts|learning|conditioning|generators|quality|flows"
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # the app is a group of commands


def _unknown_commands(text: str) -> list[str]:
    unknown = []
    for verb, rest in re.findall(r"(?:^|`|\s)medphantom ([a-z]+)((?: [^\n`]*)?)", text):
        if verb not in COMMANDS:
            unknown.append(verb)
            continue
        known = {
            option for parameter in COMMANDS[verb].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        unknown += [f"{verb} {option}" for option in re.findall(r"--[a-z-]+", rest) if option not in known]
    return unknown


def _exists(dotted: str) -> bool:
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_what_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(rf"`((?:{ROOMS}|benchmarks|examples|tests|docs)/[\w./-]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    names = re.findall(rf"`((?:medphantom|{ROOMS})\.[A-Za-z_.]+\w)`", text)
    assert [name for name in names if not _exists(name)] == []
    assert _unknown_commands(re.sub(r"import medphantom as \w+", "", text)) == []


def test_the_check_sees_what_is_missing() -> None:
    assert _unknown_commands("`medphantom dance now` and `medphantom run x --loud`") == ["dance", "run --loud"]
    assert not _exists("medphantom.quality.report.write.no_such_function")
    assert _exists("medphantom.quality.report.write.write_report")
