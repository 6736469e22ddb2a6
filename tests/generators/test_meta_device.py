"""Losses and samplers on the ``meta`` device, where a tensor left on the CPU is an error, as on any accelerator."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from medphantom.cohorts.records import AttributeSpec
from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.generators.autoencoder import build_autoencoder
from medphantom.generators.config import (
    SOLVERS,
    AutoencoderConfig,
    DenoiserConfig,
    NoiseTable,
    Objective,
    ReconstructionConfig,
)
from medphantom.generators.denoiser import DenoiserLearner, build_denoiser
from medphantom.generators.facts import LatentScaling
from medphantom.generators.features import FeatureLearner, FeatureNet
from medphantom.generators.inversion import ddim_step, invert, time_grid
from medphantom.generators.latents import scaled, unscaled
from medphantom.generators.reconstruction import AutoencoderLearner, build_adversary
from medphantom.generators.sampler import sample
from medphantom.learning.learner import Learner
from medphantom.learning.row_gradients import RowGradients

META = torch.device("meta")
SHAPE, BATCH = (4, 8, 8), 3
SCHEMA = ConditionSchema(
    labels=("bright", "dark"),
    attributes=(
        AttributeSpec(name="age", kind="continuous", low=0, high=100),
        AttributeSpec(name="view", kind="categorical", categories=("AP", "PA")),
    ),
)
PROMPTS = [Prompt(labels={"bright": True}, attributes={"age": 40.0, "view": "AP"})] * BATCH
SCALING = LatentScaling(mean=(0.0,) * 4, std=(1.0,) * 4)
OBJECTIVES = {
    "flow": Objective(shift=2.0),
    "v": Objective(kind="v"),
    "ddpm": Objective(kind="ddpm", table=NoiseTable()),
}


def denoiser() -> nn.Module:
    config = DenoiserConfig(channels=(16, 32), norm_groups=8, head_channels=16)
    return build_denoiser(config, Conditioner(SCHEMA), SHAPE, seed=0).to(META)


def learns(learner: Learner, batch: dict[str, Tensor]) -> None:
    """One loss and its gradients, all of them on the device."""
    losses = learner.loss(batch, torch.Generator().manual_seed(0))
    assert {value.device for value in losses.values()} == {META}
    losses["loss"].backward()
    gradients = [p.grad for p in learner.network.parameters() if p.requires_grad and p.grad is not None]
    assert gradients
    assert {gradient.device for gradient in gradients} == {META}


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_denoiser_learns_there(kind: str) -> None:
    learner = DenoiserLearner(
        denoiser(), DenoiserConfig(), objective=OBJECTIVES[kind], scaling=SCALING, monitored={}, seed=0,
        decode=lambda latents: latents, drift=0.1, offset_noise=0.1,
    )  # fmt: skip
    conditions = Conditioner(SCHEMA).of_prompts(PROMPTS).to(META).tensors()
    latents = {name: torch.randn(BATCH, *SHAPE, device=META) for name in ("mean", "log_var")}
    learns(learner, {**latents, **conditions})


@pytest.mark.parametrize("dims", [2, 3])
def test_the_autoencoder_its_features_and_its_adversary_learn_there(dims: int) -> None:
    images = {"image": torch.rand(BATCH, 1, *[16] * dims, device=META)}
    reconstruction = ReconstructionConfig(features=0.1, adversary=0.1, adversary_from=0.0)
    adversary = build_adversary(reconstruction, spatial_dims=dims, image_channels=1, seed=0).to(META)
    network = build_autoencoder(
        AutoencoderConfig(channels=(16, 16)), spatial_dims=dims, image_channels=1, seed=0, window=None
    )
    features = FeatureNet(dims, 1, 2).to(META)
    learner = AutoencoderLearner(
        network.to(META), reconstruction, steps=10, features=features, adversary=adversary, monitored={}
    )
    learner.step = 9
    learns(learner, images)
    assert learner.adversary_loss(images, torch.Generator().manual_seed(0))["loss"].device == META
    learns(FeatureLearner(FeatureNet(dims, 1, 2).to(META), exclusive=False), {**images, "labels": _labels()})


def _labels() -> Tensor:
    return torch.ones(BATCH, 2, dtype=torch.int64, device=META)


@pytest.mark.parametrize(("kind", "solver"), [(kind, solver) for kind, known in SOLVERS.items() for solver in known])
def test_every_solver_samples_there(kind: str, solver: str) -> None:
    conditions = Conditioner(SCHEMA).of_prompts(PROMPTS).to(META)
    denoise = guided(denoiser(), conditions, scale=2.0)
    noise = torch.randn(BATCH, *SHAPE, device=META)
    drawn = sample(denoise, noise, objective=OBJECTIVES[kind], solver=solver, steps=5)
    assert (drawn.device, drawn.shape) == (META, noise.shape)
    assert unscaled(drawn, SCALING).device == scaled(drawn, SCALING).device == META


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_paths_are_inverted_there(kind: str) -> None:
    conditions = Conditioner(SCHEMA).of_prompts(PROMPTS).to(META)
    network = denoiser()
    step = ddim_step(lambda x, t: network(x, t, conditions), OBJECTIVES[kind])
    assert invert(step, torch.randn(BATCH, *SHAPE, device=META), time_grid(3), iterations=2).device == META


def test_gradients_of_single_rows_are_there() -> None:
    """As every private step takes them."""
    learner = DenoiserLearner(
        denoiser(), DenoiserConfig(), objective=OBJECTIVES["flow"], scaling=SCALING, monitored={}, seed=0,
        decode=lambda latents: latents,
    )  # fmt: skip
    conditions = Conditioner(SCHEMA).of_prompts(PROMPTS).to(META).tensors()
    latents = {name: torch.randn(BATCH, *SHAPE, device=META) for name in ("mean", "log_var")}
    rows = learner.prepare({**latents, **conditions}, torch.Generator().manual_seed(0))
    assert {tensor.device for tensor in rows.values()} == {META}
    hooks = RowGradients(learner.network)
    assert hooks.compute(learner.row_losses, rows).device == META
    found = [parameter.grad_sample for parameter in learner.network.parameters() if parameter.grad_sample is not None]
    assert found
    assert {(gradient.device, len(gradient)) for gradient in found} == {(META, BATCH)}
