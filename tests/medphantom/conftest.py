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

READS = {"text": {"tokens": 40, "width": 32, "layers": 1, "vocabulary": 400}, "mask": {"channels": 4}}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "cohort")


@pytest.fixture(scope="session")
def folder(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that stores float32: rounding to grey levels would hide differences of bits."""
    made = tmp_path_factory.mktemp("bundle")
    config = quick_generator() | {"conditioning": READS, "text_fit": {"steps": 5, "tracker": "none"}}
    preprocess = Preprocess.for_cohort(cohort, (SIDE, SIDE), stored_dtype="float32")
    train_generator(cohort, preprocess, GeneratorConfig.model_validate(config), made / "bundle", work=made / "work")
    return made / "bundle"


@pytest.fixture(scope="session")
def generator(folder: Path) -> Generator:
    return Generator(GeneratorBundle.load(folder), folder)
