from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.plan import (
    PlannedImage,
    SamplingPlan,
    plan_balance,
    plan_counts,
    plan_match,
    plan_prompts,
)
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.conditioning.training_rows import Smoothed
from medphantom.core.errors import InputError, PromptError

Key = tuple[object, ...]


def label_set(labels: dict[str, bool]) -> Key:
    return tuple(sorted(labels.items()))


def real_sets(cohort: Cohort, split: str) -> list[Key]:
    names = cohort.schema.labels
    states = cohort.labels(cohort.rows(split))
    return [label_set({n: bool(s) for n, s in zip(names, row, strict=True) if s >= 0}) for row in states]


def p_value(found: list[Key], expected: list[Key]) -> float:
    """Pearson's chi-square of drawn against expected shares; cells of the plan that cannot occur fail at once."""
    shares, counts = Counter(expected), Counter(found)
    assert set(counts) <= set(shares)
    frequencies = np.array([shares[key] for key in shares]) / len(expected) * len(found)
    return float(stats.chisquare([counts[key] for key in shares], frequencies).pvalue)


# ---- plans ----


def test_ids_and_seeds_differ_and_derive_from_run_seed_place_and_fresh(schema: ConditionSchema) -> None:
    plan = plan_counts(schema, {"mass": 300, "effusion": 200}, 7)
    assert len({image.image_id for image in plan}) == len({image.seed for image in plan}) == 500
    assert plan == plan_counts(schema, {"mass": 300, "effusion": 200}, 7)
    tonight = plan_counts(schema, {"mass": 300, "effusion": 200}, 7, fresh="2031-05-01")
    assert not {image.seed for image in plan} & {image.seed for image in tonight}
    assert not {image.image_id for image in plan} & {image.image_id for image in tonight}
    assert plan.digest != tonight.digest
    # Another request at the same place has the same noise, but is another image.
    other = plan_counts(schema, {"nodule": 500}, 7)
    assert [image.seed for image in other] == [image.seed for image in plan]
    assert not {image.image_id for image in other} & {image.image_id for image in plan}
    # A longer plan begins with the shorter one.
    assert plan_counts(schema, {"mass": 400}, 7).images[:300] == plan.images[:300]


@settings(max_examples=40, deadline=None)
@given(total=st.integers(0, 40), shards=st.integers(1, 9))
def test_shards_partition_the_plan(total: int, shards: int) -> None:
    plan = plan_prompts([Prompt()] * total, 1)
    parts = [plan.shard(index, shards) for index in range(shards)]
    assert sorted(image.image_id for part in parts for image in part) == [image.image_id for image in plan]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("images", [5, "ab", [1], None])
def test_a_plan_of_something_else_is_one_line(images: Any) -> None:
    with pytest.raises(InputError, match="a plan consists of PlannedImage, got "):
        SamplingPlan(images)


def test_a_plan_is_written_to_files_in_folders_that_exist(tmp_path: Path) -> None:
    plan = plan_prompts([Prompt()], 1)
    for place in (tmp_path, tmp_path / "no" / "plan.jsonl"):
        with pytest.raises(InputError, match="cannot be written as a file; give a file in a folder that exists"):
            plan.to_jsonl(place)
    plan.to_jsonl(str(tmp_path / "plan.jsonl"))
    assert SamplingPlan.from_jsonl(str(tmp_path / "plan.jsonl")) == plan


def test_a_shard_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="0 ≤ index < total, got 3 of 3"):
        plan_prompts([Prompt()], 1).shard(3, 3)


def test_an_id_twice_is_refused() -> None:
    image = PlannedImage(image_id="a", prompt=Prompt(), seed=1)
    with pytest.raises(InputError, match="contains image id 'a' 2 times"):
        SamplingPlan([image, image])


