"""Fine-tuning under differential privacy, end to end: what a bundle promises and keeps silent, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_counts
from medphantom.core.errors import BundleError, InputError, MedphantomError
from medphantom.flows.operations.verify import verify
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.facts import BundleFacts, read_facts
from medphantom.generators.generate import generate
from medphantom.generators.privacy import observed_schema
from medphantom.generators.privacy_config import Vocabulary
from medphantom.generators.train import train_generator
from medphantom.learning.fit_config import FitConfig
from medphantom.learning.guarantee import Mechanism
from tests.generators.stable_tiny import make_pipeline
from tests.generators.tiny import SAMPLER, tiny_config

WORDS = {"labels": ["bright", "dark"], "attributes": {"age": [0, 100], "sex": ["F", "M"]}}


def private(base: Path, **changes: Any) -> Any:
    fit = FitConfig(steps=6, batch_size=10, learning_rate=1e-3, validate_every=3, checkpoint_every=3, tracker="none")
    privacy = {"epsilon": 8.0, "delta": 1e-3, "draws": 2, **changes.pop("privacy", {})}
    return tiny_config(init_from=str(base), denoiser_fit=fit, privacy=privacy, **changes)


def trained(cohort: Cohort, preprocess: Preprocess, config: Any, folder: Path) -> GeneratorBundle:
    return train_generator(cohort, preprocess, config, folder / "bundle", work=folder / "work")


@pytest.fixture(scope="module")
def fitted(cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``bundle`` and ``work`` of a private fit whose vocabulary was not declared. Look, do not touch."""
    folder = tmp_path_factory.mktemp("private")
    trained(cohort, preprocess, private(other_base), folder)
    return folder


@pytest.mark.parametrize("method", ["full", "lora", "attention"])
def test_the_bundle_states_its_guarantee_and_what_is_outside(
    cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path: Path, method: str
) -> None:
    config = private(other_base, tuning={"method": method, "rank": 2}, privacy={"vocabulary": WORDS})
    bundle = trained(cohort, preprocess, config, tmp_path)
    promised, guarantee = bundle.facts.privacy, bundle.facts.privacy.guarantee
    assert guarantee is not None
    assert 0.97 * 8 <= guarantee.epsilon <= 8 < guarantee.epsilon_rdp
    assert (guarantee.steps, guarantee.draws, guarantee.unit) == (6, 2, "patient")
    assert guarantee.sample_rate == pytest.approx(10 / bundle.facts.training_patients)
    assert 0.6 < guarantee.attack_auroc < 0.93
    assert 0.05 < guarantee.attack_tpr < 0.4
    assert promised.formal.endswith("-differential privacy per patient")
    assert not any(entry.startswith("conditions:") for entry in promised.outside)
    assert any("scores" in entry for entry in promised.outside)
    assert bundle.facts.conditions.attributes[0].high == 100
    # losses of private images are in the work folder only
    assert bundle.training["denoiser"] == {"best_step": 6, "best_loss": None, "rows": []}
    assert "round_trip" not in bundle.training
    again = GeneratorBundle.load(tmp_path / "bundle")
    assert again.facts.privacy == promised
    made = generate(again, plan_counts(again.facts.conditions, {"bright": 2}, seed=0), tmp_path / "made",
                    work=tmp_path / "draw", sampler=SAMPLER)  # fmt: skip
    assert len(made) == 2


def test_without_noise_there_is_no_guarantee(
    cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path: Path
) -> None:
    bundle = trained(cohort, preprocess, private(other_base, privacy={"epsilon": None}), tmp_path)
    assert bundle.facts.privacy.formal == "no formal guarantee"
    assert bundle.facts.privacy.guarantee is None
    assert any(entry.startswith("conditions:") for entry in bundle.facts.privacy.outside)
    json.dumps(bundle.facts.model_dump(mode="json"), allow_nan=False)


def test_another_epsilon_is_another_fit(
    cohort: Cohort, preprocess: Preprocess, other_base: Path, fitted: Path, tmp_path: Path
) -> None:
    """With the same work folder: nothing of one budget's fit is taken for another's."""
    work = Path(shutil.copytree(fitted / "work", tmp_path / "work"))
    config = private(other_base, privacy={"epsilon": 2.0})
    bundles = [
        GeneratorBundle.load(fitted / "bundle"),
        train_generator(cohort, preprocess, config, tmp_path / "other", work=work),
    ]
    for bundle, epsilon in zip(bundles, (8.0, 2.0), strict=True):
        guarantee = bundle.facts.privacy.guarantee
        assert guarantee is not None
        assert guarantee.epsilon == pytest.approx(epsilon, rel=0.03)
    assert len({bundle.digest for bundle in bundles}) == 2
    assert len(list(work.glob("denoiser-*/privacy.key"))) == 2


def test_stable_diffusion_is_fitted_privately(tmp_path: Path, cohort: Cohort, preprocess: Preprocess) -> None:
    base = make_pipeline(tmp_path / "base")
    conditioning = {"labels": False, "text": {"written_by": "templates", "paraphrases": 2}}
    config = private(base, tuning={"method": "lora", "rank": 2}, conditioning=conditioning)
    bundle = trained(cohort, preprocess, config, tmp_path)
    assert bundle.facts.privacy.guarantee is not None


def test_no_file_of_the_bundle_tells_a_patient_apart(fitted: Path) -> None:
    """Neither the key of the noise nor a loss, nor what was drawn, leaves the work folder."""
    key = next((fitted / "work").glob("denoiser-*/privacy.key")).read_text()
    for path in (fitted / "bundle").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert key.encode() not in content
            assert b"val_loss" not in content
            assert b"gradient_norm" not in content


