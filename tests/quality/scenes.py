"""Small made-up cohorts for the tests of scoring: three kinds of pattern, patients with one to three images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medphantom.cohorts.identity import IdentityKey, SplitFractions
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.records import Array
from medphantom.quality.config import CopyConfig

KINDS = ("rings", "stripes", "patches")
SIDE = 32
BARE_SEARCH = CopyConfig(kinds=(), core=(), controls=0, repeats=20, side=8)
"""No planted copies, which are most of an assessment's work: for tests of the other scores."""
FRACTIONS = SplitFractions(train=0.3, val=0.05, holdout=0.15, test=0.5)


def draw(kind: int, rng: np.random.Generator) -> Array:
    """One image ``(SIDE, SIDE)`` in -1…1: the kind decides the pattern, random draws everything else."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    phase, wave, turn = rng.uniform(0, 2 * np.pi), rng.uniform(3, 5), rng.uniform(0, np.pi)
    if kind == 0:
        cx, cy = rng.uniform(-0.25, 0.25, 2)
        base = np.cos(2 * np.pi * wave * np.hypot(x - cx, y - cy) * 1.4 + phase)
    elif kind == 1:
        base = np.cos(2 * np.pi * wave * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    else:
        base = np.kron(rng.standard_normal((8, 8)), np.ones((4, 4)))
    own = np.kron(rng.standard_normal((16, 16)), np.ones((2, 2)))  # what tells one image of a kind from another
    return np.tanh(base + 0.5 * own).astype(np.float32)


def images(total: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Images ``(n, 1, SIDE, SIDE)`` of all kinds in turn, and their kinds."""
    kinds = np.arange(total) % len(KINDS)
    return np.stack([draw(int(kind), rng) for kind in kinds])[:, None], kinds


def blurred(images_NC: Array) -> Array:
    """A 3 x 3 box blur."""
    padded = np.pad(images_NC, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    parts = [padded[..., i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)]
    return np.mean(parts, axis=0).astype(np.float32)


def stored(image: Array) -> Array:
    return np.rint((image + 1) * 127.5).clip(0, 255).astype(np.uint8)


def write_real(
    path: Path, patients: int, seed: int, *, exclusive: bool = True, fractions: SplitFractions = FRACTIONS
) -> Cohort:
    """A real cohort; its labels are the kinds, or (not exclusive) ``bright`` and ``rings``, some not observed."""
    rng = np.random.default_rng(seed)
    key = IdentityKey.from_phrase("scenes")
    schema = CohortSchema(
        labels=KINDS if exclusive else ("bright", "rings"),
        exclusive=exclusive,
        attributes=(
            AttributeSpec(name="age", kind="continuous", unit="years"),
            AttributeSpec(name="view", kind="categorical"),
        ),
    )
    with CohortWriter(path, schema) as writer:
        for number in range(patients):
            kind = number % len(KINDS)
            patient = key.pseudonym("patient", str(number))
            for index in range(int(rng.integers(1, 4))):
                image, bright = draw(kind, rng), bool(rng.random() < 0.4)
                if bright and not exclusive:
                    image = np.clip(image + 0.5, -1, 1)
                labels: dict[str, bool | None] = {name: name == KINDS[kind] for name in KINDS}
                if not exclusive:
                    labels = {"bright": bright, "rings": None if rng.random() < 0.1 else kind == 0}
                writer.add(
                    ImageRecord(
                        image_id=key.pseudonym("image", f"{number}/{index}"),
                        patient=patient,
                        pixels=stored(image),
                        split=key.split(patient, fractions),
                        labels=labels,
                        attributes={
                            "age": 40.0 + 20 * bright + rng.normal(),
                            "view": "AP" if rng.random() < 0.5 else "PA",
                        },
                    )
                )
    return Cohort.open(path)


def write_synthetic(path: Path, images_NC: Array, kinds: Array) -> Cohort:
    """A synthetic cohort of given images, each prompted as its kind."""
    schema = CohortSchema(kind="synthetic", labels=KINDS, exclusive=True)
    with CohortWriter(path, schema) as writer:
        for number, (image, kind) in enumerate(zip(images_NC, kinds, strict=True)):
            writer.add(
                ImageRecord(
                    image_id=f"s{number:05d}",
                    patient=f"s{number:05d}",
                    pixels=stored(image[0]),
                    split="synthetic",
                    labels={name: name == KINDS[kind] for name in KINDS},
                    provenance=Provenance("0" * 64, "{}", number),
                )
            )
    return Cohort.open(path)
