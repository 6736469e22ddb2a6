"""Simulated radiographs as a real cohort, and pairs whose counterfactuals are the truth or a known fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medphantom.cohorts.pairs import ROLE, ROLES, Role, pair_id
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.records import Array
from medphantom.phantoms.factors import ImageFactors, with_factor
from medphantom.phantoms.population import simulate
from medphantom.phantoms.render import render

SIDE = 40
LABELS = ("effusion", "pneumothorax")
PREPROCESS = Preprocess(size=(SIDE, SIDE))
SPLITS = ("train", "train", "train", "val", "test", "test")


def drawn(image: ImageFactors) -> Array:
    """uint8 pixels."""
    return np.asarray(render(image, SIDE) >> 8, dtype=np.uint8)


def plain(image: ImageFactors) -> ImageFactors:
    """The same without the findings that are no label here, and from one scanner, so that little is to be learned."""
    for name in ("nodule", "cardiomegaly", "consolidation", "pacemaker"):
        image = with_factor(image, f"{name}.severity", 0.0)
    for name, value in (("gain", 0.0), ("contrast", 1.0), ("noise", 0.01), ("marker", "none")):
        image = with_factor(image, f"scanner.{name}", value)
    return image


@dataclass(frozen=True)
class Patients:
    """A real cohort and the factors of each of its rows."""

    cohort: Cohort
    factors: tuple[ImageFactors, ...]

    def rows_with(self, label: str, *, split: str = "test") -> list[int]:
        return [row for row in self.cohort.rows(split) if self.factors[row].labels[label]]


def write_patients(path: Path, total: int = 360, seed: int = 5) -> Patients:
    """One image each; half of them with an effusion, half with a pneumothorax, at random."""
    rng = np.random.default_rng(seed)
    schema = CohortSchema(
        labels=LABELS,
        attributes=(
            AttributeSpec(name="adiposity", kind="continuous"),
            AttributeSpec(name="sex", kind="categorical"),
        ),
    )
    factors = []
    with CohortWriter(path, schema) as writer:
        for number, patient in enumerate(simulate(total, seed)):
            image = plain(patient.images[0])
            for name in LABELS:
                severity = float(rng.uniform(0.5, 0.9)) if rng.random() < 0.5 else 0.0
                image = with_factor(image, f"{name}.severity", severity)
            factors.append(image)
            writer.add(
                ImageRecord(
                    image_id=f"i{number:04d}",
                    patient=f"p{number:04d}",
                    pixels=drawn(image),
                    split=SPLITS[number % len(SPLITS)],
                    labels={name: image.labels[name] for name in LABELS},
                    attributes={"adiposity": image.anatomy.adiposity, "sex": image.sex},
                )
            )
    return Patients(Cohort.open(path), tuple(factors))


@dataclass(frozen=True)
class Edit:
    """The change requested of one image, and the resulting pixels."""

    row: int
    pixels: Array
    labels: dict[str, bool] = field(default_factory=dict)
    attributes: dict[str, float | str] = field(default_factory=dict)


def write_pairs(
    path: Path, patients: Patients, edits: Sequence[Edit], *, roles: Sequence[Role] = ROLES, **generation: Any
) -> Cohort:
    """Pairs whose factual, reversed and reconstructed images are the sources themselves."""
    real = patients.cohort
    described = CohortSchema(
        kind="counterfactual",
        labels=real.schema.labels,
        attributes=(*real.schema.attributes, AttributeSpec(name=ROLE, kind="categorical")),
        generation={"source": real.digest, "preprocess": PREPROCESS.model_dump(mode="json"), **generation},
    )
    with CohortWriter(path, described) as writer:
        for edit in edits:
            source = next(real.records([edit.row]))
            for role in roles:
                changed = role in {"counterfactual", "difference"}
                pixels = edit.pixels if role == "counterfactual" else source.pixels
                if role == "difference":
                    pixels = edit.pixels.astype(np.int16) - source.pixels
                writer.add(
                    ImageRecord(
                        image_id=pair_id(source.image_id, role),
                        patient=source.patient,
                        pixels=pixels,
                        split=source.split,
                        labels={**source.labels, **(edit.labels if changed else {})},
                        attributes={**source.attributes, **(edit.attributes if changed else {}), ROLE: role},
                        provenance=Provenance("0" * 64, "{}", 0),
                    )
                )
    return Cohort.open(path)


def without(patients: Patients, label: str, rows: Sequence[int]) -> list[Edit]:
    """The true counterfactuals of a finding taken away."""
    return [
        Edit(row, drawn(with_factor(patients.factors[row], f"{label}.severity", 0.0)), {label: False}) for row in rows
    ]
