from __future__ import annotations

import numpy as np
import pytest
import torch

from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.masks import MaskEncoder, deformed, mask_numbers, masks_by_digest
from medphantom.conditioning.prompt import MaskSchema
from medphantom.core.errors import InputError, PromptError

SCHEMA = MaskSchema(values={0: "background", 2: "anterior", 5: "posterior"}, size=(8, 16))


def test_missing_is_not_empty() -> None:
    numbers = mask_numbers(SCHEMA, [None, np.zeros((8, 16), np.uint8), np.full((8, 16), 5, np.int16)])
    assert [sorted(set(row.flatten().tolist())) for row in numbers] == [[0], [1], [3]]
    assert numbers.dtype == torch.uint8


def test_a_mask_that_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(PromptError, match=r"a mask has the shape 16x8, but this generator draws 8x16"):
        mask_numbers(SCHEMA, [np.zeros((16, 8), np.uint8)])
    odd = np.zeros((8, 16), np.uint8)
    odd[3, 3] = 4
    with pytest.raises(PromptError, match=r"contains the value 4.*known: 0 \(background\), 2 \(anterior\)"):
        mask_numbers(SCHEMA, [odd])
    with pytest.raises(InputError, match="names mask 000000000000"):
        masks_by_digest({}, ["0" * 64])


@pytest.mark.parametrize("dims", [2, 3])
def test_features_lie_on_the_latents_grid_and_tell_masks_apart(dims: int) -> None:
    torch.manual_seed(0)
    encoder = MaskEncoder(3, EncoderSizes(dim=8, mask_channels=4, mask_halvings=2), dims)
    size = (8, 16) if dims == 2 else (8, 16, 8)
    masks = torch.zeros(3, *size, dtype=torch.uint8)
    masks[1] = 1
    masks[2, 0, 0] = 2
    features = encoder(masks)
    assert features.shape == (3, 4, *(side // 4 for side in size))
    assert not torch.allclose(features[0], features[1])
    assert not torch.allclose(features[0], features[2])


def ball(shape: tuple[int, ...]) -> np.ndarray:
    grids = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return (sum(grid**2 for grid in grids) < 0.3).astype(np.uint8) * 2


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * ((first > 0) & (second > 0)).sum() / ((first > 0).sum() + (second > 0).sum()))


@pytest.mark.parametrize("shape", [(48, 48), (24, 32, 24)])
def test_deformed_masks_are_other_masks_of_the_same_kind(shape: tuple[int, ...]) -> None:
    mask = ball(shape)
    drawn = [deformed(mask, np.random.default_rng(seed), 1.0) for seed in range(12)]
    shares = [overlap(mask, other) for other in drawn]
    assert all(other.dtype == mask.dtype for other in drawn)
    assert all(set(np.unique(other)) == {0, 2} for other in drawn)
    assert max(shares) < 0.999
    assert min(shares) > 0.5
    assert np.mean([(other > 0).mean() for other in drawn]) == pytest.approx((mask > 0).mean(), rel=0.25)
    assert np.array_equal(deformed(mask, np.random.default_rng(0), 0), mask)
    assert np.array_equal(deformed(mask, np.random.default_rng(3), 1.0), drawn[3])


def test_weaker_bending_stays_nearer() -> None:
    mask = ball((48, 48))
    shares = [
        np.mean([overlap(mask, deformed(mask, np.random.default_rng(seed), strength)) for seed in range(20)])
        for strength in (0.25, 0.5, 1.0, 2.0)
    ]
    assert shares == sorted(shares, reverse=True)
