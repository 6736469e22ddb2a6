"""A tiny cohort of two classes that a tiny generator can learn in seconds."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from medphantom.cohorts.identity import IdentityKey
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.generators.config import AutoencoderConfig, DenoiserConfig, GeneratorConfig, SamplerConfig
from medphantom.learning.fit_config import FitConfig

SIDE = 16
REPORTS = {
    True: ("A bright disc on dark ground.", "Dark ground, bright disc seen."),
    False: ("A dark hole in bright ground.", "Bright ground, dark hole seen."),
}


def disc(rng: np.random.Generator, shape: tuple[int, ...], *, bright: bool) -> np.ndarray:
    """A disc or ball of 8-bit values: bright on dark, or dark on bright, at a random place."""
    centre = rng.uniform(0.35, 0.65, len(shape)) * shape
    grids = np.meshgrid(*(np.arange(side) for side in shape), indexing="ij")
    distance = np.sqrt(sum((grid - c) ** 2 for grid, c in zip(grids, centre, strict=True)))
    inside = distance < rng.uniform(0.2, 0.35) * shape[0]
    low, high = (40, 220) if bright else (220, 40)
    return np.clip(np.where(inside, high, low) + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)


KEY = IdentityKey(hashlib.sha256(b"tiny").digest())


def make_cohort(
    path: Path,
    *,
    total: int = 96,
    dims: int = 2,
    side: int = SIDE,
    seed: int = 0,
    spacings: tuple[float, ...] = (0.5,),
    patients: str = "p",
    key: IdentityKey | None = KEY,
) -> Cohort:
    """Two exclusive classes, an age in years, a sex, a report and a mask of the disc; every second row trains.

    The rows have the given spacings in turn; names of patients begin with ``patients``.
    """
    rng = np.random.default_rng(seed)
    schema = CohortSchema(
        spatial_dims=dims,
        origin=None if key is None else key.origin(),
        labels=("bright", "dark"),
        exclusive=True,
        has_text=True,
        mask_values={0: "background", 1: "disc"},
        attributes=(
            AttributeSpec(name="age", kind="continuous", unit="years"),
            AttributeSpec(name="sex", kind="categorical"),
        ),
    )
    splits = ("train", "train", "val", "train", "holdout", "train", "test", "train")
    with CohortWriter(path, schema) as writer:
        for i in range(total):
            bright = bool(rng.integers(2))
            pixels = disc(rng, (side,) * dims, bright=bright)
            spacing = spacings[i // len(splits) % len(spacings)]
            writer.add(
                ImageRecord(
                    image_id=f"i{i:04d}",
                    patient=f"{patients}{i:04d}",
                    pixels=pixels,
                    text=REPORTS[bright][i % 2],
                    mask=((pixels > 130) == bright).astype(np.uint8),
                    split=splits[i % len(splits)],
                    labels={"bright": bright, "dark": not bright},
                    attributes={"age": float(rng.integers(20, 80)), "sex": "FM"[int(rng.integers(2))]},
                    spacing_mm=(spacing,) * dims,
                    affine=tuple(np.diag([spacing] * 3 + [1.0]).ravel()) if dims == 3 else None,
                    modality="DX" if dims == 2 else "MR",
                )
            )
    return Cohort.open(path)


def tiny_config(**changes: object) -> GeneratorConfig:
    """Networks of some ten thousand parameters and fits of some seconds."""
    fit = {"batch_size": 8, "validate_every": 20, "checkpoint_every": 20, "tracker": "none", "warmup_steps": 5}
    config = GeneratorConfig(
        autoencoder=AutoencoderConfig(channels=(8, 16), norm_groups=8),
        denoiser=DenoiserConfig(channels=(16, 32), norm_groups=8, head_channels=16, context_dim=16),
        text_fit=FitConfig(
            steps=100, batch_size=16, learning_rate=2e-3, ema_decay=None, validate_every=0, tracker="none"
        ),
        features_fit=FitConfig(steps=10, **(fit | {"validate_every": 0})),
        autoencoder_fit=FitConfig(steps=60, learning_rate=2e-3, ema_decay=0.9, **fit),
        denoiser_fit=FitConfig(
            steps=200, learning_rate=3e-3, ema_decay=0.95, **(fit | {"batch_size": 16, "validate_every": 100})
        ),
        latent_balance=0.0,  # fine latents count from the first step: the five of these tests are few
        micro_batch=4,
        threads=1,
    )
    return GeneratorConfig.model_validate({**config.model_dump(), **changes})


def quick_generator() -> dict[str, Any]:
    """The same as a section of a recipe, with fits too short to learn: for tests of what is around."""
    found = tiny_config().model_dump(mode="json", exclude_defaults=True)
    for name, steps in (("autoencoder_fit", 20), ("denoiser_fit", 30)):
        found[name] |= {"steps": steps, "validate_every": steps, "checkpoint_every": steps}
    return found


SAMPLER = SamplerConfig(steps=5, guidance=1.5, device="cpu")


def copied(cohort: Cohort, path: Path, label: str, digest: str = "0" * 64) -> Cohort:
    """Training images that show a label, as a synthetic cohort of the generator with this digest."""
    column = cohort.schema.labels.index(label)
    rows = [row for row in cohort.rows("train") if cohort.labels([row])[0, column] == 1]
    with CohortWriter(path, cohort.schema.model_copy(update={"kind": "synthetic", "has_text": False})) as writer:
        for number, record in enumerate(cohort.records(rows)):
            name = f"s{number:05d}"
            facts = Provenance(digest, "{}", number)
            writer.add(
                dataclasses.replace(record, image_id=name, patient=name, split="synthetic", text=None, provenance=facts)
            )
    return Cohort.open(path)
