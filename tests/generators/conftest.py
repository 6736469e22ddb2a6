"""One tiny generator, trained once, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.train import train_generator
from tests.generators.tiny import SIDE, make_cohort, quick_generator, tiny_config


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "cohort")


@pytest.fixture(scope="session")
def preprocess(cohort: Cohort) -> Preprocess:
    return Preprocess.for_cohort(cohort, (SIDE, SIDE))


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's bundle was trained."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="session")
def bundle_folder(cohort: Cohort, preprocess: Preprocess, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "bundle"
    train_generator(cohort, preprocess, tiny_config(), out, work=work)
    return out


@pytest.fixture
def bundle(bundle_folder: Path) -> GeneratorBundle:
    return GeneratorBundle.load(bundle_folder)


@pytest.fixture(scope="session")
def other_base(tmp_path_factory: pytest.TempPathFactory, preprocess: Preprocess) -> Path:
    """A generator that learned, without privacy, from other patients of the same hospital."""
    folder = tmp_path_factory.mktemp("other")
    others = make_cohort(folder / "cohort", seed=7, patients="q")
    fits = {name: {**fit, "steps": 10} for name, fit in quick_generator().items() if name.endswith("_fit")}
    train_generator(others, preprocess, tiny_config(**fits), folder / "bundle", work=folder / "work")
    return folder / "bundle"
