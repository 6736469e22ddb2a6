"""A distilled generator draws in a few calls what the whole one draws in many, and says what it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.plan import plan_prompts
from medphantom.conditioning.prompt import Intervention, Prompt
from medphantom.core.errors import InputError
from medphantom.flows.runs.hooks import hooks_of
from medphantom.generators.attacks import membership_scores
from medphantom.generators.base import open_base
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import CounterfactualConfig, Distillation, GeneratorConfig, Objective, SamplerConfig
from medphantom.generators.counterfactual import counterfactual_images
from medphantom.generators.distillation import FewCallLearner, follow_paths, whole_windows, window_levels
from medphantom.generators.edits import STRENGTH, edited
from medphantom.generators.generate import draw, generate, resolved
from medphantom.generators.sampler import noise_of, sample
from medphantom.generators.train import train_generator
from tests.generators.tiny import tiny_config

FEW = {
    "calls": 2, "images": 300, "guidance": 3.0,
    "fit": {"steps": 200, "batch_size": 32, "learning_rate": 2e-3, "ema_decay": 0.95, "validate_every": 0,
            "tracker": "none", "warmup_steps": 5},
}  # fmt: skip


def few_config() -> GeneratorConfig:
    return GeneratorConfig.model_validate({**tiny_config().model_dump(), "distillation": FEW})


@pytest.fixture(scope="module")
def folder(cohort: Cohort, preprocess: Preprocess, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distilled") / "bundle"
    train_generator(cohort, preprocess, few_config(), out, work=work)
    return out


@pytest.fixture
def few(folder: Path) -> GeneratorBundle:
    return GeneratorBundle.load(folder)


def test_two_calls_come_closer_to_the_guided_path_than_those_of_the_whole_network(
    few: GeneratorBundle, bundle: GeneratorBundle
) -> None:
    prompts = [Prompt(labels={"bright": number % 2 == 0}) for number in range(64)]
    said = bundle.denoiser.conditioner.of_prompts(prompts)
    noise = noise_of(range(1000, 1064), bundle.facts.latent_shape)
    objective, config = bundle.facts.objective, Distillation.model_validate(FEW)
    truth = follow_paths(bundle.denoiser, said, noise, objective=objective, config=config)[:, -1]
    whole = guided(bundle.denoiser, said, scale=3.0)
    with torch.inference_mode():
        quick = sample(lambda x, t: few.denoiser(x, t, said), noise, objective=objective, solver="euler", steps=2)
        rough = sample(whole, noise, objective=objective, solver="euler", steps=2)
        fine = sample(whole, noise, objective=objective, solver="heun", steps=40)
    errors = [float((found - truth).square().mean()) for found in (quick, rough, fine)]
    assert errors[2] < 0.1 * errors[1]  # the paths are those of the sampler
    assert errors[0] < 0.6 * errors[1]


def test_it_is_drawn_in_two_calls_whatever_is_the_default(
    few: GeneratorBundle, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert few.facts.few_calls is not None
    assert few.training["distillation"]["best_step"] == 200
    settings = resolved(few, SamplerConfig())
    assert (settings["solver"], settings["steps"], settings["guidance"]) == ("euler", 2, 3.0)
    calls: list[int] = []
    few.denoiser.register_forward_hook(lambda module, given, found: calls.append(len(given[0])))
    plan = plan_prompts([Prompt(labels={"bright": True})] * 3, seed=1)
    pixels = draw(few, list(plan), settings)
    assert calls == [settings["micro_batch"]] * 2  # no call is doubled for guidance
    made = generate(GeneratorBundle.load(folder), plan, tmp_path / "made", work=tmp_path / "work")
    assert np.array_equal(np.stack(made.pixels(made.rows())), pixels)
    again = SamplerConfig.model_validate(made.schema.generation)
    assert resolved(few, again) == settings  # what a cohort records can be drawn again


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 20}, r"sampler\.steps cannot be 20: the generator was distilled to draw in 2 calls"),
        ({"guidance": 2.0}, r"sampler\.guidance cannot be 2\.0: .* with guidance 3 built in"),
        ({"solver": "heun"}, r"sampler\.solver cannot be heun"),
        ({"drift": 0.1}, r"sampler\.drift cannot be 0\.1"),
    ],
)
def test_other_settings_are_refused(few: GeneratorBundle, setting: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolved(few, SamplerConfig.model_validate(setting))


def test_what_needs_the_whole_path_is_refused(few: GeneratorBundle, folder: Path, cohort: Cohort) -> None:
    said = "cannot be done with a generator that was distilled to 2 calls"
    rows = cohort.rows("val")[:2]
    change = [Intervention.parse(["bright=absent"], few.facts.conditions)] * 2
    with pytest.raises(InputError, match=f"a counterfactual {said}"):
        counterfactual_images(few, cohort, rows, change, CounterfactualConfig(steps=2))
    with pytest.raises(InputError, match=f"an attack on the weights {said}"):
        membership_scores(few, cohort, rows)
    with pytest.raises(InputError, match=f"fine-tuning {said}"):
        open_base(str(folder))
    hooks = hooks_of(few)
    assert hooks.attack is None
    assert hooks.no_attack == "a generator that was distilled to 2 calls has no losses to compare"


def test_its_edits_change_images_a_little(few: GeneratorBundle, cohort: Cohort, preprocess: Preprocess) -> None:
    from medphantom.cohorts.preprocess import network_images

    images = network_images(cohort, cohort.rows("train")[:8], preprocess)
    changed = edited(few, images)
    assert 0.005 < np.abs(changed - images).mean() < 0.3
    assert all(np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.7 for one, other in zip(changed, images, strict=True))


@pytest.mark.slow
def test_an_interrupted_distillation_goes_on_to_the_same_bundle(
    few: GeneratorBundle, cohort: Cohort, preprocess: Preprocess, work: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(work, tmp_path / "work"))
    (fit,) = place.glob("distillation-*")
    kept = sorted(fit.glob("checkpoints/step-*"))
    shutil.rmtree(kept[-1])
    again = train_generator(cohort, preprocess, few_config(), tmp_path / "again", work=place)
    assert again.digest == few.digest


def test_windows_follow_the_grid_of_the_solver_for_every_shift() -> None:
    for shift in (1.0, 3.0):
        levels = window_levels(Objective(shift=shift), 5)
        assert (levels[0], levels[-1], len(levels)) == (1.0, 0.0, 6)
        assert all(high > low for high, low in pairwise(levels))
    widths = FewCallLearner(torch.nn.Linear(1, 1), objective=Objective(), calls=4).widths
    assert torch.allclose(widths, torch.full((4,), 0.25))


@pytest.mark.parametrize("calls", range(1, 17))
def test_no_number_of_calls_makes_the_edits_of_the_privacy_gate_lighter(calls: int) -> None:
    for shift in (1.0, 3.0):
        time, windows = whole_windows(Objective(shift=shift), calls, STRENGTH)
        assert STRENGTH <= time < STRENGTH + 1 / calls
        assert time == pytest.approx(windows / calls, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["generator.privacy={epsilon: 1}", "generator.init_from=base:radiograph"], "prompts of training patients"),
        (["generator.tuning.method=lora", "generator.init_from=base:radiograph"], "trains all weights"),
        (["sampler.steps=20"], "sampler.steps cannot be 20"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, settings: list[str], message: str, one_line: Callable[..., str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "cohort: {simulate: {patients: 3}}\npreprocess: {size: [64, 64]}\ngenerator: {distillation: {calls: 4}}\n"
    )
    given = [word for setting in settings for word in ("--set", setting)]
    assert message in one_line("run", tmp_path / "recipe.yaml", "--out", tmp_path / "run", "--no-prefect", *given)
    assert not (tmp_path / "run").exists()
