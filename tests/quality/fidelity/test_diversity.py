from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from medphantom.core.errors import UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.fidelity.diversity import (
    PAPER_BETAS,
    disjoint_pairs,
    diversity,
    pair_similarities,
    scales_that_fit,
)


def textures(n: int, side: int, rng: np.random.Generator) -> Array:
    coarse = rng.standard_normal((n, 1, side // 4, side // 4))
    return np.tanh(np.kron(coarse, np.ones((1, 1, 4, 4)))).astype(np.float32)


@pytest.mark.parametrize(("side", "scales"), [(16, 1), (36, 2), (64, 3), (128, 4), (176, 5), (256, 5)])
def test_scales_fit_the_image_and_torchmetrics_takes_them(side: int, scales: int) -> None:
    betas = scales_that_fit((side, side))
    assert len(betas) == scales
    assert sum(betas) == pytest.approx(1)
    image = torch.rand(1, 1, side, side)
    equal = multiscale_structural_similarity_index_measure(image, image, data_range=1.0, betas=betas)
    assert float(equal) == pytest.approx(1, abs=1e-4)


def test_all_scales_are_the_papers() -> None:
    assert scales_that_fit((256, 256)) == pytest.approx([beta / sum(PAPER_BETAS) for beta in PAPER_BETAS])
    with pytest.raises(UnsupportedClaim, match="too small"):
        scales_that_fit((8, 64))


def test_volumes_can_be_compared() -> None:
    volumes = np.random.default_rng(0).uniform(-1, 1, (4, 1, 24, 28, 24)).astype(np.float32)
    same = pair_similarities(volumes, np.array([0, 1]), np.array([0, 1]))
    other = pair_similarities(volumes, np.array([0, 1]), np.array([2, 3]))
    assert same == pytest.approx([1, 1], abs=1e-4)
    assert other.max() < 0.5


def test_pairs_use_no_patient_twice() -> None:
    owners = [f"p{i // 3}" for i in range(60)]
    first, second = disjoint_pairs(owners, 100, np.random.default_rng(0))
    used = [owners[i] for i in (*first, *second)]
    assert len(used) == len(set(used)) == 20


def test_duplicates_are_seen_and_honest_images_match_the_floor() -> None:
    rng = np.random.default_rng(0)
    real, honest = textures(80, 32, rng), textures(80, 32, rng)
    collapsed = np.repeat(textures(4, 32, rng), 20, axis=0)
    patients = [str(i) for i in range(80)]
    fair = diversity(honest, real, patients, pairs=40, rng=np.random.default_rng(1))
    poor = diversity(collapsed, real, patients, pairs=40, rng=np.random.default_rng(1))
    assert fair.interval is not None
    assert fair.floor is not None
    assert poor.interval is not None
    assert poor.floor_interval is not None
    assert fair.interval[0] - 0.05 < fair.floor < fair.interval[1] + 0.05
    assert poor.interval[0] > poor.floor_interval[1]


def test_few_pairs_are_refused() -> None:
    images = textures(12, 32, np.random.default_rng(0))
    found = diversity(images, images, [str(i) for i in range(12)], pairs=40, rng=np.random.default_rng(0))
    assert found.value is None
    assert "read recall and coverage" in str(found.refused)
