"""Text and masks: a generator that reads them draws what they say, and stores what is needed to draw it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.plan import SamplingPlan, masks_of, plan_prompts
from medphantom.conditioning.plan_masks import plan_masks
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import BundleError, InputError, PromptError
from medphantom.core.folders import pixel_digest
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.generate import generate, plan_again
from medphantom.generators.train import train_generator
from tests.generators.tiny import REPORTS, SAMPLER, SIDE, tiny_config

FULL = {"text": {"tokens": 40, "width": 32, "layers": 1, "vocabulary": 400}, "mask": {"channels": 4}}


@pytest.fixture(scope="module")
def folder(cohort: Cohort, preprocess: Preprocess, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator that reads labels, texts and masks; it shares the autoencoder of the session's work folder."""
    out = tmp_path_factory.mktemp("conditioned") / "bundle"
    # three kinds of prompt take longer than one
    longer = {**tiny_config().denoiser_fit.model_dump(), "steps": 240, "learning_rate": 2e-3}
    train_generator(cohort, preprocess, tiny_config(conditioning=FULL, denoiser_fit=longer), out, work=work)
    return out


@pytest.fixture
def reader(folder: Path) -> GeneratorBundle:
    return GeneratorBundle.load(folder)


def masks_at(places: list[tuple[float, float]], radius: float = 4.0) -> list[Array]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return [((rows - y) ** 2 + (columns - x) ** 2 < radius**2).astype(np.uint8) for y, x in places]


def drawn(bundle: GeneratorBundle, plan: SamplingPlan, folder: Path) -> Cohort:
    return generate(bundle, plan, folder / "made", work=folder / "work", sampler=SAMPLER)


def test_images_follow_their_masks(reader: GeneratorBundle, tmp_path: Path) -> None:
    """Inside minus outside brightness is high for the requested mask, and lower for another image's mask."""
    masks = masks_at([(5, 5), (5, 10), (10, 5), (10, 10)] * 3)
    digests = {pixel_digest(mask): mask for mask in masks}
    prompts = [Prompt(labels={"bright": True}, mask=pixel_digest(mask)) for mask in masks]
    made = drawn(reader, plan_prompts(prompts, seed=1, masks=digests), tmp_path)
    pixels = np.stack(made.pixels(made.rows())).astype(float)

    def contrast(shift: int) -> float:
        shifted = np.stack(masks[shift:] + masks[:shift]) > 0
        return float(np.mean([image[m].mean() - image[~m].mean() for image, m in zip(pixels, shifted, strict=True)]))

    assert contrast(0) > 25
    assert contrast(0) > 2 * contrast(1)


def test_images_follow_their_texts(reader: GeneratorBundle, tmp_path: Path) -> None:
    prompts = [Prompt(text=REPORTS[bright][i % 2]) for i, bright in enumerate([True, False] * 8)]
    made = drawn(reader, plan_prompts(prompts, seed=2), tmp_path)
    pixels = np.stack(made.pixels(made.rows())).astype(float)
    middle, border = pixels[:, 6:10, 6:10].mean((1, 2)), pixels[:, 0].mean(1)
    agrees = (middle > border) == np.array([True, False] * 8)
    assert agrees.mean() > 0.85


def test_a_row_made_again_alone_is_the_same_with_its_mask_and_text(reader: GeneratorBundle, tmp_path: Path) -> None:
    masks = masks_at([(6, 6), (9, 9)])
    digests = {pixel_digest(mask): mask for mask in masks}
    prompts = [
        Prompt(labels={"bright": True}, mask=pixel_digest(masks[0])),
        Prompt(text=REPORTS[False][0], mask=pixel_digest(masks[1])),
        Prompt(),
    ]
    made = drawn(reader, plan_prompts(prompts, seed=3, masks=digests), tmp_path)
    records = list(made.records())
    assert [record.text for record in records] == [None, REPORTS[False][0], None]
    assert [None if record.mask is None else int(record.mask.sum()) for record in records] == [
        int(masks[0].sum()),
        int(masks[1].sum()),
        None,
    ]
    again = generate(reader, plan_again(made, [1]), tmp_path / "again", work=tmp_path / "w2", sampler=SAMPLER)
    assert np.array_equal(again.pixels([0])[0], made.pixels([1])[0])
    assert again.schema.mask_values == {0: "background", 1: "disc"}


def test_a_plan_and_its_masks_survive_the_disk(reader: GeneratorBundle, cohort: Cohort, tmp_path: Path) -> None:
    schema, preprocess = reader.facts.conditions, reader.facts.preprocess
    plan = plan_masks(cohort, schema, 6, 0, preprocess=preprocess)
    plan.to_jsonl(tmp_path / "plan.jsonl")
    read = SamplingPlan.from_jsonl(tmp_path / "plan.jsonl", schema)
    assert read == plan
    assert read.digest == plan.digest
    assert all(np.array_equal(read.masks[digest], mask) for digest, mask in plan.masks.items())
    assert read.shard(0, 3).masks.keys() < read.masks.keys()
    masks_of(tmp_path / "plan.jsonl").unlink()
    with pytest.raises(InputError, match=r"names mask .* but does not contain it"):
        SamplingPlan.from_jsonl(tmp_path / "plan.jsonl", schema)


