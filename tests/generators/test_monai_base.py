"""Bases of the MONAI world: bundles, checkpoints, and those of monai-generative, whose outputs must come back."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from monai.networks import schedulers
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from safetensors.torch import save_file
from torch import nn

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import InputError
from medphantom.generators.base import open_base
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import FineTuning
from medphantom.generators.networks import NetworkBase
from medphantom.generators.objective import alpha_sigma
from medphantom.generators.train import train_generator
from medphantom.learning.fit_config import FitConfig
from tests.generators.tiny import tiny_config

PEERS = Path(sys.prefix) / "peers"  # where `make` puts monai-generative, apart from the environment
CODEC: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "num_res_blocks": 1,
    "attention_levels": [False, True],
    "latent_channels": 3,
    "norm_num_groups": 8,
}
UNET: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": 3,
    "num_res_blocks": 1,
    "attention_levels": [False, True],
    "norm_num_groups": 8,
    "num_head_channels": 8,
    "with_conditioning": True,
    "cross_attention_dim": 8,
}
SCHEDULER = {"num_train_timesteps": 500, "schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0205}
IMAGES = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def generative() -> Iterator[ModuleType]:
    """The networks of monai-generative 0.2.3 themselves."""
    if not PEERS.is_dir():
        pytest.skip("monai-generative is not there: `make` installs it")
    sys.path.insert(0, str(PEERS))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from generative.networks import nets
        yield nets
    finally:
        sys.path.remove(str(PEERS))


def randomized(net: nn.Module) -> nn.Module:
    """No weight at zero, where a wrong one could hide."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def write_base(folder: Path, codec: nn.Module, unet: nn.Module, *, old: bool, **changes: Any) -> Path:
    """A folder as MONAI's bundles have it."""
    library = "generative.networks" if old else "monai.networks"
    channels = "num_channels" if old else "channels"
    config = {
        "bundle_root": ".",
        "spatial_dims": 2,
        "scale_factor": 0.8,
        "autoencoder_def": {
            "_target_": f"{library}.nets.AutoencoderKL", **CODEC, "spatial_dims": "@spatial_dims", channels: [8, 16],
        },
        "diffusion_def": {"_target_": f"{library}.nets.DiffusionModelUNet", **UNET, channels: [16, 32]},
        "scheduler": {"_target_": "generative.networks.schedulers.DDIMScheduler", **SCHEDULER},
        "load_autoencoder": "$@autoencoder.load_state_dict(torch.load(@path))",
        **changes,
    }  # fmt: skip
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save({"epoch": 3, "state_dict": codec.state_dict()}, folder / "models" / "autoencoder.pt")
    torch.save(unet.state_dict(), folder / "models" / "diffusion_model.pt")
    return folder


def opened(folder: Path, value_range: str = "signed") -> NetworkBase:
    base = open_base(str(folder), FineTuning.model_validate({"value_range": value_range}))
    assert isinstance(base, NetworkBase)
    return base


@torch.inference_mode()
def test_networks_of_monai_generative_give_their_old_output(generative: ModuleType, tmp_path: Path) -> None:
    codec = randomized(generative.AutoencoderKL(**CODEC, num_channels=[8, 16]))
    unet = randomized(generative.DiffusionModelUNet(**UNET, num_channels=[16, 32]))
    base = opened(write_base(tmp_path / "base", codec, unet, old=True))
    mean, sigma = codec.encode(IMAGES)
    ours, log_var = base.codec.encode(IMAGES)
    torch.testing.assert_close(ours, mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(log_var, 2 * sigma.log(), atol=1e-4, rtol=0)
    torch.testing.assert_close(base.codec.decode(mean), codec.decode(mean), atol=1e-5, rtol=0)

    x_t, context = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 8)
    levels = torch.tensor([17, 403])
    expected = unet(x_t, levels, context=context)
    assert base.old.levels == 500
    ours = base.old.net(x_t, levels, context=context, class_labels=torch.zeros(2, 64))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_old_projection_would_change_the_output(generative: ModuleType) -> None:
    """Why it is put right: MONAI's own import applies weights that the old network held and never used."""
    old = randomized(generative.AutoencoderKL(**CODEC, num_channels=[8, 16]))
    new = AutoencoderKL(**CODEC, channels=[8, 16]).eval()
    new.load_old_state_dict(dict(old.state_dict()))
    assert float((new.encode(IMAGES)[0] - old.encode(IMAGES)[0]).abs().max()) > 1e-3


