"""The examples of the public face run: those of its docstrings, and those of its page."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

from medphantom import generation
from medphantom.metrics import distances, diversity, manifold, neighbours

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def run(tests: list[doctest.DocTest]) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for test in tests:
        runner.run(test, out=output.append)
    assert not runner.failures, "".join(output)
    assert runner.tries


@pytest.mark.parametrize("module", [generation, distances, diversity, manifold, neighbours])
def test_docstrings(module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(doctest.DocTestFinder().find(module))


def test_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    run([doctest.DocTestParser().get_doctest(code, {}, PAGE.name, str(PAGE), 0)])
