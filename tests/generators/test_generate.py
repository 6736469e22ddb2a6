from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import PlannedImage, SamplingPlan, plan_counts, plan_prompts
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import InputError, MedphantomError, PromptError
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SamplerConfig
from medphantom.generators.generate import draw, generate, merge, plan_again, reconstruct, resolved
from tests.generators.tiny import SAMPLER, SIDE

TOTAL = 10  # two whole micro-batches of 4, and one padded


class Stop(Exception):
    """Raised to end a run early, as a kill would."""


def stop(_done: int, _total: int, _what: str = "") -> None:
    raise Stop


@pytest.fixture
def plan(bundle: GeneratorBundle) -> SamplingPlan:
    return plan_counts(bundle.facts.conditions, {"bright": TOTAL // 2, "dark": TOTAL // 2}, seed=0)


@pytest.fixture(scope="module")
def exact_folder(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same generator, storing float32: rounding to grey levels would hide differences of bits."""
    rounding = GeneratorBundle.load(bundle_folder)
    preprocess = rounding.facts.preprocess.model_copy(update={"stored_dtype": "float32"})
    facts = rounding.facts.model_copy(update={"preprocess": preprocess})
    out = tmp_path_factory.mktemp("exact") / "bundle"
    GeneratorBundle(facts, rounding.autoencoder, rounding.denoiser, rounding.training).save(out)
    return out


@pytest.fixture
def exact(exact_folder: Path) -> GeneratorBundle:
    return GeneratorBundle.load(exact_folder)


@pytest.fixture(scope="module")
def whole(exact_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The whole plan, drawn in one go."""
    folder = tmp_path_factory.mktemp("whole")
    bundle = GeneratorBundle.load(exact_folder)
    plan = plan_counts(bundle.facts.conditions, {"bright": TOTAL // 2, "dark": TOTAL // 2}, seed=0)
    return generate(bundle, plan, folder / "out", work=folder / "work", sampler=SAMPLER)


def pixels(cohort: Cohort) -> dict[str, np.ndarray]:
    return dict(zip(cohort.manifest["image_id"], cohort.pixels(cohort.rows()), strict=True))


def most_apart(first: Cohort, second: Cohort) -> int:
    """Largest difference in grey levels between equal image ids."""
    ours, theirs = pixels(first), pixels(second)
    assert ours.keys() == theirs.keys()
    return max(int(np.abs(ours[key].astype(int) - theirs[key].astype(int)).max()) for key in ours)


# ---- the same bits ----


def test_shards_merge_to_the_whole(exact: GeneratorBundle, plan: SamplingPlan, whole: Cohort, tmp_path: Path) -> None:
    parts = [
        generate(exact, plan.shard(i, 2), tmp_path / f"part{i}", work=tmp_path / "work", sampler=SAMPLER)
        for i in (0, 1)
    ]
    merged = merge(parts, tmp_path / "merged")
    assert merged.digest == whole.digest
    assert merged.schema.plan == parts[0].schema.plan == plan.whole
    assert (plan.whole.digest, plan.whole.images) == (plan.digest, len(plan))
    assert list(merged.manifest["image_id"]) == [image.image_id for image in plan]


def test_a_single_row_alone_is_the_same(exact: GeneratorBundle, whole: Cohort, tmp_path: Path) -> None:
    for row in (0, 3, 9):
        sampler = SamplerConfig.model_validate(whole.schema.generation)
        again = generate(exact, plan_again(whole, [row]), tmp_path / f"{row}", work=tmp_path / "work", sampler=sampler)
        assert np.array_equal(again.pixels([0])[0], whole.pixels([row])[0])


def test_order_and_neighbours_do_not_matter(
    exact: GeneratorBundle, plan: SamplingPlan, whole: Cohort, tmp_path: Path
) -> None:
    others = plan_counts(exact.facts.conditions, {"dark": 7}, seed=5)
    mixed = SamplingPlan([*others.images[:3], *reversed(plan.images), *others.images[3:]])
    found = pixels(generate(exact, mixed, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER))
    for image_id, expected in pixels(whole).items():
        assert np.array_equal(found[image_id], expected)


KILLED = """
import sys
from pathlib import Path
from medphantom.conditioning.plan import plan_counts
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.generate import generate
from tests.generators.tiny import SAMPLER

bundle = GeneratorBundle.load(sys.argv[1])
plan = plan_counts(bundle.facts.conditions, {"bright": 5, "dark": 5}, seed=0)
generate(bundle, plan, Path(sys.argv[2]), work=Path(sys.argv[3]), sampler=SAMPLER,
         progress=lambda done, total, what="": print(done, flush=True))
"""


def test_a_killed_run_goes_on_to_the_same_images(
    exact: GeneratorBundle, exact_folder: Path, plan: SamplingPlan, whole: Cohort, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(exact_folder), str(tmp_path / "out"), str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "4"
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.safetensors")}
    assert before
    times: list[int] = []

    def progress(done: int, total: int, what: str = "") -> None:
        times.append(done)
        kept = {path: path.stat().st_mtime_ns for path in before if path.exists()}
        assert kept == before  # what was drawn before the kill is not drawn again

    resumed = generate(exact, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER, progress=progress)
    assert resumed.digest == whole.digest
    assert times == [4, 8, 10]
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_damaged_micro_batch_is_drawn_again(
    exact: GeneratorBundle, plan: SamplingPlan, whole: Cohort, tmp_path: Path, damage: str
) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str = "") -> None:
        raise Stop

    with pytest.raises(Stop):
        generate(exact, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER, progress=stop)
    (file,) = (tmp_path / "work").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(bytes(content[:-1] if damage == "truncated" else content))
    resumed = generate(exact, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    assert resumed.digest == whole.digest


@pytest.mark.parametrize(
    "change", [{"guidance": 3.0}, {"steps": 4}, {"solver": "euler"}, {"guidance_interval": (0.2, 0.8)}], ids=str
)
def test_another_sampler_setting_never_finds_this_ones_micro_batches(
    exact: GeneratorBundle, plan: SamplingPlan, whole: Cohort, tmp_path: Path, change: dict[str, object]
) -> None:
    work = tmp_path / "work"
    sampler = SamplerConfig.model_validate({**SAMPLER.model_dump(), **change})
    expected = draw(exact, plan.images[:4], resolved(exact, sampler))
    assert not np.array_equal(draw(exact, plan.images[:4], resolved(exact, SAMPLER)), expected)
    with pytest.raises(Stop):
        generate(exact, plan, tmp_path / "out", work=work, sampler=SAMPLER, progress=stop)
    assert list(work.iterdir())
    changed = generate(exact, plan, tmp_path / "out", work=work, sampler=sampler)
    assert np.array_equal(np.stack(changed.pixels(range(4))), expected)


def test_another_plan_or_generator_never_finds_this_ones_micro_batches(
    bundle: GeneratorBundle, exact: GeneratorBundle, plan: SamplingPlan, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    with pytest.raises(Stop):
        generate(exact, plan, tmp_path / "a", work=work, sampler=SAMPLER, progress=stop)
    fresh = plan_counts(exact.facts.conditions, {"bright": 4}, seed=0, fresh="tonight")
    drawn = generate(exact, fresh, tmp_path / "b", work=work, sampler=SAMPLER)
    assert list(drawn.manifest["image_id"]) == [image.image_id for image in fresh]
    rounded = generate(bundle, SamplingPlan(plan.images[:4]), tmp_path / "c", work=work, sampler=SAMPLER)
    assert {pixels.dtype for pixels in rounded.pixels(range(4))} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_networks_always_see_a_whole_micro_batch(exact: GeneratorBundle, plan: SamplingPlan, guidance: float) -> None:
    seen: dict[str, set[int]] = {"denoiser": set(), "autoencoder": set()}
    exact.denoiser.net.register_forward_hook(lambda _, inputs, __: seen["denoiser"].add(len(inputs[0])))
    exact.autoencoder.net.decoder.register_forward_hook(lambda _, inputs, __: seen["autoencoder"].add(len(inputs[0])))
    settings = resolved(exact, SAMPLER.model_copy(update={"guidance": guidance}))
    for total in (1, 3, 4):
        assert len(draw(exact, plan.images[:total], settings)) == total
    assert seen == {"denoiser": {4 if guidance == 1 else 8}, "autoencoder": {4}}


def test_reconstruction_sees_whole_micro_batches_too(exact: GeneratorBundle) -> None:
    seen: set[int] = set()
    exact.autoencoder.net.decoder.register_forward_hook(lambda _, inputs, __: seen.add(len(inputs[0])))
    images = np.random.default_rng(0).uniform(-1, 1, (6, 1, SIDE, SIDE)).astype(np.float32)
    together = reconstruct(exact, images)
    assert np.array_equal(reconstruct(exact, images[:1])[0], together[0])
    assert seen == {4}


@pytest.mark.parametrize("change", [{"micro_batch": 1}, {"micro_batch": 7}, {"threads": 2}], ids=str)
def test_other_micro_batches_and_threads_are_at_most_one_grey_level_apart(
    bundle: GeneratorBundle, plan: SamplingPlan, tmp_path: Path, change: dict[str, int]
) -> None:
    sampler = SamplerConfig.model_validate({**SAMPLER.model_dump(), **change})
    usual = generate(bundle, plan, tmp_path / "usual", work=tmp_path / "work", sampler=SAMPLER)
    other = generate(bundle, plan, tmp_path / "other", work=tmp_path / "work", sampler=sampler)
    assert {image.dtype for image in pixels(usual).values()} == {np.dtype(np.uint8)}
    assert most_apart(usual, other) <= 1


def test_another_seed_is_another_image(whole: Cohort) -> None:
    found = pixels(whole).values()
    assert len({image.tobytes() for image in found}) == len(found)


# ---- what the images show, and what their rows say ----


def test_images_show_their_prompt(bundle: GeneratorBundle) -> None:
    settings = resolved(bundle, SamplerConfig(steps=8, guidance=2.0, micro_batch=16, device="cpu"))
    middle, edge, right = slice(5, 11), 0, 0
    for label, sign in (("bright", 1), ("dark", -1)):
        plan = plan_counts(bundle.facts.conditions, {label: 16}, seed=3)
        images = draw(bundle, plan.images, settings).astype(float)
        contrast = images[:, middle, middle].mean((1, 2)) - images[:, edge].mean(1)
        right += int((sign * contrast > 20).sum())
    assert right >= 28  # of 32; a generator that does not listen gets half of them right


def test_rows_record_what_was_requested_and_how_to_make_them_again(bundle: GeneratorBundle, tmp_path: Path) -> None:
    prompts = [Prompt(labels={"bright": True}, attributes={"age": 44.0}), Prompt(attributes={"sex": "F"}), Prompt()]
    plan = plan_prompts(prompts, seed=1)
    cohort = generate(bundle, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    assert cohort.schema.kind == "synthetic"
    assert cohort.schema.labels == ("bright", "dark")
    assert cohort.labels().tolist() == [[1, 0], [-1, -1], [-1, -1]]  # of exclusive classes, one present tells all
    assert cohort.attribute("age") == [44.0, None, None]
    assert cohort.attribute("sex") == [None, "F", None]
    record = next(cohort.records([0]))
    assert record.split == "synthetic"
    assert record.patient == record.image_id == plan.images[0].image_id
    assert record.provenance is not None
    assert record.provenance.bundle_digest == bundle.digest
    assert Prompt.from_json(record.provenance.prompt_json) == prompts[0]
    assert record.provenance.seed == plan.images[0].seed
    assert record.spacing_mm == (0.5, 0.5)
    assert record.modality == "DX"
    assert record.pixels.dtype == np.uint8
    assert record.pixels.shape == (SIDE, SIDE)
    assert cohort.schema.generation["steps"] == SAMPLER.steps
    assert plan_again(cohort, [0, 1, 2]) == plan
    cohort.verify()


def test_stored_values_are_those_of_the_source(bundle_folder: Path, tmp_path: Path) -> None:
    bundle = GeneratorBundle.load(bundle_folder)
    preprocess = bundle.facts.preprocess.model_validate(
        {
            **bundle.facts.preprocess.model_dump(),
            "intensity": {"kind": "window", "low": -1000, "high": 1000},
            "stored_dtype": "int16",
        }
    )
    facts = bundle.facts.model_copy(update={"preprocess": preprocess})
    ct = GeneratorBundle(facts, bundle.autoencoder, bundle.denoiser, bundle.training)
    plan = plan_counts(facts.conditions, {"bright": 2}, seed=0)
    cohort = generate(ct, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    found = np.stack(cohort.pixels([0, 1]))
    assert found.dtype == np.int16
    assert found.min() < -100 < 100 < found.max()


# ---- the autoencoder alone ----


def test_reconstructions_are_close_and_do_not_depend_on_their_neighbours(
    bundle: GeneratorBundle, cohort: Cohort
) -> None:
    images = np.stack([bundle.facts.preprocess.apply(array) for array in cohort.pixels(cohort.rows("test"))])
    rebuilt = reconstruct(bundle, images)
    assert rebuilt.shape == images.shape
    assert rebuilt.dtype == np.float32
    assert float(np.abs(rebuilt - images).mean()) < 0.25 * float(np.abs(images - images.mean()).mean())
    assert np.array_equal(reconstruct(bundle, images[5:6]), rebuilt[5:6])
    assert np.array_equal(reconstruct(bundle, images[::-1]), rebuilt[::-1])
    assert reconstruct(bundle, images[:0]).shape == (0, 1, SIDE, SIDE)


def test_reconstruct_refuses_another_size(bundle: GeneratorBundle) -> None:
    with pytest.raises(InputError, match=r"must have shape \(N, 1, 16, 16\), got \(2, 1, 8, 8\)"):
        reconstruct(bundle, np.zeros((2, 1, 8, 8), np.float32))


# ---- errors ----


def test_bad_requests_are_refused_before_anything_is_drawn(
    bundle: GeneratorBundle, plan: SamplingPlan, whole: Cohort, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    with pytest.raises(InputError, match="the plan contains no images"):
        generate(bundle, SamplingPlan([]), tmp_path / "out", work=work)
    with pytest.raises(InputError, match="exists already"):
        generate(bundle, plan, whole.path, work=work)
    with pytest.raises(InputError, match="'ddim' does not fit the objective 'flow'"):
        generate(bundle, plan, tmp_path / "out", work=work, sampler=SamplerConfig(solver="ddim"))
    unknown = SamplingPlan([PlannedImage(image_id="a", prompt=Prompt(labels={"brihgt": True}), seed=0)])
    with pytest.raises(PromptError, match="did you mean 'bright'"):
        generate(bundle, unknown, tmp_path / "out", work=work)
    assert not work.exists()
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_finite_are_refused(bundle_folder: Path, plan: SamplingPlan, tmp_path: Path) -> None:
    bundle = GeneratorBundle.load(bundle_folder)
    bundle.autoencoder.net.post_quant_conv.conv.bias.fill_(float("nan"))
    with pytest.raises(MedphantomError, match=r"a generated image is not finite; lower sampler\.guidance"):
        generate(bundle, plan, tmp_path / "out", work=tmp_path / "work", sampler=SAMPLER)
    assert not (tmp_path / "out").exists()


def test_merging_refuses_what_does_not_belong_together(
    exact: GeneratorBundle, plan: SamplingPlan, whole: Cohort, cohort: Cohort, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing to merge"):
        merge([], tmp_path / "out")
    with pytest.raises(InputError, match="was added twice"):
        merge([whole, whole], tmp_path / "out")
    sampler = SamplerConfig.model_validate({**SAMPLER.model_dump(), "steps": 2})
    other = generate(exact, plan.shard(0, 5), tmp_path / "other", work=tmp_path / "work", sampler=sampler)
    with pytest.raises(InputError, match="was generated by another generator or sampler"):
        merge([whole, other], tmp_path / "out")
    further = SamplingPlan(list(plan)[:2])
    foreign = generate(exact, further, tmp_path / "foreign", work=tmp_path / "work", sampler=SAMPLER)
    with pytest.raises(InputError, match="foreign was drawn from another plan than"):
        merge([whole, foreign], tmp_path / "out")
    another = GeneratorBundle(
        exact.facts.model_copy(update={"intended_use": "x"}), exact.autoencoder, exact.denoiser, {}
    )
    halves = [
        generate(maker, plan.shard(i, 2), tmp_path / f"half{i}", work=tmp_path / "work", sampler=SAMPLER)
        for i, maker in enumerate((exact, another))
    ]
    with pytest.raises(InputError, match="the parts were drawn by different generators"):
        merge(halves, tmp_path / "out")
    with pytest.raises(InputError, match="not a synthetic cohort"):
        plan_again(cohort, [0])
    assert not (tmp_path / "out").exists()