@torch.inference_mode()
def test_networks_of_monai_itself_and_images_from_0_to_1(tmp_path: Path) -> None:
    codec = randomized(AutoencoderKL(**CODEC, channels=[8, 16]))
    unet = randomized(DiffusionModelUNet(**UNET, channels=[16, 32]))
    folder = write_base(tmp_path / "base", codec, unet, old=False)
    base = opened(folder, "unit")
    mean, _ = codec.encode((IMAGES + 1) / 2)
    torch.testing.assert_close(base.codec.encode(IMAGES)[0], mean)
    torch.testing.assert_close(base.codec.decode(mean), 2 * codec.decode(mean) - 1)
    assert base.scaling.std == (1.25,) * 3
    assert base.objective.table is not None
    assert (base.objective.table.steps, base.objective.table.prediction) == (500, "epsilon")
    assert opened(folder, "unit").digest == base.digest
    (folder / "models" / "diffusion_model.pt").unlink()
    save_file(unet.state_dict(), folder / "models" / "diffusion_model.safetensors")
    assert opened(folder, "unit").digest == base.digest


def test_a_monai_base_is_fine_tuned_sampled_and_read_back_alone(
    cohort: Cohort, preprocess: Preprocess, tmp_path: Path
) -> None:
    codec = randomized(AutoencoderKL(**CODEC, channels=[8, 16]))
    unet = randomized(
        DiffusionModelUNet(**{**UNET, "with_conditioning": False, "cross_attention_dim": None}, channels=[16, 32])
    )
    base = write_base(
        tmp_path / "base",
        codec,
        unet,
        old=False,
        diffusion_def={
            "_target_": "monai.networks.nets.DiffusionModelUNet",
            **UNET,
            "with_conditioning": False,
            "cross_attention_dim": None,
            "channels": [16, 32],
        },
    )
    fit = FitConfig(steps=6, batch_size=8, learning_rate=1e-3, validate_every=3, tracker="none")
    config = tiny_config(init_from=str(base), denoiser_fit=fit)
    made = train_generator(cohort, preprocess, config, tmp_path / "tuned", work=tmp_path / "work")
    for path in (*base.rglob("*.json"), *base.rglob("*.pt")):
        path.unlink()  # a bundle that was tuned in full needs its base no more
    again = GeneratorBundle.load(tmp_path / "tuned")
    assert again.digest == made.digest
    x_t = torch.randn(1, *made.facts.latent_shape, generator=torch.Generator().manual_seed(0))

    def predicted(bundle: GeneratorBundle, *, bright: bool) -> torch.Tensor:
        prompt = Prompt(labels={"bright": bright, "dark": not bright})
        with torch.inference_mode():
            return bundle.denoiser(x_t, torch.tensor([0.5]), bundle.denoiser.conditioner.of_prompts([prompt]))

    torch.testing.assert_close(predicted(again, bright=True), predicted(made, bright=True))
    assert not torch.equal(predicted(made, bright=True), predicted(made, bright=False))  # labels reach it too


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_factor": "$1 / 2"}, "does not give the scale factor of its latents; write scale_factor"),
        ({"scheduler": {"_target_": "x.DDPMScheduler", "schedule": "cosine"}}, "has the noise schedule 'cosine'"),
        (
            {"scheduler": {"_target_": "x.DDPMScheduler", "prediction_type": "sample"}},
            "scheduler's prediction has an unsupported type",
        ),
        ({"scheduler": {"_target_": "x.RFlowScheduler"}}, "has the scheduler RFlowScheduler, which is not a table"),
        ({"scheduler": {"_target_": "x.DDPMScheduler", "beta_schedule": "linear"}}, "'beta_schedule' of its DDPMSched"),
        (
            {"scheduler": {"_target_": "x.DDPMScheduler", "sig_range": 6}},
            "'sig_range' of its DDPMScheduler is not part",
        ),
        ({"training": {"_target_": "x.DDPMScheduler"}}, "has schedulers of different noise levels"),
        ({"spatial_dims": "$import os"}, "spatial_dims is an expression, which is never evaluated"),
        ({"autoencoder_def": {"_target_": "monai.networks.nets.VQVAE"}}, "defines no AutoencoderKL in configs/"),
        (
            {"diffusion_def": {"_target_": "monai.networks.nets.DiffusionModelUNet", **UNET, "in_channels": 7}},
            "the denoiser takes 7 channels, but the autoencoder's latents have 3",
        ),
    ],
)
def test_bases_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    codec, unet = AutoencoderKL(**CODEC, channels=[8, 16]), DiffusionModelUNet(**UNET, channels=[16, 32])
    folder = write_base(tmp_path / "base", codec, unet, old=False, **changes)
    with pytest.raises(InputError, match=message) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


