from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medphantom.core.errors import MedphantomError
from medphantom.generators.autoencoder import Autoencoder, build_autoencoder
from medphantom.generators.config import AutoencoderConfig
from medphantom.generators.latents import Latents, balanced_scaling, draw, encode_all, reach, scaled, unscaled


@pytest.fixture
def linear() -> Autoencoder:
    """An autoencoder whose network is silent: the shortcut alone, so that everything about it is known."""
    config = AutoencoderConfig(channels=(8,), norm_groups=8)
    network = build_autoencoder(config, spatial_dims=2, image_channels=1, seed=0)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return network.eval()


def spread_latents(total: int = 400) -> Latents:
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.2, 3.0, 1.0, 0.5]).reshape(1, 4, 1, 1)
    offset = torch.tensor([5.0, -1.0, 0.0, 2.0]).reshape(1, 4, 1, 1)
    mean = torch.randn(total, 4, 8, 8, generator=generator) * spread + offset
    return Latents(mean, torch.full_like(mean, -1.0))


def test_scaling_gives_drawn_latents_zero_mean_and_unit_variance(linear: Autoencoder) -> None:
    latents = spread_latents()
    drawn = draw(latents.mean, latents.log_var, torch.randn(latents.mean.shape, generator=torch.Generator()))
    even = scaled(drawn, balanced_scaling(linear, latents, 0.0, seed=0))
    torch.testing.assert_close(even.mean([0, 2, 3]), torch.zeros(4), atol=0.03, rtol=0)
    torch.testing.assert_close(even.std([0, 2, 3]), torch.ones(4), atol=0.02, rtol=0)
    for balance in (0.5, 1.0):
        scaling = balanced_scaling(linear, latents, balance, seed=0)
        seen = scaled(drawn, scaling)
        assert float(seen.square().mean()) == pytest.approx(1.0, abs=0.02)
        torch.testing.assert_close(unscaled(seen, scaling), drawn, atol=1e-5, rtol=1e-5)


def test_reach_of_an_orthonormal_shortcut_is_deviation_over_gain(linear: Autoencoder) -> None:
    latents = spread_latents()
    _, std = latents.moments()
    assert linear.shortcut is not None
    # orthonormal blocks of 4 pixels: a coefficient spreads its square over them
    expected = std / linear.shortcut.gain.flatten() / 2
    found = reach(linear, latents, std, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)
    sizes = 1 / torch.tensor(balanced_scaling(linear, latents, 1.0, seed=0).std, dtype=torch.float64) * std
    torch.testing.assert_close(sizes / sizes[0], expected / expected[0], rtol=0.05, atol=0)


def test_latents_that_cannot_be_scaled_are_refused() -> None:
    broken = torch.zeros(4, 1, 2, 2)
    with pytest.raises(MedphantomError, match="latents are not finite; lower"):
        Latents(broken + torch.nan, broken).moments()


def test_draws_have_the_posteriors_moments() -> None:
    mean, log_var = torch.full((1,), 2.0), torch.full((1,), -2.0)
    drawn = draw(mean, log_var, torch.randn(20000, generator=torch.Generator().manual_seed(0)))
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.01)
    assert float(drawn.var()) == pytest.approx(np.exp(-2.0), rel=0.03)


def test_all_images_are_encoded_in_order_and_mirrored_ones_after_them() -> None:
    network = build_autoencoder(
        AutoencoderConfig(channels=(8,), norm_groups=8), spatial_dims=2, image_channels=1, seed=0
    )
    images = np.random.default_rng(0).uniform(-1, 1, (19, 1, 8, 8)).astype(np.float16)
    latents = encode_all(network.eval(), images, flipped=True)
    assert len(latents) == 38
    with torch.no_grad():
        last, _ = network.encode(torch.from_numpy(images[18:].astype(np.float32)))
        mirrored, _ = network.encode(torch.from_numpy(images[18:, ..., ::-1].astype(np.float32)))
    torch.testing.assert_close(latents.mean[18], last[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(latents.mean[37], mirrored[0], atol=1e-5, rtol=1e-4)


def test_a_damaged_cache_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    assert Latents.load(path) is None
    Latents(torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)).save(path)
    found = Latents.load(path)
    assert found is not None
    assert torch.equal(found.mean, torch.ones(2, 1, 2, 2))
    path.write_bytes(path.read_bytes()[:-5])
    assert Latents.load(path) is None
