"""Whatever a file, a folder or a recipe is called: what is printed steers no terminal, and errors are short."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from medphantom.core.errors import InputError
from medphantom.core.plain import LONGEST_ERROR, error_line, printable
from medphantom.flows.cli.main import main
from medphantom.flows.process.progress import LineView
from tests.cohorts.files import structure, write_png

TITLE, CLEAR, C1, BIDI = "\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "\u202e\u2066"
HOSTILE = f"a{TITLE}b{CLEAR}c{C1}d{BIDI}e"
STEERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def run(*arguments: str | Path | bytes, **more: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "medphantom.flows.cli.main", *(os.fsencode(argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **more})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def on_a_terminal(*arguments: str | Path) -> str:
    """What the command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "medphantom.flows.cli.main", *map(os.fspath, arguments)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 240
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    assert process.wait(timeout=60) == 0, seen
    return seen.decode(errors="replace")


@pytest.fixture
def ingesting(tmp_path: Path) -> list[str | Path]:
    """A command that reads a folder with a hostile name and a table with hostile columns into one with such a name."""
    source = tmp_path / f"s{TITLE}{C1}{BIDI}"
    for number in range(12):
        write_png(source / f"{number}.png", structure(number))
    columns = {
        "image": [f"{number}.png" for number in range(12)],
        "label": ["a", "b"] * 6,
        f"note {HOSTILE}": ["x"] * 12,
    }
    pl.DataFrame(columns).write_parquet(source / f"t{TITLE}{C1}.parquet")
    out = tmp_path / f"c{TITLE}{C1}{BIDI}"
    return ["ingest", source, "--out", out, "--public-phrase", "x", "--set", "cohort.options.min_patients=1"]


def test_names_of_folders_and_columns_are_printed_as_text_only(ingesting: list[str | Path]) -> None:
    status, output, complained = run(*ingesting)
    assert (status, complained) == (0, "")
    assert "12 images" in output
    assert "look at it with: medphantom inspect" in output
    assert not STEERS.findall(output)
    status, _, complained = run(*ingesting[:4], "--public-phrase", "x", "--label-column", f"other {HOSTILE}")
    assert (status, complained.count("\n")) == (2, 1)
    assert not STEERS.findall(complained[:-1])


def test_bars_move_the_cursor_and_names_do_not(ingesting: list[str | Path]) -> None:
    seen = on_a_terminal(*ingesting)
    assert "\x1b[" in seen  # bars
    assert not re.search("\x1b\\]|\x1b\\[2J|[\x80-\x9f\u202a-\u202e\u2066-\u2069]", seen)


def test_help_keeps_its_colours() -> None:
    assert "\x1b[1" in on_a_terminal("export", "--help")
    assert "\x1b" not in run("export", "--help")[1]


def one_short_plain_line(status: int, output: str, complained: str) -> None:
    assert (status, output, complained.count("\n")) == (2, "", 1)
    assert len(complained) <= LONGEST_ERROR + 1
    assert not STEERS.findall(complained[:-1])


def test_an_error_of_a_process_is_one_short_plain_line() -> None:
    one_short_plain_line(*run("inspect", b"/nowhere/\xff\xfe\x1b[2J"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", f"/nowhere/{HOSTILE}"),
        ("run", f"{HOSTILE}.yaml"),
        (f"{HOSTILE}",),
        ("inspect", ".", f"--{HOSTILE}"),
        ("inspect", "/nowhere/" + "/".join(["deep" * 20] * 30)),
        ("train", "/nowhere", "--out", "x", "--set", "generator." + "unknown" * 400 + "=1"),
    ],
)
def test_an_error_is_one_short_plain_line(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(list(arguments))
    one_short_plain_line(status, *capsys.readouterr())


def test_a_recipes_text_is_shown_plain_and_the_advice_stays(tmp_path: Path) -> None:
    escaped = HOSTILE.encode("unicode_escape").decode()
    (tmp_path / "r.yaml").write_text(f'cohort: {{source: images}}\nsampler: {{"steps": "{escaped}{"x" * 3000}"}}\n')
    status, _, output = run("run", tmp_path / "r.yaml", "--no-prefect")
    assert (status, output.count("\n")) == (2, 1)
    assert len(output) <= LONGEST_ERROR + 1
    assert not STEERS.findall(output[:-1])
    status, _, output = run("inspect", "/nowhere/" + "/".join(["deep" * 20] * 30))
    assert output.endswith("; check the path\n")
    assert " … " in output


def test_a_traceback_is_plain_too(tmp_path: Path) -> None:
    status, _, output = run("--debug", "inspect", tmp_path / HOSTILE)
    assert status == 1
    assert "Traceback" in output
    assert not STEERS.findall(output)


def test_where_a_terminal_has_few_letters_the_rest_is_escaped(tmp_path: Path) -> None:
    status, _, output = run("inspect", tmp_path / "größe", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert status == 2
    assert "gr\\xf6\\xdfe" in output


def test_logs_of_a_served_flow_get_plain_lines() -> None:
    lines: list[str] = []
    LineView(lines.append, every_s=0).stage("ingest")(1, 1, HOSTILE)
    assert len(lines) == 1
    assert not STEERS.findall(lines[0])


def test_what_stays_and_what_goes() -> None:
    assert printable("größe\t1\n") == "größe\t1\n"
    assert printable("نیم\u200cفاصله") == "نیم\u200cفاصله"  # a joiner within a word of Persian
    assert printable("\x1b[1;31mred\x1b[0m") == "red"
    assert printable("\x1b") == printable("\udcff") == printable("\x85") == printable("\r") == "\ufffd"
    for number in (*range(0x20), *range(0x7F, 0xA0)):
        assert number in {9, 10} or chr(number) not in printable(f"a{chr(number)}b")


@pytest.mark.parametrize(("what", "remedy"), [(10, 10), (4000, 10), (4000, 4000), (10, 4000), (380, 380)])
def test_a_long_error_keeps_its_beginning_and_its_advice(what: int, remedy: int) -> None:
    line = error_line("w" * what, "r" * remedy)
    assert len(line) <= LONGEST_ERROR - len("medphantom: ")
    assert line.startswith("w" * min(what, 60))
    assert line.endswith("r" * min(remedy, 60))
    assert str(InputError("w" * what, "r" * remedy)) == line
