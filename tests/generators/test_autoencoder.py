from __future__ import annotations

import pytest
import scipy.fft
import torch
from monai.networks.nets import AutoencoderKL
from pydantic import ValidationError
from torch.nn import functional as F

from medphantom.core.errors import InputError
from medphantom.generators.autoencoder import (
    LinearShortcut,
    build_autoencoder,
    cosine_matrix,
    depth_to_space,
    space_to_depth,
)
from medphantom.generators.config import AutoencoderConfig, DenoiserConfig
from medphantom.generators.reconstruction import kl_divergence, spectrum_error

TINY = AutoencoderConfig(channels=(8, 16), norm_groups=8)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_folding_in_2d_is_that_of_torch(patch: int) -> None:
    x = torch.randn(2, 3, 8, 16)
    assert torch.equal(space_to_depth(x, patch), F.pixel_unshuffle(x, patch))
    assert torch.equal(depth_to_space(space_to_depth(x, patch), patch), x)


def test_folding_in_3d_keeps_blocks_together_and_unfolds() -> None:
    x = torch.arange(2 * 4 * 4 * 6, dtype=torch.float32).reshape(1, 2, 4, 4, 6)
    folded = space_to_depth(x, 2)
    assert folded.shape == (1, 16, 2, 2, 3)
    assert torch.equal(folded[0, :8, 1, 0, 2], x[0, 0, 2:4, 0:2, 4:6].flatten())
    assert torch.equal(depth_to_space(folded, 2), x)


@pytest.mark.parametrize(("dims", "block"), [(2, 1), (2, 2), (3, 2), (2, 4)])
def test_block_transform_is_the_orthonormal_cosine_transform(dims: int, block: int) -> None:
    matrix, frequency = cosine_matrix(dims, block)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(block**dims), atol=1e-6, rtol=0)
    assert frequency.tolist() == sorted(frequency.tolist())
    pixels = torch.randn(*[block] * dims)
    expected = torch.from_numpy(scipy.fft.dctn(pixels.numpy(), norm="ortho")).flatten()
    torch.testing.assert_close((matrix @ pixels.flatten()).sort().values, expected.sort().values, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dims", "block"), [(2, 2), (3, 2), (2, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shortcut_without_pooling_and_with_all_channels_loses_nothing(dims: int, block: int, channels: int) -> None:
    shortcut = LinearShortcut(dims, channels, channels * block**dims, downsampling=block)
    x = torch.randn(2, channels, *[8] * dims)
    torch.testing.assert_close(shortcut.up(shortcut.down(x)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("latent_channels", [1, 2, 7, 70])
def test_shortcut_keeps_flat_images_through_pooling_and_any_number_of_channels(dims: int, latent_channels: int) -> None:
    shortcut = LinearShortcut(dims, 1, latent_channels, downsampling=4)
    flat = torch.full((1, 1, *[8] * dims), 0.3)
    latents = shortcut.down(flat)
    assert latents.shape == (1, latent_channels, *[2] * dims)
    torch.testing.assert_close(shortcut.up(latents), flat)


@pytest.mark.parametrize("dims", [2, 3])
def test_training_begins_from_what_the_shortcut_rebuilds(dims: int) -> None:
    axis = torch.linspace(-0.8, 0.8, 16)
    smooth = axis.reshape(-1, *[1] * (dims - 1)).expand(*[16] * dims)[None, None]
    network = build_autoencoder(TINY, spatial_dims=dims, image_channels=1, seed=0)
    with torch.no_grad():
        rebuilt, mean, log_var = network(smooth)
    assert mean.shape[1:] == log_var.shape[1:] == TINY.latent_shape([16] * dims)
    assert float((rebuilt - smooth).abs().mean()) < 0.1
    assert float(log_var.mean()) == pytest.approx(TINY.log_variance, abs=0.5)


def test_weights_follow_the_seed_and_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (build_autoencoder(TINY, spatial_dims=2, image_channels=1, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_network_inside_is_monais_own() -> None:
    ours = build_autoencoder(TINY, spatial_dims=2, image_channels=1, seed=0)
    theirs = AutoencoderKL(**ours.arguments)
    theirs.load_state_dict(ours.net.state_dict())
    x = torch.randn(1, 1, 16, 16)
    mean, std = theirs.encode(F.pixel_unshuffle(x, 2))
    ours_mean, ours_log_var = ours.encode(x)
    torch.testing.assert_close(ours_mean, mean + ours.shortcut.down(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours_log_var, 2 * std.log(), atol=1e-5, rtol=1e-4)


def test_sizes_that_cannot_be_halved_are_refused_with_ones_that_can() -> None:
    config = AutoencoderConfig(patch=2, channels=(16, 16, 16))
    assert config.downsampling == 8
    with pytest.raises(InputError, match=r"\(60, 64\) is not divisible by 8, .*; set preprocess.size to \(64, 64\)"):
        config.latent_shape((60, 64))
    with pytest.raises(InputError, match=r"gives latents of \(1, 1\): each side must be ≥ 2"):
        config.latent_shape((8, 8))
    with pytest.raises(InputError, match=r"latents of \(6, 6\) are not divisible by 4"):
        DenoiserConfig(channels=(32, 32, 32)).check_latent((4, 6, 6))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": (10, 16), "norm_groups": 8}, "multiples of norm_groups = 8, got 10"),
        ({"channels": ()}, "at least one level"),
        ({"attention": (True,)}, "must be empty or have 2 entries, got 1"),
        ({"patch": 3}, "shortcut needs patch to be a power of two, got 3"),
    ],
)
def test_contradicting_sizes_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AutoencoderConfig(**wrong)


def test_kl_divergence_is_the_closed_form() -> None:
    mean, log_var = torch.tensor([[[[0.5]]]]), torch.tensor([[[[-1.0]]]])
    ours = kl_divergence(mean.expand(3, 2, 4, 4), log_var.expand(3, 2, 4, 4))
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(0.5, torch.exp(torch.tensor(-0.5))), torch.distributions.Normal(0.0, 1.0)
    )
    assert float(ours) == pytest.approx(float(theirs) * 2 * 4 * 4, rel=1e-5)


def test_spectrum_error_of_one_wave_is_its_share_of_the_coefficients() -> None:
    side, amplitude = 16, 0.4
    wave = amplitude * torch.cos(2 * torch.pi * 3 * torch.arange(side) / side).expand(1, 1, side, side)
    # an orthonormal transform puts a plane wave into one coefficient of the half spectrum: amplitude * side / 2
    expected = amplitude * side / 2 / (side * (side // 2 + 1))
    assert float(spectrum_error(torch.zeros_like(wave), wave)) == pytest.approx(expected, rel=1e-4)
