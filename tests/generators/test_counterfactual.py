"""Counterfactuals of discs: what is bright becomes dark, and its place stays."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medphantom.cohorts.pairs import ROLES, pair_id, pair_rows
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.conditioner import row_prompts
from medphantom.conditioning.prompt import Intervention, Prompt
from medphantom.core.errors import InputError, PromptError
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.flows.operations.assess import assess
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import CounterfactualConfig
from medphantom.generators.counterfactual import Counterfactuals, change_region, counterfactual_images
from medphantom.generators.counterfactual_cohort import changed_rows, publish_counterfactuals
from medphantom.generators.generate import reconstruct
from medphantom.generators.train import train_generator
from medphantom.quality.config import AssessConfig
from tests.generators.tiny import SIDE, tiny_config

CONFIG = CounterfactualConfig(steps=12, strength=1.0, guidance=1.5, device="cpu")


def made(
    bundle: GeneratorBundle, cohort: Cohort, rows: list[int], *, progress: Progress | None = None, **changes: object
) -> Counterfactuals:
    config = CounterfactualConfig.model_validate({**CONFIG.model_dump(), **changes})
    bright = cohort.labels(rows)[:, 0] == 1
    actions = [Intervention(labels={"dark" if shown else "bright": True}) for shown in bright]
    return counterfactual_images(bundle, cohort, rows, actions, config, progress=progress)


def contrast(images: Array) -> Array:
    """Middle minus border."""
    flat = images[:, 0]
    border = np.concatenate([flat[:, 0], flat[:, -1], flat[:, :, 0], flat[:, :, -1]], axis=1)
    return flat[:, 6:10, 6:10].mean((1, 2)) - border.mean(1)


@pytest.fixture(scope="module")
def rows(cohort: Cohort) -> list[int]:
    return cohort.rows("test")[:8]


@pytest.mark.parametrize("method", ["inversion", "sdedit", "latent_drifting"])
def test_the_action_shows(bundle: GeneratorBundle, cohort: Cohort, rows: list[int], method: str) -> None:
    told: list[tuple[int, int]] = []
    found = made(
        bundle,
        cohort,
        rows,
        method=method,
        drift=0.01 if method == "latent_drifting" else 0.0,
        progress=lambda done, total, what="": told.append((done, total)),
    )
    total = told[-1][1]
    assert told == [(done, total) for done in range(1, total + 1)]
    bright = cohort.labels(rows)[:, 0] == 1
    assert ((contrast(found.counterfactual) > 0) == ~bright).mean() >= 0.75


def test_a_null_action_returns_what_the_autoencoder_returns(
    bundle: GeneratorBundle, cohort: Cohort, rows: list[int]
) -> None:
    still = counterfactual_images(
        bundle, cohort, rows[:4], [Intervention()] * 4, CONFIG.model_copy(update={"iterations": 15})
    )
    rebuilt = reconstruct(bundle, still.source)
    assert np.abs(still.factual - still.counterfactual).max() < 1e-3
    assert np.sqrt(np.mean((still.factual - rebuilt) ** 2)) < 0.02
    assert np.sqrt(np.mean((still.factual - still.source) ** 2)) > 1e-3  # and not the input itself


@pytest.mark.slow
def test_more_iterations_bring_the_image_back_more_closely(
    bundle: GeneratorBundle, cohort: Cohort, rows: list[int]
) -> None:
    errors = []
    for iterations in (1, 3, 9):
        found = made(bundle, cohort, rows, iterations=iterations)
        rebuilt = reconstruct(bundle, found.source)
        errors.append(float(np.sqrt(np.mean((found.factual - rebuilt) ** 2))))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 2


def test_an_image_is_the_same_whatever_its_neighbours(bundle: GeneratorBundle, cohort: Cohort, rows: list[int]) -> None:
    together, alone = made(bundle, cohort, rows[:3]), made(bundle, cohort, rows[:1])
    assert np.array_equal(together.counterfactual[0], alone.counterfactual[0])


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, GeneratorBundle]:
    """Two labels: a bright disc in the left half, and one in the right half."""
    folder, rng = tmp_path_factory.mktemp("halves"), np.random.default_rng(0)
    with CohortWriter(folder / "cohort", CohortSchema(labels=("left", "right"))) as writer:
        for i in range(128):
            shown = {name: bool(rng.integers(2)) for name in ("left", "right")}
            pixels = rng.normal(60, 4, (SIDE, SIDE))
            rows, columns = np.mgrid[:SIDE, :SIDE]
            for name, centre in (("left", 4), ("right", 12)):
                if shown[name]:
                    y, x = rng.uniform(4, 12), centre + rng.uniform(-1, 1)
                    pixels[(rows - y) ** 2 + (columns - x) ** 2 < 9] = 220
            image = np.clip(pixels, 0, 255).astype(np.uint8)
            split = ("train", "train", "val", "train", "test", "train", "train", "train")[i % 8]
            writer.add(ImageRecord(image_id=f"{i:03d}", patient=str(i), pixels=image, split=split, labels=shown))
    cohort = Cohort.open(folder / "cohort")
    preprocess = Preprocess.for_cohort(cohort, (SIDE, SIDE))
    train_generator(cohort, preprocess, tiny_config(), folder / "bundle", work=folder / "work")
    return cohort, GeneratorBundle.load(folder / "bundle")


@pytest.mark.slow
def test_far_from_where_the_prompts_differ_the_image_takes_its_own_path(
    halves: tuple[Cohort, GeneratorBundle],
) -> None:
    cohort, bundle = halves
    rows = [row for row in cohort.rows("test") if cohort.labels([row])[0][0] == 1]
    actions = [Intervention(labels={"left": False})] * len(rows)
    change = {}
    for locality in (0.0, 0.3):
        config = CONFIG.model_copy(update={"locality": locality, "guidance": 3.0})
        found = counterfactual_images(bundle, cohort, rows, actions, config, back=False)
        change[locality] = np.abs(found.counterfactual - found.factual)[:, 0]
    left, right = change[0.3][..., :6].mean(), change[0.3][..., 10:].mean()
    assert left > 0.1
    assert right < 0.3 * left
    assert right < 0.5 * change[0.0][..., 10:].mean()


def test_the_region_is_where_the_differences_are_large_whatever_their_size() -> None:
    differences = [torch.zeros(2, 3, 16, 16) for _ in range(4)]
    for step in differences[:2]:
        step[0, :, 4:8, 4:8] = -1.0
        step[1, 0, 10:12, 2:12] = 100.0
    region = change_region(differences, 0.2)
    assert region.shape == (2, 1, 16, 16)
    assert region[0, 0, 4:8, 4:8].min() == region[1, 0, 10:12, 2:12].min() == 1
    assert (region.sum(dim=(1, 2, 3)) == torch.tensor([16, 20])).all()  # and nowhere else
    assert change_region(differences, 0.0).min() == 1
    differences[0][0, :, 0, 0] = 0.6  # in half of the steps: .3 of the largest mean, between τ and 2τ
    assert change_region(differences, 0.2)[0, 0, 0, 0] == pytest.approx(0.5)
    assert change_region([torch.zeros(1, 2, 4, 4, 4)], 0.2).max() == 0  # no difference, no region; volumes too


def test_less_strength_changes_less(bundle: GeneratorBundle, cohort: Cohort, rows: list[int]) -> None:
    changes = [
        float(np.abs(found.counterfactual - found.factual).mean())
        for found in (made(bundle, cohort, rows[:4], strength=strength) for strength in (0.2, 0.6, 1.0))
    ]
    assert changes == sorted(changes)


def test_what_a_cohort_says_becomes_the_factual_prompt(bundle: GeneratorBundle, cohort: Cohort) -> None:
    row = cohort.rows("test")[0]
    (prompt,) = row_prompts(cohort, [row], bundle.facts.conditions)
    shown = cohort.labels([row])[0]
    assert prompt.labels == {"bright": bool(shown[0]), "dark": bool(shown[1])}
    assert prompt.attributes["sex"] == cohort.attribute("sex", [row])[0]
    after = Intervention(labels={"dark": True}, attributes={"age": 50.0}).applied(prompt, bundle.facts.conditions)
    assert after == Prompt(
        labels={"bright": False, "dark": True}, attributes={"age": 50.0, "sex": prompt.attributes["sex"]}
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "effusion=absent",
            "'effusion' is a factor that this generator was not trained on; known: age, bright, dark, sex",
        ),
        ("bright", "expected NAME=VALUE"),
        ("bright=maybe", "bright must be present or absent"),
        ("age=old", "age must be a number"),
        ("age=150", "age must be within"),
        ("age=10:50", "age must be within"),
        ("age=50:30", "age must be an ascending range"),
        ("age=30:", "age must be a number"),
        ("sex=F:M", "sex = 'F:M' is unknown"),
        ("sex=D", "sex = 'D' is unknown"),
    ],
)
def test_bad_interventions_are_one_line(bundle: GeneratorBundle, setting: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Intervention.parse([setting], bundle.facts.conditions)


@pytest.mark.parametrize("settings", [["bright=absent", "bright = present"], ["age=30", "age=20:40"], ["sex=F"] * 2])
def test_a_name_is_given_once(bundle: GeneratorBundle, settings: list[str]) -> None:
    with pytest.raises(PromptError, match=r"(bright|age|sex) is given twice; give each name once"):
        Intervention.parse(settings, bundle.facts.conditions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"drift": 0.1}, "drift has an effect with method latent_drifting only, and method is inversion"),
        ({"method": "sdedit", "drift": -0.1}, "drift has an effect with method latent_drifting only, and method is sd"),
        ({"method": "sdedit", "locality": 0.0}, "locality has an effect with methods inversion and latent_drifting"),
        ({"method": "sdedit", "iterations": 9}, "iterations has an effect with methods inversion and latent_drifting"),
    ],
)
def test_a_field_without_effect_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CounterfactualConfig(**fields)


@pytest.mark.parametrize("fields", [{}, {"method": "sdedit"}, {"method": "latent_drifting", "drift": 0.1}])
def test_a_stored_configuration_names_its_defaults_too(fields: dict[str, Any]) -> None:
    config = CounterfactualConfig(**fields)
    assert CounterfactualConfig.model_validate(config.model_dump(mode="json")) == config


def test_settings_become_an_intervention(bundle: GeneratorBundle) -> None:
    found = Intervention.parse(["bright=present", "age = 30", "sex=F"], bundle.facts.conditions)
    assert found == Intervention(labels={"bright": True}, attributes={"age": 30.0, "sex": "F"})
    assert found
    assert not Intervention()


def test_pairs_are_published_with_the_requested_changes(
    bundle: GeneratorBundle, cohort: Cohort, tmp_path: Path
) -> None:
    action = Intervention(labels={"dark": True})
    rows = changed_rows(bundle, cohort, cohort.rows("test"), action)
    assert rows == [row for row in cohort.rows("test") if cohort.labels([row])[0][0] == 1]
    made = publish_counterfactuals(bundle, cohort, rows[:3], action, CONFIG, out=tmp_path / "pairs")
    assert made.schema.kind == "counterfactual"
    assert made.schema.generation["source"] == cohort.digest
    made.verify()
    records = {record.image_id: record for record in made.records()}
    found = pair_rows(made)
    assert found.source_ids == tuple(cohort.manifest["image_id"][rows[:3]])
    assert {role: len(numbers) for role, numbers in found.rows.items()} == dict.fromkeys(ROLES, 3)
    for row in rows[:3]:
        source = next(cohort.records([row]))
        before, after, difference, back, rebuilt = (records[pair_id(source.image_id, role)] for role in ROLES)
        assert {r.patient for r in (before, after, difference, back, rebuilt)} == {source.patient}
        assert before.labels == back.labels == rebuilt.labels
        assert before.split == source.split
        assert before.labels == source.labels
        assert after.labels == {"bright": False, "dark": True}
        assert after.attributes["age"] == before.attributes["age"]
        assert np.array_equal(difference.pixels, after.pixels.astype(np.int16) - before.pixels)
    with pytest.raises(InputError, match="exists already"):
        publish_counterfactuals(bundle, cohort, rows[:1], action, CONFIG, out=tmp_path / "pairs")
    dark = [row for row in cohort.rows("test") if row not in rows]
    with pytest.raises(InputError, match="changes nothing"):
        changed_rows(bundle, cohort, dark, action)


def test_a_range_gives_every_image_a_value_of_its_own_that_its_seed_decides(
    bundle: GeneratorBundle, cohort: Cohort, tmp_path: Path
) -> None:
    action = Intervention.parse(["age=30:60"], bundle.facts.conditions)
    assert action.ranges == {"age": (30.0, 60.0)}
    rows = changed_rows(bundle, cohort, cohort.rows("test"), action)
    assert rows == cohort.rows("test")
    drawn = [action.drawn(seed, str(number)).attributes["age"] for seed in range(2) for number in range(500)]
    ages = np.array(drawn, dtype=float)
    assert ((ages >= 30) & (ages <= 60)).all()
    assert ages.mean() == pytest.approx(45, abs=1)
    assert ages.std() == pytest.approx(30 / 12**0.5, rel=0.05)
    assert not np.array_equal(ages[:500], ages[500:])
    quick = CONFIG.model_copy(update={"steps": 2, "iterations": 1, "seed": 1})
    made = [
        publish_counterfactuals(bundle, cohort, rows[:total], action, quick, out=tmp_path / str(total))
        for total in (2, 3)
    ]
    requested = [pairs.attribute("age", pair_rows(pairs).rows["counterfactual"]) for pairs in made]
    assert requested[0] == requested[1][:2]  # whatever its neighbours
    assert len(set(requested[1])) == 3
    with pytest.raises(PromptError, match="draw from it first"):
        action.applied(Prompt(), bundle.facts.conditions)


def test_the_way_back_leads_to_the_source_and_is_no_copy_of_it(
    bundle: GeneratorBundle, cohort: Cohort, rows: list[int]
) -> None:
    rows = rows[:4]
    found = made(bundle, cohort, rows, guidance=1.0, iterations=9)
    assert np.abs(found.reconstruction - reconstruct(bundle, found.source)).max() < 1e-5
    far = np.abs(found.counterfactual - found.source).mean()
    assert found.reversed is not None
    back = np.abs(found.reversed - found.source).mean()
    assert np.abs(found.reversed - found.factual).max() > 1e-4
    assert back < far / 2
    bright = cohort.labels(rows)[:, 0] == 1
    actions = [Intervention(labels={"dark" if shown else "bright": True}) for shown in bright]
    config = CONFIG.model_copy(update={"guidance": 1.0, "iterations": 9})
    one_way = counterfactual_images(bundle, cohort, rows, actions, config, back=False)
    assert one_way.reversed is None
    assert np.array_equal(one_way.counterfactual, found.counterfactual)


def test_every_image_needs_its_intervention(bundle: GeneratorBundle, cohort: Cohort, rows: list[int]) -> None:
    with pytest.raises(InputError, match="one intervention"):
        counterfactual_images(bundle, cohort, rows, [Intervention()], CONFIG)


def test_images_of_another_scale_than_the_generator_learned_from_are_one_line(
    bundle: GeneratorBundle, cohort: Cohort, tmp_path: Path
) -> None:
    """The same discs in 16 bits would be white fields to a generator of 8 bits."""
    with CohortWriter(tmp_path / "sixteen", cohort.schema) as writer:
        for record in cohort.records():
            writer.add(dataclasses.replace(record, pixels=record.pixels.astype(np.uint16) * 257))
    sixteen = Cohort.open(tmp_path / "sixteen")
    problem = r"span 0…65535 \(uint16\), the generator was trained on values of 0…255; "
    action = Intervention(labels={"dark": True})
    rows = changed_rows(bundle, sixteen, sixteen.rows("test"), action)
    with pytest.raises(InputError, match=rf"images of this cohort {problem}ingest images"):
        publish_counterfactuals(bundle, sixteen, rows[:2], action, CONFIG, out=tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
    with pytest.raises(InputError, match="the generator did not learn from the training images of"):
        assess(sixteen, cohort, tmp_path / "report", bundle=bundle, assess=AssessConfig.quick())