def test_planned_masks_are_nobodys(reader: GeneratorBundle, cohort: Cohort) -> None:
    schema, preprocess = reader.facts.conditions, reader.facts.preprocess
    real = {pixel_digest(mask) for mask in cohort.masks(cohort.rows()) if mask is not None}
    deformed = plan_masks(cohort, schema, 40, 0, preprocess=preprocess)
    assert not real & set(deformed.masks)
    assert len(deformed.masks) > 30
    assert all(image.prompt.labels for image in deformed)
    straight = plan_masks(cohort, schema, 8, 0, preprocess=preprocess, split="test", deform=0)
    assert set(straight.masks) <= {pixel_digest(m) for m in cohort.masks(cohort.rows("test")) if m is not None}


def test_masks_that_do_not_fit_are_refused_before_anything_is_drawn(reader: GeneratorBundle, tmp_path: Path) -> None:
    wrong = np.zeros((SIDE, SIDE + 1), np.uint8)
    plan = plan_prompts([Prompt(mask=pixel_digest(wrong))], seed=0, masks={pixel_digest(wrong): wrong})
    with pytest.raises(PromptError, match="a mask has the shape 16x17, but this generator draws 16x16"):
        drawn(reader, plan, tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_mirrored_image_takes_its_mirrored_mask(
    cohort: Cohort, preprocess: Preprocess, work: Path, tmp_path: Path
) -> None:
    shorter = {**tiny_config().denoiser_fit.model_dump(), "steps": 100}
    config = tiny_config(conditioning={"mask": {"channels": 4}}, flip=True, denoiser_fit=shorter)
    bundle = train_generator(cohort, preprocess, config, tmp_path / "bundle", work=work)
    masks = masks_at([(8, 4), (8, 11)])
    prompts = [Prompt(labels={"bright": True}, mask=pixel_digest(masks[i % 2])) for i in range(8)]
    plan = plan_prompts(prompts, seed=1, masks={pixel_digest(mask): mask for mask in masks})
    made = drawn(bundle, plan, tmp_path)
    pixels = np.stack(made.pixels(made.rows())).astype(float)
    sides = pixels[:, :, 8:].mean((1, 2)) - pixels[:, :, :8].mean((1, 2))
    assert sides[::2].mean() < sides[1::2].mean() - 20


def test_the_tokenizer_is_part_of_the_digest_and_cannot_be_altered(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = copy / "conditioning" / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("bright", "brigth"), encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokenizer.json is truncated or was altered"):
        GeneratorBundle.load(copy)


@pytest.mark.slow
def test_things_keep_their_size_in_mm_whatever_the_spacing(tmp_path: Path) -> None:
    """Discs of 4 mm: the finer the requested grid, the more pixels they have."""
    schema, rng = CohortSchema(labels=("bright",)), np.random.default_rng(0)
    with CohortWriter(tmp_path / "cohort", schema) as writer:
        for i in range(96):
            spacing = float(rng.uniform(0.6, 1.6))
            rows, columns = np.mgrid[:SIDE, :SIDE] * spacing
            middle = SIDE / 2 * spacing + rng.normal(0, 0.5, 2)
            inside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < 4.0**2
            pixels = np.clip(np.where(inside, 220, 40) + rng.normal(0, 4, inside.shape), 0, 255).astype(np.uint8)
            record = ImageRecord(
                image_id=str(i),
                patient=str(i),
                pixels=pixels,
                split="val" if i % 4 == 0 else "train",
                labels={"bright": True},
                spacing_mm=(spacing, spacing),
            )
            writer.add(record)
    cohort = Cohort.open(tmp_path / "cohort")
    config = tiny_config(conditioning={"labels": True, "spacing": True})
    train_generator(cohort, Preprocess(size=(SIDE, SIDE)), config, tmp_path / "bundle", work=tmp_path / "work")
    bundle = GeneratorBundle.load(tmp_path / "bundle")
    requested = [0.7, 1.5] * 6
    plan = plan_prompts([Prompt(labels={"bright": True}, attributes={"spacing": mm}) for mm in requested], seed=1)
    made = drawn(bundle, plan, tmp_path)
    areas = np.array([(image > 130).sum() for image in made.pixels(made.rows())])
    fine, coarse = areas[::2].mean(), areas[1::2].mean()
    assert fine > 2 * coarse  # by the geometry of discs 4.6 times
    assert [spacing.to_list() for spacing in made.manifest.sort("image_id")["spacing_mm"]] == [
        [mm, mm] for mm in requested
    ]
