"""Fine-tuning of Stable Diffusion: a tiny pipeline of real classes and real layout, read back by plain diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.plan import plan_counts
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import BundleError, InputError
from medphantom.generators.base import open_base
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SamplerConfig
from medphantom.generators.generate import generate
from medphantom.generators.latents import unscaled
from medphantom.generators.sampler import sample
from medphantom.generators.stable import StableAutoencoder
from medphantom.generators.train import train_generator
from medphantom.learning.fit_config import FitConfig
from tests.generators.stable_tiny import make_pipeline
from tests.generators.tiny import make_cohort, tiny_config

PREPROCESS = Preprocess(size=(16, 16))
TEXT = "Image showing bright."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("base") / "pipeline")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "cohort")


def tuned(base: Path, cohort: Cohort, folder: Path, method: str, **changes: Any) -> GeneratorBundle:
    config = tiny_config(
        init_from=str(base),
        tuning={"method": method, "rank": 4, "alpha": 8},
        conditioning={"labels": False, "text": {"written_by": "templates", "paraphrases": 2}},
        denoiser_fit=FitConfig(steps=6, batch_size=8, learning_rate=1e-3, validate_every=3, tracker="none"),
        **changes,
    )
    return train_generator(cohort, PREPROCESS, config, folder / "bundle", work=folder / "work")


def pipeline(base: Path, folder: Path, method: str) -> StableDiffusionPipeline:
    """What a user of plain diffusers would write."""
    if method == "full":
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True)
        return StableDiffusionPipeline.from_pretrained(base, unet=unet, safety_checker=None, use_safetensors=True)
    made = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, use_safetensors=True)
    if method == "lora":
        made.load_lora_weights(folder / "lora")
    else:
        found = made.unet.load_state_dict(load_file(folder / "tuned" / "model.safetensors"), strict=False)
        assert not found.unexpected_keys
    return made


@pytest.mark.parametrize("method", ["full", "lora", "attention"])
def test_fine_tuned_then_sampled_saved_and_read_by_plain_diffusers(
    base: Path, cohort: Cohort, tmp_path: Path, method: str
) -> None:
    bundle = tuned(base, cohort, tmp_path, method)
    again = GeneratorBundle.load(tmp_path / "bundle")
    assert again.digest == bundle.digest

    plan = plan_counts(bundle.facts.conditions, {"bright": 2, "dark": 2}, seed=0)
    sampler = SamplerConfig(steps=4, guidance=3.0, device="cpu")
    drawn = generate(again, plan, tmp_path / "synthetic", work=tmp_path / "draw", sampler=sampler)
    assert len(drawn) == 4

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = drawn_by(pipeline(base, tmp_path / "bundle", method), noise)
    ours = images_of(again, noise, steps=4, guidance=3.0)
    torch.testing.assert_close(ours, expected.mean(dim=1, keepdim=True), atol=1e-4, rtol=0)

    untouched = drawn_by(StableDiffusionPipeline.from_pretrained(base, safety_checker=None), noise)
    assert float((expected - untouched).abs().max()) > 1e-3, "nothing was learned"


@torch.inference_mode()
def drawn_by(plain: StableDiffusionPipeline, noise: torch.Tensor) -> torch.Tensor:
    """Images of plain diffusers, in -1…1 before they are clipped."""
    plain.set_progress_bar_config(disable=True)
    plain.scheduler = DPMSolverMultistepScheduler.from_config(plain.scheduler.config, timestep_spacing="linspace")
    latents = plain(
        TEXT, latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="latent", height=16, width=16
    ).images
    return plain.vae.decode(latents / plain.vae.config.scaling_factor).sample


@torch.inference_mode()
def images_of(bundle: GeneratorBundle, noise: torch.Tensor, *, steps: int, guidance: float) -> torch.Tensor:
    conditions = bundle.denoiser.conditioner.of_prompts([Prompt(text=TEXT)])
    denoise = guided(bundle.denoiser, conditions, scale=guidance)
    latents = sample(denoise, noise, objective=bundle.facts.objective, solver="dpmpp_2m", steps=steps)
    return bundle.autoencoder.decode(unscaled(latents, bundle.facts.latent_scaling))


def test_only_what_was_learned_is_kept(base: Path, cohort: Cohort, tmp_path: Path) -> None:
    tuned(base, cohort, tmp_path, "lora")
    folder = tmp_path / "bundle"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"lora"}
    whole = sum(p.numel() for p in UNet2DConditionModel.from_pretrained(base / "unet").parameters())
    kept = load_file(folder / "lora" / "pytorch_lora_weights.safetensors")
    assert sum(tensor.numel() for tensor in kept.values()) < whole / 5
    checkpoint = next((tmp_path / "work").glob("denoiser-*/checkpoints/step-*/network.safetensors"))
    assert {"lora" in name for name in load_file(checkpoint)} == {True}
    facts = json.loads((folder / "bundle.json").read_text())
    assert facts["base"]["digest"] == open_base(str(base)).digest
    assert facts["base"]["needed"] is True


def test_a_changed_base_is_found_out(base: Path, cohort: Cohort, tmp_path: Path) -> None:
    other = make_pipeline(tmp_path / "other")
    tuned(other, cohort, tmp_path, "attention")
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_out.bias"] = tensors["decoder.conv_out.bias"] + 1e-3
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"is not the one that .* was fine-tuned from"):
        GeneratorBundle.load(tmp_path / "bundle")


def test_grey_and_16_bit_images_pass_without_colour_cast_or_banding(base: Path) -> None:
    """In double precision of the network a ramp of 4,096 greys stays as fine as the network lets it: nothing rounds."""
    codec = open_base(str(base)).autoencoder(1)
    assert isinstance(codec, StableAutoencoder)
    ramp = torch.linspace(-1, 1, 64 * 64).reshape(1, 1, 64, 64)
    with torch.inference_mode():
        mean, log_var = codec.encode(ramp)
        back = codec.decode(mean)
        net: AutoencoderKL = codec.net
        colours = net.decode(net.encode(ramp.expand(-1, 3, -1, -1)).latent_dist.mean).sample
    assert back.shape == ramp.shape
    assert log_var.shape == mean.shape
    torch.testing.assert_close(back[:, 0], colours.mean(dim=1))
    assert len(np.unique(back.numpy())) > 4000
    red = open_base(str(base)).autoencoder(3)
    assert red.decode(mean).shape == (1, 3, 64, 64)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditioning": {"labels": True}}, "a Stable Diffusion base reads text only"),
        ({"init_from": "nobody/nothing"}, r"nobody/nothing cannot be had; give a folder .* or connect to the hub"),
    ],
)
def test_bases_that_do_not_fit_are_refused_in_one_line(
    base: Path, cohort: Cohort, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = tiny_config(**{"init_from": str(base), **changes})
    with pytest.raises(InputError, match=message):
        train_generator(cohort, PREPROCESS, config, tmp_path / "bundle", work=tmp_path / "work")
    assert not (tmp_path / "bundle").exists()


def test_networks_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    made = make_pipeline(tmp_path / "other", cross_attention_dim=24)
    with pytest.raises(InputError, match="expects 24 features of a token, but the text encoder gives 32"):
        open_base(str(made))
    with pytest.raises(InputError, match=r"not divisible by 4, the base's downsampling; set preprocess.size to"):
        open_base(str(make_pipeline(tmp_path / "base"))).latent_shape((18, 16))
    with pytest.raises(InputError, match="neither a bundle nor a folder in the layout of MONAI or diffusers"):
        open_base(str(tmp_path))


NETWORKS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def test_half_precision_variants_are_read_and_full_precision_goes_first(base: Path, tmp_path: Path) -> None:
    made = make_pipeline(tmp_path / "made")
    for name, stem in NETWORKS.items():
        half = {key: value.half() for key, value in load_file(made / name / f"{stem}.safetensors").items()}
        save_file(half, made / name / f"{stem}.fp16.safetensors", metadata={"format": "pt"})
    both = open_base(str(made))
    assert both.files == tuple(f"{name}/{stem}.safetensors" for name, stem in NETWORKS.items())
    assert both.digest == open_base(str(base)).digest
    for name, stem in NETWORKS.items():
        (made / name / f"{stem}.safetensors").unlink()
    halved = open_base(str(made))
    assert halved.files == tuple(f"{name}/{stem}.fp16.safetensors" for name, stem in NETWORKS.items())
    assert halved.digest != both.digest  # of what was read
    plain = StableDiffusionPipeline.from_pretrained(made, variant="fp16", safety_checker=None)
    for key, value in plain.unet.state_dict().items():
        assert torch.equal(halved.as_it_is().net.state_dict()[key], value.float())


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_read_and_a_missing_one_is_one_line(base: Path, tmp_path: Path, variant: str | None) -> None:
    made = make_pipeline(tmp_path / "made")
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    (made / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(made / "unet", max_shard_size="100KB", variant=variant)
    shards = sorted((made / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert open_base(str(made)).digest == open_base(str(base)).digest
    shards[0].unlink()
    with pytest.raises(InputError, match=rf"unet of base .* 1 of its {len(shards)} weight files are missing"):
        open_base(str(made))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_whole_weights_is_one_line(tmp_path: Path, name: str) -> None:
    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            open_base(str(made))
        assert "\n" not in str(caught.value)

    made, stem = make_pipeline(tmp_path / "made"), NETWORKS[name]
    folder = made / name
    file, config = folder / f"{stem}.safetensors", folder / "config.json"
    weights = load_file(file)
    last = max(weights)

    save_file({key: value for key, value in weights.items() if key != last}, file, metadata={"format": "pt"})
    refused("1 of its weights are missing from .*; provide the config.json and the weights that were saved together")
    if name != "text_encoder":  # which may be half of a CLIP model
        save_file({**weights, "more": torch.zeros(1)}, file, metadata={"format": "pt"})
        refused("0 of its weights are missing from .*, 1 are of another network")
    save_file({**weights, last: torch.zeros(3, 5)}, file, metadata={"format": "pt"})
    refused("cannot be had")
    file.write_bytes(file.read_bytes()[:400])
    refused("complete safetensors that fit it")
    pickled = file.rename(folder / f"{stem}.bin")
    refused(rf"has pickled weights only \(.bin\), which are never read; provide .*{stem}.safetensors")
    pickled.unlink()
    refused(rf"lacks its weights; provide .*{stem}.safetensors")
    config.unlink()
    refused("has no config.json")
    folder.rename(made / "elsewhere")
    refused("there is no folder|neither a bundle nor a folder in the layout")


def test_a_scheduler_is_read_by_its_class_or_missed_in_one_line(tmp_path: Path) -> None:
    made = make_pipeline(tmp_path / "made")
    file = made / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    table = open_base(str(made)).objective.table
    assert table is not None
    assert (table.schedule, table.start, table.end) == ("linear", 1e-4, 0.02)
    file.unlink()
    with pytest.raises(
        InputError, match=r"scheduler of base .* is not available; provide scheduler/scheduler_config\.json"
    ):
        open_base(str(made))
    single = tmp_path / "model.ckpt"
    single.write_bytes(b"")
    with pytest.raises(InputError, match="is a single file, but a base is a folder; convert a single checkpoint"):
        open_base(str(single))
