"""Fine-tuning of a bundle of ours: what it knows is kept, what is new is learned, what is saved is enough."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import BundleError, InputError
from medphantom.generators.base import open_base
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import FineTuning, GeneratorConfig
from medphantom.generators.methods import make_trainable
from medphantom.generators.train import train_generator
from medphantom.learning.fit_config import FitConfig
from tests.generators.tiny import make_cohort, tiny_config


def tuning_config(base: Path, method: str = "full", **changes: Any) -> GeneratorConfig:
    fit = FitConfig(steps=6, batch_size=8, learning_rate=1e-3, validate_every=3, tracker="none")
    return tiny_config(init_from=str(base), tuning={"method": method, "rank": 2}, denoiser_fit=fit, **changes)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Another cohort: one label of the base, one that it never saw, another order."""
    source = make_cohort(tmp_path_factory.mktemp("source") / "cohort", total=48, seed=9)
    schema = CohortSchema(spatial_dims=2, labels=("cracked", "dark", "bright"), mask_values=source.schema.mask_values)
    out = tmp_path_factory.mktemp("private") / "cohort"
    with CohortWriter(out, schema) as writer:
        for place, record in enumerate(source.records(range(len(source)))):
            labels = {**record.labels, "cracked": place % 3 == 0}
            writer.add(replace(record, labels=labels, attributes={}, text=None))
    return Cohort.open(out)


