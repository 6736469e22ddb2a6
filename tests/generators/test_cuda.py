"""The same path on a CUDA device; run with ``-m gpu`` where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_counts
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SamplerConfig
from medphantom.generators.generate import generate, reconstruct
from medphantom.generators.train import train_generator
from tests.generators.tiny import SAMPLER, tiny_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
ON_CUDA = SamplerConfig.model_validate({**SAMPLER.model_dump(), "device": "cuda"})


def test_training_on_cuda_gives_a_bundle_that_the_cpu_can_use(
    cohort: Cohort, preprocess: Preprocess, tmp_path: Path
) -> None:
    config = tiny_config()
    fits = {
        name: getattr(config, name).model_copy(update={"device": "cuda"})
        for name in ("autoencoder_fit", "denoiser_fit")
    }
    config = config.model_copy(update=fits)
    train_generator(cohort, preprocess, config, tmp_path / "bundle", work=tmp_path / "work")
    bundle = GeneratorBundle.load(tmp_path / "bundle")
    plan = plan_counts(bundle.facts.conditions, {"bright": 6}, seed=0)
    cohort = generate(bundle, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    assert len(cohort) == 6


def test_cuda_draws_nearly_what_the_cpu_draws_and_the_same_every_time(bundle: GeneratorBundle, tmp_path: Path) -> None:
    plan = plan_counts(bundle.facts.conditions, {"bright": 3, "dark": 3}, seed=0)
    drawn = [
        np.stack(generate(bundle, plan, tmp_path / f"{i}", work=tmp_path / "work", sampler=sampler).pixels(range(6)))
        for i, sampler in enumerate((SAMPLER, ON_CUDA, ON_CUDA))
    ]
    assert np.array_equal(drawn[1], drawn[2])
    assert np.abs(drawn[0].astype(int) - drawn[1].astype(int)).max() <= 1


def test_cuda_rebuilds_what_the_cpu_rebuilds(bundle: GeneratorBundle, cohort: Cohort) -> None:
    images = np.stack([bundle.facts.preprocess.apply(array) for array in cohort.pixels(cohort.rows("test"))])
    expected = reconstruct(bundle, images)
    np.testing.assert_allclose(reconstruct(bundle.to("cuda"), images), expected, atol=1e-3)