def test_jsonl_round_trip(tmp_path: Path, cohort: Cohort, schema: ConditionSchema) -> None:
    plan = plan_match(cohort, 50, 3)
    plan.to_jsonl(tmp_path / "plan.jsonl")
    assert len((tmp_path / "plan.jsonl").read_text(encoding="utf-8").splitlines()) == 50
    read = SamplingPlan.from_jsonl(tmp_path / "plan.jsonl", schema)
    assert read == plan
    assert read.digest == plan.digest
    assert [path.name for path in tmp_path.iterdir()] == ["plan.jsonl"]


GOOD = {"image_id": "a", "prompt": {"labels": {"mass": True}, "attributes": {}}, "seed": 5}


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("{", InputError, r"plan.jsonl line 3 is not a JSON object"),
        ("[1]", InputError, r"line 3: the object: .*dictionary"),
        (json.dumps({**GOOD, "seed": -1}), InputError, r"line 3: seed: .*greater than or equal to 0"),
        (json.dumps({**GOOD, "seed": 2**63}), InputError, r"line 3: seed: .*less than"),
        (json.dumps({**GOOD, "prompt": {"labels": {"mass": "perhaps"}}}), InputError, r"line 3: prompt.labels.mass: "),
        (json.dumps({**GOOD, "image_id": "../a"}), InputError, r"line 3: image_id: .*pattern"),
        (json.dumps({**GOOD, "colour": 1}), InputError, r"line 3: colour: extra inputs"),
        (json.dumps({"image_id": "b", "seed": 1}), InputError, r"line 3: prompt: field required"),
        (json.dumps({**GOOD, "prompt": {"labels": {"mas": True}}}), PromptError, r"line 3: label 'mas'.*mean 'mass'"),
    ],
)
def test_a_bad_line_is_named_with_its_field(
    tmp_path: Path, schema: ConditionSchema, line: str, error: type[Exception], message: str
) -> None:
    file = tmp_path / "plan.jsonl"
    file.write_text(json.dumps({**GOOD, "image_id": "x"}) + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(error, match=message) as caught:
        SamplingPlan.from_jsonl(file, schema)
    assert "\n" not in str(caught.value)


def test_plans_need_no_torch() -> None:
    code = "import medphantom.conditioning.plan, medphantom.learning.fit_config, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- counts ----


def test_counts_are_as_requested(schema: ConditionSchema) -> None:
    plan = plan_counts(schema, {"mass": 3, "effusion": 0, "no finding": 2}, 1)
    prompts = [image.prompt.labels for image in plan]
    assert prompts == [{"mass": True}] * 3 + [dict.fromkeys(schema.labels, False)] * 2


def test_impossible_counts_are_refused(schema: ConditionSchema) -> None:
    with pytest.raises(PromptError, match=r"'masss' is unknown.*'mass'"):
        plan_counts(schema, {"masss": 3}, 1)
    with pytest.raises(InputError, match=r"plan.counts.mass must be ≥ 0, got -1"):
        plan_counts(schema, {"mass": -1}, 1)
    with pytest.raises(InputError, match="requests no images"):
        plan_counts(schema, {"mass": 0}, 1)


# ---- match ----


def common_training_rows(cohort: Cohort) -> list[int]:
    """Training rows of everyone but the one patient that the limit holds back."""
    return [row for row in cohort.rows("train") if cohort.manifest["patient"][row] != "only"]


def test_label_sets_are_distributed_as_in_the_training_split(cohort: Cohort) -> None:
    found = [label_set(image.prompt.labels) for image in plan_match(cohort, 4000, 1, min_patients=1)]
    assert p_value(found, real_sets(cohort, "train")) > 0.01
    drifted = [*found[:3800], *[found[0]] * 200]  # a planted fault of a twentieth
    assert p_value(drifted, real_sets(cohort, "train")) < 1e-6


@pytest.mark.parametrize("min_patients", [1, 5])
def test_attributes_are_drawn_together_with_labels(cohort: Cohort, min_patients: int) -> None:
    """Holding rare combinations back must not shift shares within a label."""
    rows = common_training_rows(cohort)
    drawn = [image.prompt for image in plan_match(cohort, 4000, 1, min_patients=min_patients)]
    for name in ("sex", "view"):
        real = list(zip(cohort.labels(rows)[:, 0].tolist(), cohort.attribute(name, rows), strict=True))
        found = [
            (int(p.labels["effusion"]), p.attributes.get(name))
            for p in drawn
            if "effusion" in p.labels and p.attributes.get("sex", "X") != "X"  # that of the one patient, stated or not
        ]
        assert p_value(found, real) > 0.01


def test_ages_go_with_findings_and_keep_mean_and_spread(cohort: Cohort, schema: ConditionSchema) -> None:
    rows = common_training_rows(cohort)
    real, effusion = np.array(cohort.attribute("age", rows)), cohort.labels(rows)[:, 0] == 1
    drawn = [p.prompt for p in plan_match(cohort, 4000, 5)]
    ages = np.array([float(p.attributes["age"]) for p in drawn])
    assert ages.mean() == pytest.approx(real.mean(), abs=1.0)
    assert ages.std() == pytest.approx(real.std(), rel=0.05)
    # Smoothing pulls both groups (means 65 and 40) a little towards the common mean.
    with_effusion = np.array([p.labels.get("effusion") is True for p in drawn])
    assert ages[with_effusion].mean() == pytest.approx(real[effusion].mean(), abs=3)
    without = np.array([p.labels.get("effusion") is False for p in drawn])
    assert ages[without].mean() == pytest.approx(real[~effusion].mean(), abs=3)
    spec = schema.attributes[0]
    assert (spec.low, spec.high) == (20.0, 90.0)
    assert 20 <= ages.min() < ages.max() <= 90


def test_smoothing_adds_no_spread() -> None:
    """Kernel noise alone would widen 40 values by an eighth; Silverman's correction takes it back."""
    values = np.random.default_rng(3).normal(50, 10, size=40)
    spec = AttributeSpec(name="age", kind="continuous", low=-1000.0, high=1000.0)
    smoothed, rng = Smoothed(spec, values.tolist()), np.random.default_rng(4)
    drawn = np.array([smoothed.near(float(rng.choice(values)), rng) for _ in range(20_000)])
    assert drawn.mean() == pytest.approx(values.mean(), abs=4 * 10 / 20_000**0.5)
    assert drawn.std() == pytest.approx(values.std(), rel=0.02)


def test_no_exact_age_is_copied(cohort: Cohort) -> None:
    ages = np.array([float(p.prompt.attributes["age"]) for p in plan_match(cohort, 4000, 5)])
    inner = ages[(ages > 20) & (ages < 90)]
    # Real ages are whole decades; a draw to a tenth of a year hits one at random in a hundredth of all cases.
    assert np.mean(inner % 10 == 0) < 0.03


def test_what_few_patients_share_is_not_written_down(cohort: Cohort) -> None:
    """Every statement about labels and categories holds for at least five patients, however many images they have."""
    rows = cohort.rows("train")
    patients = np.array(cohort.patients(rows))
    states = dict(zip(cohort.schema.labels, cohort.labels(rows).T, strict=True))
    holders: Counter[str] = Counter()
    for labels in {image.prompt.to_json(): image.prompt.labels for image in plan_match(cohort, 3000, 1)}.values():
        agree = np.all([states[name] == shown for name, shown in labels.items()], axis=0)
        assert len(np.unique(patients[agree])) >= 5
        holders["checked"] += 1
    assert holders["checked"] > 100
    bare = [image.prompt.attributes.get("sex") for image in plan_match(cohort, 3000, 1, min_patients=1)]
    limited = [image.prompt.attributes.get("sex") for image in plan_match(cohort, 3000, 1)]
    assert "X" in bare  # six images of one patient
    assert "X" not in limited


def made(tmp_path: Path, rows: list[tuple[str, str, dict[str, bool | None]]]) -> Cohort:
    """A cohort of (patient, split, labels) without attributes."""
    names = tuple(rows[0][2])
    with CohortWriter(tmp_path / "cohort", CohortSchema(labels=names)) as writer:
        for number, (patient, split, labels) in enumerate(rows):
            writer.add(ImageRecord(f"i{number}", patient, np.eye(8, dtype=np.uint8), split, labels=labels))
    return Cohort.open(tmp_path / "cohort")


def test_a_rare_label_set_is_cut_down_to_what_is_shared(tmp_path: Path) -> None:
    rows: list[tuple[str, str, dict[str, bool | None]]] = []
    for number in range(40):
        a, b, c = number < 20, number < 12 or number >= 36, number < 2 or number >= 38
        rows.append((f"p{number}", "train", {"a": a, "b": b, "c": c}))
    cohort = made(tmp_path, rows)
    sets = {label_set(image.prompt.labels) for image in plan_match(cohort, 800, 1)}
    # {a, b, c} (2 patients) becomes {a, b} (12) for c is shown by 4 patients only; {b} (2) and {b, c} (2) become {b}.
    assert sets == {
        label_set({"a": True, "b": True, "c": False}),
        label_set({"a": True, "b": False, "c": False}),
        label_set({"a": False, "b": False, "c": False}),
        (("a", True), ("b", True)),
        (("b", True),),
    }
    # A label that is requested by name is kept however rare it is.
    topped = [image.prompt.labels for image in plan_balance(cohort, 10, 1, labels=["c"])]
    assert topped == [{"c": True}] * 6


def test_match_reads_the_training_split_only(tmp_path: Path) -> None:
    splits = ["train"] * 15 + ["val", "holdout", "test"] * 5
    cohort = made(tmp_path, [(f"p{i}", s, {"a": s == "train", "b": s != "train"}) for i, s in enumerate(splits)])
    assert {label_set(p.prompt.labels) for p in plan_match(cohort, 100, 1)} == {(("a", True), ("b", False))}
    with pytest.raises(InputError, match="label 'b' has no image in the training split"):
        plan_balance(cohort, 20, 1)
    assert len(plan_balance(cohort, 20, 1, labels=["a"])) == 5


def test_a_narrower_vocabulary_narrows_the_prompts(cohort: Cohort) -> None:
    narrow = ConditionSchema(labels=("mass",))
    plan = plan_match(cohort, 50, 1, schema=narrow)
    assert {name for image in plan for name in image.prompt.labels} == {"mass"}
    assert not [image for image in plan if image.prompt.attributes]


def test_nothing_to_plan_from_is_refused(tmp_path: Path, cohort: Cohort) -> None:
    with pytest.raises(InputError, match=r"plan.total must be ≥ 1, got 0"):
        plan_match(cohort, 0, 1)
    with pytest.raises(InputError, match="no training rows to plan from"):
        plan_match(made(tmp_path, [("p", "test", {"a": True})]), 3, 1)


# ---- balance ----


def test_every_label_reaches_the_count_and_no_image_is_wasted(cohort: Cohort) -> None:
    per_label = 500
    plan = plan_balance(cohort, per_label, 1)
    real = (cohort.labels(cohort.rows("train")) == 1).sum(axis=0)
    counts = dict(zip(cohort.schema.labels, (int(n) for n in real), strict=True))
    for image in plan:
        short = [name for name, count in counts.items() if count < per_label]
        assert short, "an image although all labels had enough"
        rarest = min(counts.values())
        assert any(counts[name] == rarest for name, shown in image.prompt.labels.items() if shown)
        for name, shown in image.prompt.labels.items():
            counts[name] += shown
    assert min(counts.values()) >= per_label
    assert len({image.image_id for image in plan}) == len(plan)


def test_balance_draws_real_label_sets(cohort: Cohort) -> None:
    known = set(real_sets(cohort, "train"))
    assert {label_set(image.prompt.labels) for image in plan_balance(cohort, 500, 1, min_patients=1)} <= known


def test_nothing_to_balance_is_refused(cohort: Cohort) -> None:
    with pytest.raises(InputError, match=r"every label has 10 training images already \(the smallest number is \d+\)"):
        plan_balance(cohort, 10, 1)
