"""What a wheel would put at the top of site-packages, and that nothing of ours hides anyone else's module."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from setuptools import Distribution
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {"cohorts", "learning", "conditioning", "generators", "quality", "flows", "medphantom"}


def packaged_modules() -> list[tuple[str, str]]:
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files([str(ROOT / "pyproject.toml")])
    command = build_py(distribution)
    command.finalize_options()
    return [(package, module) for package, module, _ in command.find_all_modules()]


def test_top_level_names_of_the_wheel(monkeypatch: object) -> None:
    del monkeypatch
    names = {package.split(".")[0] or module for package, module in packaged_modules()}
    assert names == TOP_LEVEL


def test_every_module_is_packaged() -> None:
    packaged = {f"{package}.{module}" for package, module in packaged_modules()}
    for package in TOP_LEVEL - {"medphantom"}:
        for file in (ROOT / package).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            assert name in packaged, f"{name} would be missing from the wheel: name its package in pyproject.toml"


def test_no_module_of_flows_is_named_like_a_package() -> None:
    # Prefect may put the folder of the flow file first on sys.path.
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions()) | TOP_LEVEL
    ours = {file.stem for file in (ROOT / "flows").glob("*.py")} - {"__init__"}
    assert not ours & taken
