"""One cohort for this folder: three findings that occur together, age and sex that depend on them, one rare patient."""

from __future__ import annotations

import numpy as np
import pytest

from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.prompt import ConditionSchema

SCHEMA = CohortSchema(
    labels=("effusion", "mass", "nodule"),
    attributes=(
        AttributeSpec(name="age", kind="continuous", unit="years"),
        AttributeSpec(name="sex", kind="categorical", categories=("F", "M", "X")),
        AttributeSpec(name="view", kind="categorical", categories=("AP", "PA")),
    ),
)


def _record(number: int, patient: str, split: str, labels: dict[str, bool | None], **attributes: object) -> ImageRecord:
    pixels = np.full((8, 8), number % 251, dtype=np.uint8)
    stated = {name: value for name, value in attributes.items() if isinstance(value, (float, str))}
    return ImageRecord(f"i{number}", patient, pixels, split, labels=labels, attributes=dict(stated))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """800 training rows of 400 patients, 200 test rows of another mix, and one patient like no other (six images)."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("conditioning") / "cohort"
    with CohortWriter(path, SCHEMA) as writer:
        for number in range(1000):
            split = "train" if number < 800 else "test"
            effusion = bool(rng.random() < (0.4 if split == "train" else 0.9))
            labels: dict[str, bool | None] = {
                "effusion": effusion,
                "mass": bool(rng.random() < (0.5 if effusion else 0.1)),
                "nodule": None if rng.random() < 0.3 else bool(rng.random() < 0.15),
            }
            age = float(np.clip(np.round(rng.normal(65 if effusion else 40, 12), -1), 20, 90))
            sex = "M" if rng.random() < (0.8 if effusion else 0.3) else "F"
            view = None if rng.random() < 0.2 else str(rng.choice(["AP", "PA"]))
            writer.add(_record(number, f"p{number // 2}", split, labels, age=age, sex=sex, view=view))
        for number in range(1000, 1006):
            everything = dict.fromkeys(SCHEMA.labels, True)
            writer.add(_record(number, "only", "train", everything, age=88.0, sex="X", view="AP"))
    return Cohort.open(path)


@pytest.fixture(scope="session")
def schema(cohort: Cohort) -> ConditionSchema:
    return ConditionSchema.from_cohort(cohort.schema)