def test_a_guarantee_reads_back_from_the_facts_alone(fitted: Path) -> None:
    facts, _ = read_facts(fitted / "bundle")
    assert facts.privacy == GeneratorBundle.load(fitted / "bundle").facts.privacy
    assert facts.privacy.guarantee is not None
    assert math.isfinite(facts.privacy.guarantee.epsilon)


def test_steps_that_differ_between_guarantee_and_lineage_are_refused(fitted: Path, tmp_path: Path) -> None:
    bundle = GeneratorBundle.load(fitted / "bundle")
    given = bundle.facts.model_dump(mode="json")
    for place, name, value in (("lineage", "steps", 5000), ("guarantee", "steps", 1), ("lineage", "sample_rate", 1.0)):
        changed = json.loads(json.dumps(given))
        part = changed["lineage"]["private"][-1] if place == "lineage" else changed["privacy"]["guarantee"]
        part[name] = value
        with pytest.raises(ValidationError, match="the last private steps of lineage must be those of"):
            BundleFacts.model_validate(changed)
    changed = json.loads(json.dumps(given))
    changed["privacy"]["guarantee"]["before"] = [{"noise_multiplier": 9.0, "sample_rate": 0.1, "steps": 1}]
    found = BundleFacts.model_validate(changed).privacy.guarantee
    assert found is not None
    assert len(found.before) == 0


@pytest.mark.parametrize(("sigma", "delta"), [(1e-6, 1e-3), (0.6, 1e-300)])
def test_steps_whose_cost_cannot_be_computed_are_refused(
    fitted: Path, tmp_path: Path, sigma: float, delta: float
) -> None:
    bundle = GeneratorBundle.load(fitted / "bundle")
    privacy, lineage = bundle.facts.privacy, bundle.facts.lineage
    assert privacy.guarantee is not None
    assert lineage is not None
    steps = {"noise_multiplier": sigma, "sample_rate": 0.27, "steps": 6}
    given = privacy.guarantee.model_copy(update={**steps, "delta": delta})
    claimed = privacy.model_copy(update={"guarantee": given, "formal": given.sentence(privacy.conditions)})
    private = (*lineage.private[:-1], Mechanism(**steps))
    facts = bundle.facts.model_copy(
        update={"privacy": claimed, "lineage": lineage.model_copy(update={"private": private})}
    )
    dataclasses.replace(bundle, facts=facts).save(tmp_path / "odd")
    with pytest.raises(MedphantomError, match=r"guarantee nothing|whose cost cannot be computed"):
        verify(tmp_path / "odd")


def test_a_guarantee_is_computed_again_and_one_that_states_less_is_refused(fitted: Path, tmp_path: Path) -> None:
    bundle = GeneratorBundle.load(fitted / "bundle")
    privacy = bundle.facts.privacy
    assert privacy.guarantee is not None
    assert verify(fitted / "bundle")[1].endswith(f"{privacy.formal}, computed again from its private steps")
    for name, value in (("epsilon", 1.0), ("epsilon_rdp", 0.1), ("attack_auroc", 0.5), ("attack_tpr", 0.01)):
        smaller = privacy.guarantee.model_copy(update={name: value})
        claimed = privacy.model_copy(update={"guarantee": smaller, "formal": smaller.sentence(privacy.conditions)})
        forged = dataclasses.replace(bundle, facts=bundle.facts.model_copy(update={"privacy": claimed}))
        forged.save(tmp_path / name)
        assert GeneratorBundle.load(tmp_path / name).facts.privacy == claimed  # whole, and by its own digest
        with pytest.raises(BundleError, match=rf"states a guarantee whose {name} is smaller than what its private"):
            verify(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": None}, "needs generator.init_from"),
        ({"tuning": {"latent_scaling": "cohort"}}, "needs tuning.latent_scaling base"),
        ({"privacy": {"epsilon": 0}}, "greater than 0"),
        ({"privacy": {"unit": "image"}}, "patient"),
        (
            {"privacy": {"vocabulary": {"attributes": {"age": [90, 10]}}}},
            r"age must be ascending, got \[90.0, 10.0\]",
        ),
    ],
)
def test_settings_that_would_break_the_promise_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_config(**{"init_from": "base", "privacy": {}, **changes})


def test_a_declared_attribute_must_be_one_of_the_cohorts(cohort: Cohort) -> None:
    with pytest.raises(InputError, match=r"declares age as categorical, but the cohort has no such attribute; it has"):
        observed_schema(cohort, Vocabulary(attributes={"age": ("old", "young")}))


def test_an_embedded_text_encoder_is_refused(
    cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path: Path
) -> None:
    config = private(other_base, conditioning={"text": {"tokens": 40, "width": 32, "layers": 1}})
    with pytest.raises(
        InputError, match="needs a pretrained text encoder: the embedded one stores words of the cohort"
    ):
        trained(cohort, preprocess, config, tmp_path)


def test_too_few_patients_per_step_are_reported_in_one_line(
    cohort: Cohort, preprocess: Preprocess, other_base: Path, tmp_path: Path
) -> None:
    config = private(other_base)
    many = config.model_copy(update={"denoiser_fit": config.denoiser_fit.model_copy(update={"batch_size": 500})})
    with pytest.raises(InputError, match=r"batch_size = 500, .* exceeds the number of patients, \d+"):
        trained(cohort, preprocess, many, tmp_path)
    assert not (tmp_path / "bundle").exists()
