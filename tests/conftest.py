from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # tiny networks: threads that wait for each other cost more than they give
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_ENDPOINT", "http://127.0.0.1:9")  # no test asks the hub: it is refused at once, everywhere
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tenth", type=int, choices=range(10), help="run only every tenth of the selected tests, from this one on"
    )


HEAVY = (
    "test_assess", "test_study", "test_gate", "test_conditioned", "test_private", "test_api_doors",
    "test_counterfactual", "test_utility", "test_base", "test_control_run", "test_augment", "test_flow",
    "test_compare", "test_processes", "test_bombs", "test_matching", "test_search", "test_permissions", "test_pound",
    "test_extras", "test_ending", "test_lineage", "test_train", "test_control", "test_attacks", "test_mednist",
    "test_real_sources",
)  # fmt: skip
"""Files that take longest. They come first, so that no process is left with one of them when the others are done."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(HEAVY)}
    items.sort(key=lambda item: places.get(item.path.stem, len(HEAVY)))
    tenth = config.getoption("--tenth")
    if tenth is not None:
        config.hook.pytest_deselected(items=[item for place, item in enumerate(items) if place % 10 != tenth])
        items[:] = items[tenth::10]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real public images; tests that need it carry the mark ``real_data``."""
    folder = os.environ.get("MEDPHANTOM_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDPHANTOM_REAL_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library is told that there is no network; else it waits and asks again for up to 46 s."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command line, expects status 2 and exactly one line on stderr, and returns that line."""

    from medphantom.flows.cli.main import main  # most tests need none of it

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        output = capsys.readouterr().err.splitlines()
        assert (status, len(output)) == (2, 1), output
        assert "Traceback" not in output[0]
        return output[0]

    return run