def output(bundle: GeneratorBundle, prompt: Prompt) -> torch.Tensor:
    x_t = torch.randn(1, *bundle.facts.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return bundle.denoiser(x_t, torch.tensor([0.5]), bundle.denoiser.conditioner.of_prompts([prompt]))


@pytest.mark.parametrize("method", ["full", "lora", "attention"])
def test_a_tuned_bundle_is_read_back_with_the_same_output(
    private: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path, method: str
) -> None:
    config = tuning_config(bundle_folder, method)
    made = train_generator(private, preprocess, config, tmp_path / "tuned", work=tmp_path / "work")
    again = GeneratorBundle.load(tmp_path / "tuned")
    assert again.digest == made.digest
    prompt = Prompt(labels={"cracked": True, "dark": False})
    torch.testing.assert_close(output(again, prompt), output(made, prompt))

    folders = {path.name for path in (tmp_path / "tuned").iterdir() if path.is_dir()}
    assert folders == ({"autoencoder", "denoiser", "conditioning"} if method == "full" else {"tuned", "conditioning"})
    facts = json.loads((tmp_path / "tuned" / "bundle.json").read_text())["base"]
    assert facts["digest"] == GeneratorBundle.load(bundle_folder).digest
    assert facts["needed"] is (method != "full")
    before, after = GeneratorBundle.load(bundle_folder), again
    for name, tensor in before.autoencoder.state_dict().items():
        assert torch.equal(tensor, after.autoencoder.state_dict()[name])
    if method == "attention":
        kept = load_file(tmp_path / "tuned" / "tuned" / "model.safetensors")
        assert all(".attn1." in name or ".attn2." in name for name in kept)


def test_low_rank_changes_count_by_alpha_over_rank(bundle_folder: Path) -> None:
    """Hu et al. 2022, section 4.1: the output is that of ``W + α/r · BA``."""
    denoiser = GeneratorBundle.load(bundle_folder).denoiser
    make_trainable(denoiser, FineTuning(method="lora", rank=2, alpha=6))
    layer: Any = next(m for name, m in denoiser.net.named_modules() if name.endswith("attn1.to_q"))
    factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    torch.nn.init.normal_(factors[1])
    x = torch.randn(3, layer.base_layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(layer(x), layer.base_layer(x) + 3 * x @ factors[0].T @ factors[1].T, atol=1e-5)
    learning = {name.rsplit(".", 3)[1] for name, p in denoiser.net.named_parameters() if p.requires_grad}
    assert learning == {"lora_A", "lora_B"}


def test_what_the_base_knows_by_name_is_where_tuning_begins(
    private: Cohort, bundle: GeneratorBundle, bundle_folder: Path
) -> None:
    base = open_base(str(bundle_folder))
    schema = bundle.facts.conditions.model_copy(update={"labels": ("cracked", "dark", "bright"), "exclusive": False})
    conditioner = type(bundle.denoiser.conditioner)(schema)
    new = base.denoiser(conditioner, bundle.denoiser.sizes, seed=3)
    old = bundle.denoiser.conditioning["encoder"].labels.weight
    mine = new.conditioning["encoder"].labels.weight
    torch.testing.assert_close(mine[3:6], old[3:6])  # dark, in the second place of both
    torch.testing.assert_close(mine[6:9], old[:3])  # bright moved from the first place to the third
    assert not torch.equal(mine[:3], old[:3])
    torch.testing.assert_close(new.net.state_dict(), bundle.denoiser.net.state_dict())


def test_a_mask_that_the_base_never_saw_changes_nothing_at_first(
    private: Cohort, preprocess: Preprocess, bundle: GeneratorBundle, bundle_folder: Path
) -> None:
    from medphantom.conditioning.conditioner import encoder_sizes, learn_conditioner
    from medphantom.conditioning.config import ConditioningConfig, MaskConfig

    config = ConditioningConfig(mask=MaskConfig(channels=4))
    rows = private.rows("train")
    conditioner = learn_conditioner(private, rows, bundle.facts.conditions, config, preprocess=preprocess, seed=0)
    sizes = encoder_sizes(conditioner, config, bundle.denoiser.sizes.dim, 2)
    new = open_base(str(bundle_folder)).denoiser(conditioner, sizes, seed=3).eval()
    conditions = conditioner.of_rows(private, rows[:4], preprocess)
    assert conditions.mask is not None
    assert int(conditions.mask.max()) > 0
    x_t = torch.randn(4, *bundle.facts.latent_shape, generator=torch.Generator().manual_seed(0))
    times = torch.full((4,), 0.5)
    without = bundle.denoiser.conditioner.of_rows(private, rows[:4], preprocess)
    with torch.inference_mode():
        torch.testing.assert_close(new(x_t, times, conditions), bundle.denoiser(x_t, times, without))


def test_tuning_starts_from_what_the_base_can_do(
    cohort: Cohort, preprocess: Preprocess, bundle: GeneratorBundle, bundle_folder: Path, tmp_path: Path
) -> None:
    """After six steps on the base's own cohort the loss is near the base's; from scratch it is far above."""
    tuned = train_generator(
        cohort, preprocess, tuning_config(bundle_folder), tmp_path / "tuned", work=tmp_path / "work"
    )
    fit = tuning_config(bundle_folder).denoiser_fit
    scratch = train_generator(
        cohort, preprocess, tiny_config(denoiser_fit=fit), tmp_path / "scratch", work=tmp_path / "work-scratch"
    )
    best = bundle.training["denoiser"]["best_loss"]
    assert tuned.training["denoiser"]["best_loss"] < 1.15 * best
    assert scratch.training["denoiser"]["best_loss"] > 1.3 * best


def test_bases_that_do_not_fit_are_refused_in_one_line(
    private: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path
) -> None:
    base = open_base(str(bundle_folder))
    with pytest.raises(InputError, match=r"the base generates 2-D images, but preprocess\.size has 3 sides"):
        base.latent_shape((16, 16, 16))
    with pytest.raises(
        InputError, match=r"not divisible by 8, the base's downsampling; set preprocess.size to \(24, 16\)"
    ):
        base.latent_shape((18, 16))
    with pytest.raises(InputError, match="the base expects images of 1 channels, but those of this cohort have 3"):
        base.autoencoder(3)
    train_generator(private, preprocess, tuning_config(bundle_folder, "lora"), tmp_path / "tuned", work=tmp_path / "w")
    with pytest.raises(BundleError, match="contains only the changes to another base"):
        open_base(str(tmp_path / "tuned"))
