"""Python processes in which packages cannot be imported, as if they were not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
CUSTOMISED = """\
import sys
from importlib.machinery import PathFinder

ABSENT = {absent!r}


class Without(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] in ABSENT:
            return None
        return super().find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, *arguments, **more):
        return (found for found in super().find_distributions(*arguments, **more) if found.name not in ABSENT)


sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


def run_without(
    absent: Iterable[str], arguments: list[str], folder: Path, *, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run ``python <arguments>`` in a folder; neither an import nor the metadata finds the absent packages."""
    hooks = folder / "without"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(CUSTOMISED.format(absent=sorted(absent)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(hooks), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
