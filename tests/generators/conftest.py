"""One tiny generator, trained once, for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.train import train_generator
from tests.generators.tiny import SIDE, make_cohort, quick_generator, tiny_config
from tests.shared import made_once


def _train(folder: Path) -> None:
    cohort = make_cohort(folder / "cohort")
    preprocess = Preprocess.for_cohort(cohort, (SIDE, SIDE))
    train_generator(cohort, preprocess, tiny_config(), folder / "bundle", work=folder / "work")


def _train_other(folder: Path) -> None:
    others = make_cohort(folder / "cohort", seed=7, patients="q")
    preprocess = Preprocess.for_cohort(others, (SIDE, SIDE))
    fits = {name: {**fit, "steps": 10} for name, fit in quick_generator().items() if name.endswith("_fit")}
    train_generator(others, preprocess, tiny_config(**fits), folder / "bundle", work=folder / "work")


@pytest.fixture(scope="session")
def trained() -> Path:
    """A folder with ``cohort``, ``bundle`` and ``work``, where the bundle was trained. Look, do not touch."""
    return made_once("trained", __file__, _train)


@pytest.fixture(scope="session")
def cohort(trained: Path) -> Cohort:
    return Cohort.open(trained / "cohort")


@pytest.fixture(scope="session")
def preprocess(cohort: Cohort) -> Preprocess:
    return Preprocess.for_cohort(cohort, (SIDE, SIDE))


@pytest.fixture(scope="session")
def work(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's bundle was trained, as a copy to go on in."""
    return Path(shutil.copytree(trained / "work", tmp_path_factory.mktemp("trained") / "work"))


@pytest.fixture(scope="session")
def bundle_folder(trained: Path) -> Path:
    return trained / "bundle"


@pytest.fixture
def bundle(bundle_folder: Path) -> GeneratorBundle:
    return GeneratorBundle.load(bundle_folder)


@pytest.fixture(scope="session")
def other_base() -> Path:
    """A generator that learned, without privacy, from other patients of the same hospital."""
    return made_once("other_base", __file__, _train_other) / "bundle"
