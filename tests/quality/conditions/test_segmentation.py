"""Mask agreement: a real segmenter on discs whose masks are known, and planted faults that it must see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import UnsupportedClaim
from medphantom.quality.assessment.assess import assess
from medphantom.quality.conditions.masks import dice_table, mask_agreement
from medphantom.quality.config import AssessConfig, ClassifierConfig, SegmenterConfig
from medphantom.quality.data.masked import Masked
from medphantom.quality.networks.segmentation import fit_segmenter, segment
from tests.quality.scenes import BARE_SEARCH

CONFIG = SegmenterConfig(steps=150, device="cpu")
BRIEF = SegmenterConfig(steps=80, device="cpu")


def discs(total: int, size: tuple[int, ...], seed: int) -> Masked:
    """Discs of value 1, half of them with a bright core of value 2, on noise."""
    rng = np.random.default_rng(seed)
    grids = np.meshgrid(*(np.arange(side) for side in size), indexing="ij")
    images, masks = [], []
    for number in range(total):
        centre = rng.uniform(0.35, 0.65, len(size)) * size
        distance = np.sqrt(sum((grid - c) ** 2 for grid, c in zip(grids, centre, strict=True)))
        mask = (distance < 0.3 * min(size)).astype(np.uint8)
        if number % 2:
            mask[distance < 0.15 * min(size)] = 2
        images.append(np.array([-0.7, 0.1, 0.8])[mask] + rng.normal(0, 0.1, size))
        masks.append(mask)
    return Masked(np.stack(images)[:, None].astype(np.float32), np.stack(masks), [f"p{i // 2}" for i in range(total)])


def test_dice_of_known_masks() -> None:
    first = np.zeros((3, 4, 4), np.uint8)
    second = first.copy()
    first[0, :2], second[0, 1:3] = 1, 1
    first[1], second[1] = 2, 2
    table = dice_table(first, second, 3)
    assert table[0, 0] == 0.5
    assert table[1, 1] == 1
    assert np.isnan(table[2]).all()
    assert np.isnan([table[0, 1], table[1, 0]]).all()


@pytest.mark.parametrize("size", [(24, 30), (12, 14, 10)])
def test_a_segmenter_learns_and_does_so_again_to_the_bit(size: tuple[int, ...], tmp_path: Path) -> None:
    train, test = discs(40, size, 0), discs(20, size, 1)
    network = fit_segmenter(train, 3, BRIEF, seed=0, work=tmp_path / "a")
    found = segment(network, test.images_NC, BRIEF)
    assert found.shape == test.masks_N.shape
    assert np.nanmean(dice_table(found, test.masks_N, 3)[:, 0]) > 0.85
    again = fit_segmenter(train, 3, BRIEF, seed=0, work=tmp_path / "b")
    assert np.array_equal(segment(again, test.images_NC, BRIEF), found)


def test_agreement_falls_when_masks_belong_to_other_images(tmp_path: Path) -> None:
    train, test, made = discs(40, (24, 24), 0), discs(20, (24, 24), 1), discs(30, (24, 24), 2)
    network = fit_segmenter(train, 3, CONFIG, seed=0, work=tmp_path)
    floor = dice_table(segment(network, test.images_NC, CONFIG), test.masks_N, 3)
    found = segment(network, made.images_NC, CONFIG)

    def overall(masks: np.ndarray) -> float:
        scores = mask_agreement(
            ["disc", "core"],
            requested=dice_table(found, masks, 3),
            wanted=floor,
            patients=test.patients,
            bootstrap=100,
            rng=np.random.default_rng(0),
        )
        assert [score.label for score in scores] == [None, "disc", "core"]
        assert scores[0].value is not None
        assert scores[0].floor is not None
        assert scores[0].interval is not None
        assert scores[0].interval[0] < scores[0].value < scores[0].interval[1]
        assert scores[0].floor > 0.8
        return scores[0].value

    assert overall(made.masks_N) > 0.8
    assert overall(np.roll(made.masks_N, 2, axis=0)) < 0.75


def test_what_no_image_holds_is_refused() -> None:
    table = np.full((8, 2), np.nan)
    table[:, 0] = 0.9
    scores = mask_agreement(
        ["disc", "core"],
        requested=table,
        wanted=table,
        patients=[f"p{i}" for i in range(8)],
        bootstrap=100,
        rng=np.random.default_rng(0),
    )
    assert scores[2].value is None
    assert "fewer than 5 images" in str(scores[2].refused)


def test_too_few_masks_are_no_segmenter(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedClaim, match="≥ 10 training images with masks, got 4"):
        fit_segmenter(discs(4, (16, 16), 0), 3, CONFIG, seed=0, work=tmp_path)


def cohort_of(masked: Masked, path: Path, splits: list[str], *, synthetic: bool = False) -> Cohort:
    schema = CohortSchema(
        kind="synthetic" if synthetic else "real", mask_values={0: "background", 4: "disc", 9: "core"}
    )
    values = np.array([0, 4, 9], dtype=np.uint8)
    with CohortWriter(path, schema) as writer:
        for number, image in enumerate(masked.images_NC):
            writer.add(
                ImageRecord(
                    f"i{number}",
                    f"p{number}",
                    np.clip(np.rint((image[0] + 1) * 127.5), 0, 255).astype(np.uint8),
                    splits[number % len(splits)],
                    mask=values[masked.masks_N[number]],
                    provenance=Provenance("0" * 64, "{}", number) if synthetic else None,
                )
            )
    return Cohort.open(path)


def test_the_report_tells_masks_that_are_followed_from_masks_that_are_not(tmp_path: Path) -> None:
    real = cohort_of(discs(100, (24, 24), 0), tmp_path / "real", ["train", "val", "train", "holdout", "test"])
    good = discs(20, (24, 24), 5)
    shuffled = Masked(good.images_NC, np.roll(good.masks_N, 2, axis=0), good.patients)
    config = AssessConfig.quick(
        networks=("filters",), classifier=ClassifierConfig(steps=10), segmenter=CONFIG, copies=BARE_SEARCH
    )
    dice = {}
    for name, masked in (("good", good), ("shuffled", shuffled)):
        made = cohort_of(masked, tmp_path / name, ["synthetic"], synthetic=True)
        report = assess(real, made, Preprocess(size=(24, 24)), config, work=tmp_path / "work")
        found = {e.label: e for e in report.estimates if e.name == "mask_dice"}
        assert set(found) == {None, "disc", "core"}
        dice[name] = found[None].value
    assert dice["good"] > 0.8
    assert dice["shuffled"] < dice["good"] - 0.1
