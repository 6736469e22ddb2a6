"""The spacing of the network's grid as an attribute that a generator can be conditioned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.conditioner import row_prompts
from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.observed import with_spacing
from medphantom.conditioning.plan import plan_match
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.core.errors import InputError, PromptError

Shape = tuple[int, ...]


def spaced(
    path: Path, images: list[tuple[Shape, tuple[float, ...] | None]], attributes: tuple[AttributeSpec, ...] = ()
) -> Cohort:
    dims = len(images[0][0])
    with CohortWriter(path, CohortSchema(spatial_dims=dims, attributes=attributes)) as writer:
        for i, (shape, spacing) in enumerate(images):
            pixels = np.random.default_rng(i).integers(0, 255, shape, dtype=np.uint8)
            writer.add(ImageRecord(image_id=str(i), patient=str(i), pixels=pixels, split="train", spacing_mm=spacing))
    return Cohort.open(path)


def test_it_is_that_of_the_grid_not_that_of_the_file(tmp_path: Path) -> None:
    cohort = spaced(tmp_path / "c", [((32, 32), (0.5, 0.5)), ((32, 16), (1.0, 1.0)), ((16, 16), None)])
    schema = with_spacing(ConditionSchema(), cohort, [0, 1, 2], Preprocess(size=(16, 16)))
    (spec,) = schema.attributes
    assert (spec.name, spec.unit, spec.low, spec.high) == ("spacing", "mm", 1.0, 2.0)
    assert [prompt.attributes for prompt in row_prompts(cohort, [0, 1, 2], schema)] == [
        {"spacing": 1.0},
        {"spacing": 2.0},
        {},
    ]
    reported = Conditions.from_cohort(cohort, [0, 1, 2], schema).continuous_BC[:, 0]
    assert reported[:2].tolist() == [-1.0, 1.0]
    assert bool(reported[2].isnan())
    assert schema.check(Prompt(attributes={"spacing": 1.5}))
    with pytest.raises(PromptError, match=r"spacing must be within 1…2 mm, got 0\.7"):
        schema.check(Prompt(attributes={"spacing": 0.7}))


def test_volumes_have_two(tmp_path: Path) -> None:
    cohort = spaced(tmp_path / "c", [((8, 16, 16), (3.0, 0.5, 0.5)), ((8, 16, 16), (5.0, 0.8, 0.2))])
    schema = with_spacing(ConditionSchema(), cohort, [0, 1], Preprocess(size=(8, 8, 8), fit="stretch"))
    first, second = (prompt.attributes for prompt in row_prompts(cohort, [0, 1], schema))
    assert first == pytest.approx({"spacing": 1.0, "slice_spacing": 3.0})
    assert second == pytest.approx({"spacing": 0.8, "slice_spacing": 5.0})  # 2 · √(.8 · .2)


def test_plans_match_it(tmp_path: Path) -> None:
    cohort = spaced(tmp_path / "c", [((16, 16), (0.5 + i / 40, 0.5 + i / 40)) for i in range(40)])
    schema = with_spacing(ConditionSchema(), cohort, range(40), Preprocess(size=(16, 16)))
    requested = [float(image.prompt.attributes["spacing"]) for image in plan_match(cohort, 200, 0, schema=schema)]
    assert 0.5 <= min(requested) < 0.7
    assert 1.3 < max(requested) <= 1.475
    assert np.mean(requested) == pytest.approx(0.9875, abs=0.06)


def test_refused_in_one_line(tmp_path: Path) -> None:
    grid = Preprocess(size=(16, 16))
    unstated = spaced(tmp_path / "a", [((16, 16), None)] * 2)
    with pytest.raises(InputError, match="no training image declares its spacing"):
        with_spacing(ConditionSchema(), unstated, [0, 1], grid)
    name = AttributeSpec(name="spacing", kind="continuous")
    clash = spaced(tmp_path / "b", [((16, 16), (1.0, 1.0))] * 2, (name,))
    with pytest.raises(InputError, match="the cohort has an attribute 'spacing'"):
        with_spacing(ConditionSchema(attributes=(name,)), clash, [0, 1], grid)
