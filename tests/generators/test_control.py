"""A ControlNet for masks beside a generator that never saw any: it draws as before without a mask, and follows one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_prompts
from medphantom.conditioning.prompt import GridSchema, Prompt
from medphantom.core.errors import InputError
from medphantom.core.folders import pixel_digest
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import GeneratorConfig
from medphantom.generators.generate import generate
from medphantom.generators.train import train_generator
from medphantom.learning.fit_config import FitConfig
from tests.generators.test_conditioned import masks_at
from tests.generators.tiny import SAMPLER, SIDE, tiny_config


def control_config(base: Path, steps: int = 450, **changes: object) -> GeneratorConfig:
    fit = FitConfig(steps=steps, batch_size=16, learning_rate=3e-3, ema_decay=0.95, validate_every=0, tracker="none")
    settings = {"conditioning": {"mask": {}}, "denoiser_fit": fit, **changes}
    return tiny_config(init_from=str(base), tuning={"method": "control"}, **settings)


@pytest.fixture(scope="module")
def controlled(
    cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A ControlNet that has begun to learn; to follow masks takes it ten times as long."""
    folder = tmp_path_factory.mktemp("control")
    train_generator(cohort, preprocess, control_config(bundle_folder, 45), folder / "bundle", work=folder / "work")
    return folder / "bundle"


def predicted(bundle: GeneratorBundle, prompt: Prompt, masks: dict[str, np.ndarray] | None = None) -> torch.Tensor:
    x_t = torch.randn(1, *bundle.facts.latent_shape, generator=torch.Generator().manual_seed(0))
    conditions = bundle.denoiser.conditioner.of_prompts([prompt], masks)
    with torch.inference_mode():
        return bundle.denoiser(x_t, torch.tensor([0.5]), conditions)


def test_it_predicts_as_before_it_was_trained(
    cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path
) -> None:
    bundle = GeneratorBundle.load(bundle_folder)
    mask = masks_at([(5, 9)])[0]
    masked = Prompt(labels={"bright": True}, mask=pixel_digest(mask))
    bare = Prompt(labels={"bright": True})
    # validated at its first step, when nothing was learned yet: a rate of almost nothing
    config = control_config(bundle_folder, steps=1)
    still = config.model_copy(update={"denoiser_fit": config.denoiser_fit.model_copy(update={"learning_rate": 1e-12})})
    fresh = train_generator(cohort, preprocess, still, tmp_path / "bundle", work=tmp_path / "work")
    with_mask = predicted(fresh, masked, {pixel_digest(mask): mask})
    torch.testing.assert_close(with_mask, predicted(bundle, bare), atol=1e-5, rtol=0)


def test_without_a_mask_it_predicts_as_before(bundle: GeneratorBundle, controlled: Path) -> None:
    mask = masks_at([(5, 9)])[0]
    masked = Prompt(labels={"bright": True}, mask=pixel_digest(mask))
    bare = Prompt(labels={"bright": True})
    learned = GeneratorBundle.load(controlled)
    torch.testing.assert_close(predicted(learned, bare), predicted(bundle, bare))
    assert float((predicted(learned, masked, {pixel_digest(mask): mask}) - predicted(bundle, bare)).abs().max()) > 0.05


@pytest.mark.slow
def test_images_follow_their_masks(cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path) -> None:
    """Inside minus outside brightness is high for the requested mask, and lower for another image's mask."""
    masks = masks_at([(5, 5), (5, 10), (10, 5), (10, 10)] * 3)
    digests = {pixel_digest(mask): mask for mask in masks}
    prompts = [Prompt(labels={"bright": True}, mask=pixel_digest(mask)) for mask in masks]
    bundle = train_generator(
        cohort, preprocess, control_config(bundle_folder), tmp_path / "bundle", work=tmp_path / "work"
    )
    plan = plan_prompts(prompts, seed=1, masks=digests)
    made = generate(bundle, plan, tmp_path / "made", work=tmp_path / "draw", sampler=SAMPLER)
    order = [int(row) for row in made.manifest["image_id"].arg_sort()]
    images = np.stack([np.asarray(pixels, dtype=float) for pixels in made.pixels(order)])

    def contrast(shift: int) -> float:
        inside = np.stack(masks[shift:] + masks[:shift]) > 0
        return float(images[inside].mean() - images[~inside].mean())

    assert contrast(0) > 1.5 * contrast(1)
    assert contrast(0) > 1.5 * contrast(2)


def test_only_the_control_is_kept(controlled: Path) -> None:
    assert {path.name for path in controlled.iterdir() if path.is_dir()} == {"tuned", "conditioning"}
    kept = load_file(controlled / "tuned" / "model.safetensors")
    assert all(name.startswith("net.") for name in kept)
    assert any("controlnet_cond_embedding" in name for name in kept)


def test_without_masks_there_is_nothing_to_listen_to(
    cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path
) -> None:
    config = control_config(bundle_folder, conditioning={})
    with pytest.raises(InputError, match=r"a ControlNet needs masks as conditions; set generator\.conditioning\.mask"):
        train_generator(cohort, preprocess, config, tmp_path / "bundle", work=tmp_path / "work")


def test_the_spacing_is_read_where_the_base_reads_it(
    cohort: Cohort, preprocess: Preprocess, bundle_folder: Path, tmp_path: Path
) -> None:
    """On the grid that the ControlNet sees; a base that does not read it cannot be trained on it."""
    spaced = {"mask": {}, "spacing": True}
    with pytest.raises(InputError, match="the base does not read the spacing"):
        train_generator(
            cohort,
            preprocess,
            control_config(bundle_folder, conditioning=spaced),
            tmp_path / "refused",
            work=tmp_path / "work",
        )
    brief = FitConfig(steps=1, batch_size=8, validate_every=0, tracker="none")
    config = tiny_config(conditioning={"spacing": True}, autoencoder_fit=brief, denoiser_fit=brief)
    train_generator(cohort, preprocess, config, tmp_path / "base", work=tmp_path / "work")
    filled = preprocess.model_copy(update={"fit": "crop"})
    config = control_config(tmp_path / "base", steps=1, conditioning=spaced)
    bundle = train_generator(cohort, filled, config, tmp_path / "bundle", work=tmp_path / "work")
    assert bundle.facts.conditions.grid == GridSchema(size=(SIDE, SIDE), fit="crop")
    assert bundle.facts.geometry(Prompt(attributes={"spacing": 0.7}))[0] == pytest.approx((0.7, 0.7))
