"""Large volumes go through the autoencoder in overlapping windows, which it learned on crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_counts
from medphantom.generators.autoencoder import build_autoencoder
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import AutoencoderConfig
from medphantom.generators.generate import generate, reconstruct
from medphantom.generators.reconstruction import random_crop
from medphantom.generators.train import train_generator
from tests.generators.tiny import SAMPLER, make_cohort, tiny_config

SIDE, WINDOW = 32, 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, GeneratorBundle]:
    folder = tmp_path_factory.mktemp("windows")
    cohort = make_cohort(folder / "cohort", total=24, dims=3, side=SIDE)
    config = tiny_config()
    steps = {"steps": 40, "batch_size": 4, "validate_every": 20, "checkpoint_every": 20, "tracker": "none"}
    config = tiny_config(
        autoencoder=config.autoencoder.model_copy(update={"window": WINDOW}).model_dump(),
        autoencoder_fit={**steps, "learning_rate": 2e-3},
        denoiser_fit={**steps, "steps": 4, "validate_every": 4},
    )
    preprocess = Preprocess.for_cohort(cohort, (SIDE,) * 3)
    train_generator(cohort, preprocess, config, folder / "bundle", work=folder / "work")
    return cohort, GeneratorBundle.load(folder / "bundle")


def test_volumes_are_rebuilt_without_seams(trained: tuple[Cohort, GeneratorBundle]) -> None:
    cohort, bundle = trained
    assert bundle.facts.window == WINDOW
    volumes = network_images(cohort, cohort.rows("test"), bundle.facts.preprocess)
    rebuilt = reconstruct(bundle, volumes)
    assert np.abs(rebuilt - volumes).mean() < 0.4 * np.abs(volumes - volumes.mean()).mean()
    steps = np.abs(np.diff(rebuilt - volumes, axis=-1)).mean((0, 1, 2, 3))
    edges = [11, 15, 19, 23]  # where windows begin or end: they start at 0, 12 and 16
    others = [place for place in range(SIDE - 1) if place not in edges]
    assert steps[edges].mean() < 1.3 * steps[others].mean()


def test_no_larger_piece_than_a_window_goes_through_the_network(trained: tuple[Cohort, GeneratorBundle]) -> None:
    _, bundle = trained
    seen: list[int] = []
    net = bundle.autoencoder.net
    hooks = [
        part.register_forward_pre_hook(lambda _, x: seen.append(max(x[0].shape[2:])))
        for part in (net.encoder, net.decoder)
    ]
    try:
        mean, log_var = bundle.autoencoder.encode(torch.zeros(2, 1, SIDE, 16, SIDE))
        images = bundle.autoencoder.decode(mean)
    finally:
        for hook in hooks:
            hook.remove()
    assert mean.shape == log_var.shape == (2, 4, 8, 4, 8)
    assert images.shape == (2, 1, SIDE, 16, SIDE)
    assert set(seen) == {WINDOW // 2, WINDOW // 4}  # behind the front end; latents


def test_a_window_changes_nothing_for_what_fits_it() -> None:
    config = AutoencoderConfig(channels=(8, 16), norm_groups=8)
    whole, windowed = (
        build_autoencoder(config, spatial_dims=2, image_channels=1, seed=0, window=window) for window in (None, 32)
    )
    images = torch.rand(2, 1, 32, 24)
    assert torch.equal(whole(images)[0], windowed(images)[0])


def test_drawn_volumes_have_their_full_size(trained: tuple[Cohort, GeneratorBundle], tmp_path: Path) -> None:
    _, bundle = trained
    plan = plan_counts(bundle.facts.conditions, {"bright": 1, "dark": 1}, seed=0)
    cohort = generate(bundle, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    assert next(cohort.records([0])).pixels.shape == (SIDE,) * 3


def test_crops_are_of_the_image_at_places_of_their_own() -> None:
    images = torch.arange(4 * 24 * 20.0).reshape(4, 1, 24, 20)
    crops = random_crop(images, 16, torch.Generator().manual_seed(0))
    assert crops.shape == (4, 1, 16, 16)
    corners = set()
    for image, crop in zip(images, crops, strict=True):
        row, column = divmod(int(crop[0, 0, 0] - image[0, 0, 0]), 20)
        assert torch.equal(crop, image[:, row : row + 16, column : column + 16])
        corners.add((row, column))
    assert len(corners) > 1
    assert random_crop(images, 24, torch.Generator()) is images


@pytest.mark.parametrize(
    ("size", "window"),
    [((128, 128, 128), None), ((160, 160, 128), 96), ((1024, 1024), None), ((2048, 2048), 512)],
)
def test_by_itself_it_takes_what_is_large_in_windows(size: tuple[int, ...], window: int | None) -> None:
    assert AutoencoderConfig().window_for(size) == window
    assert AutoencoderConfig(window=None).window_for(size) is None


def test_a_window_that_does_not_fit_the_latents_grid_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"autoencoder\.window must be a multiple of 16, got 40"):
        AutoencoderConfig(window=40)