class Evil:
    """What a pickled checkpoint may hold."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


def test_a_checkpoint_with_code_in_it_is_never_run(tmp_path: Path) -> None:
    codec, unet = AutoencoderKL(**CODEC, channels=[8, 16]), DiffusionModelUNet(**UNET, channels=[16, 32])
    folder = write_base(tmp_path / "base", codec, unet, old=False)
    torch.save({"state_dict": Evil(tmp_path / "ran")}, folder / "models" / "autoencoder.pt")
    with pytest.raises(InputError, match="cannot be read as weights only"):
        opened(folder)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_lacks_weights_is_never_filled_up_at_random(tmp_path: Path) -> None:
    """MONAI's import of old checkpoints keeps what a file lacks as it was drawn."""
    plain = {
        "attention_levels": [False, False],
        "with_encoder_nonlocal_attn": False,
        "with_decoder_nonlocal_attn": False,
    }
    definition = {"_target_": "monai.networks.nets.AutoencoderKL", **CODEC, **plain, "channels": [8, 16]}
    codec, unet = AutoencoderKL(**{**CODEC, **plain}, channels=[8, 16]), DiffusionModelUNet(**UNET, channels=[16, 32])
    folder = write_base(tmp_path / "base", codec, unet, old=False, autoencoder_def=definition)
    assert opened(folder).digest == opened(folder).digest
    file = folder / "models" / "autoencoder.pt"
    weights = dict(codec.state_dict())
    for state in ({"one": torch.zeros(1)}, {**weights, "more": torch.zeros(1)}, dict(list(weights.items())[1:])):
        torch.save({**state, "of_another_kind": torch.zeros(1)}, file)
        with pytest.raises(InputError, match=r"no file in .*/models fits the autoencoder"):
            opened(folder)
    file.unlink()
    (folder / "models" / "diffusion_model.pt").rename(folder / "models" / "diffusion_model.ckpt")
    with pytest.raises(
        InputError, match=r"/models contains no weights \(.ckpt cannot be read\); provide the state dict of the"
    ):
        opened(folder)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "PNDMScheduler"])
def test_levels_that_are_not_given_are_those_of_the_class(tmp_path: Path, name: str) -> None:
    codec, unet = AutoencoderKL(**CODEC, channels=[8, 16]), DiffusionModelUNet(**UNET, channels=[16, 32])
    folder = write_base(tmp_path / "base", codec, unet, old=False, scheduler={"_target_": f"x.{name}"})
    objective = opened(folder).objective
    assert objective.table is not None
    levels = torch.arange(1, objective.table.steps + 1) / objective.table.steps
    expected = getattr(schedulers, name)().alphas_cumprod
    torch.testing.assert_close(alpha_sigma(objective, levels)[0].square(), expected, atol=1e-5, rtol=1e-4)
