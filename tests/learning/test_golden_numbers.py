"""Numbers that a seed or a key stands for: a plan, a resumed fit and a ledger rely on getting them again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medphantom.core.randomness import derive_seed, secret_numbers, seeded_layers, torch_generator
from medphantom.learning.noise import BLOCK, SCHEME, SUMMED, secret_noise

KEY = "0123456789abcdef" * 4


def test_a_seed_and_a_purpose_give_a_known_seed() -> None:
    """The first 63 bits of SHA-256 of what is joined by NUL."""
    assert derive_seed(0) == 3456079177858693020
    assert derive_seed(7, "image", 3, "") == 8648929709695862946
    assert derive_seed(7, "image", 31) != derive_seed(7, "image", 3, 1)
    assert max(derive_seed(number, "any") for number in range(200)) < 2**63


def test_a_generator_draws_known_numbers() -> None:
    drawn = torch.rand(3, generator=torch_generator(7, "unit", 1), dtype=torch.float64).tolist()
    assert drawn == pytest.approx([0.3103948519863323, 0.37562077785433867, 0.2659217895731786], abs=1e-12)


def test_a_key_draws_known_numbers() -> None:
    assert secret_numbers(KEY, "units", 4).random(3).tolist() == pytest.approx(
        [0.168645975438657, 0.15046757360888396, 0.6343215843973068], abs=1e-12
    )


def test_layers_draw_known_numbers_inside_the_block_only() -> None:
    torch.manual_seed(5)
    outside = torch.rand(2)
    torch.manual_seed(5)
    with seeded_layers(torch.device("cpu"), 11):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), outside)
    torch.manual_seed(11)
    assert torch.equal(torch.rand(2), inside)


@pytest.mark.gpu
def test_layers_on_a_gpu_draw_by_the_seed_inside_the_block_only() -> None:
    device = torch.device("cuda")
    before = torch.cuda.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded_layers(device, 11):
            drawn.append(torch.rand(2, device=device))
    assert torch.equal(*drawn)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_noise_of_a_key_is_known_and_leaves_no_number_out() -> None:
    """Of three blocks, the last one short: a number without noise would be published as it is."""
    assert (BLOCK, SUMMED, SCHEME) == (65536, 4, "blocks of 65536, sums of 4")
    noise = secret_noise(KEY, "noise", 2, total=2 * BLOCK + 2, deviation=3.0).numpy()
    assert noise.dtype == np.float32
    assert int((noise == 0).sum()) == 0
    picked = noise[[0, 1, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1]]
    assert picked.tolist() == pytest.approx(
        [4.739587, -2.085808, -1.116485, 2.947465, 0.248462, 1.502664, 2.845799], rel=1e-5
    )
