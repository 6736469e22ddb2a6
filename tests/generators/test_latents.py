from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cohorts.errors import MedphantomError
from generators.autoencoder import build_autoencoder
from generators.config import AutoencoderConfig
from generators.latents import Latents, draw, encode_all, scaled, unscaled


def test_scaling_gives_drawn_latents_zero_mean_and_unit_variance_per_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    spread, offset = torch.tensor([0.2, 3.0]).reshape(1, 2, 1, 1), torch.tensor([5.0, -1.0]).reshape(1, 2, 1, 1)
    mean = torch.randn(400, 2, 8, 8, generator=generator) * spread + offset
    latents = Latents(mean, torch.full_like(mean, -1.0))
    drawn = draw(latents.mean, latents.log_var, torch.randn(mean.shape, generator=generator))
    seen = scaled(drawn, latents.scaling())
    torch.testing.assert_close(seen.mean([0, 2, 3]), torch.zeros(2), atol=0.02, rtol=0)
    torch.testing.assert_close(seen.std([0, 2, 3]), torch.ones(2), atol=0.02, rtol=0)
    torch.testing.assert_close(unscaled(seen, latents.scaling()), drawn, atol=1e-5, rtol=1e-5)


def test_latents_that_cannot_be_scaled_are_refused() -> None:
    broken = torch.zeros(4, 1, 2, 2)
    with pytest.raises(MedphantomError, match="latents are not finite; lower"):
        Latents(broken + torch.nan, broken).scaling()


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
