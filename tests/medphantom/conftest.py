"""One tiny generator that reads labels, texts and masks, for all tests of the public face."""

from __future__ import annotations

from pathlib import Path

import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.generation import Generator
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.train import train_generator
from tests.generators.tiny import SIDE, make_cohort, quick_generator
from tests.shared import made_once

READS = {"text": {"tokens": 40, "width": 32, "layers": 1, "vocabulary": 400}, "mask": {"channels": 4}}


def _train(folder: Path) -> None:
    """A bundle that stores float32: rounding to grey levels would hide differences of bits."""
    cohort = make_cohort(folder / "cohort")
    config = quick_generator() | {"conditioning": READS, "text_fit": {"steps": 5, "tracker": "none"}}
    preprocess = Preprocess.for_cohort(cohort, (SIDE, SIDE), stored_dtype="float32")
    train_generator(cohort, preprocess, GeneratorConfig.model_validate(config), folder / "bundle", work=folder / "work")


@pytest.fixture(scope="session")
def trained() -> Path:
    """A folder with ``cohort`` and ``bundle``. Look, do not touch."""
    return made_once("trained", __file__, _train)


@pytest.fixture(scope="session")
def cohort(trained: Path) -> Cohort:
    return Cohort.open(trained / "cohort")


@pytest.fixture(scope="session")
def folder(trained: Path) -> Path:
    return trained / "bundle"


@pytest.fixture(scope="session")
def generator(folder: Path) -> Generator:
    return Generator(GeneratorBundle.load(folder), folder)
