from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medphantom.cohorts.preprocess import Percentile, Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.errors import ArtifactError, InputError, UnsupportedClaim
from medphantom.core.records import Array
from medphantom.quality.assessment.assess import assess
from medphantom.quality.config import CORE_KINDS, AssessConfig, ClassifierConfig, CopyConfig, UtilityConfig
from medphantom.quality.data.evaluation_data import EvaluationData, GeneratorHooks
from medphantom.quality.report.write import public_grids
from medphantom.quality.results.quality_report import QualityReport
from tests.quality.scenes import BARE_SEARCH, blurred, images, write_real, write_synthetic

KINDS = ("as it is", "reconstructed")
PREPROCESS = Preprocess(size=(32, 32))
CONFIG = AssessConfig(
    network_seeds=2,
    draws=4,
    classifier=ClassifierConfig(steps=60, batch_size=16, learning_rate=5e-3, device="cpu"),
    diversity_pairs=40,
    copies=CopyConfig(repeats=20, kinds=KINDS, core=KINDS, controls=60, side=16),
    utility=UtilityConfig(bootstrap=100),
)
QUICK = CONFIG.model_copy(update={"networks": ("filters",), "utility": UtilityConfig(enabled=False)})
BARE = QUICK.model_copy(update={"copies": CONFIG.copies.model_copy(update={"kinds": (), "core": (), "controls": 0})})


def autoencoder(images_NC: Array) -> Array:
    """Stands in for a generator's autoencoder: it keeps most, and blurs a little."""
    return 0.7 * images_NC + 0.3 * blurred(images_NC)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_real(tmp_path_factory.mktemp("real") / "cohort", 330, 0)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    some, kinds = images(180, np.random.default_rng(7))
    return write_synthetic(tmp_path_factory.mktemp("honest") / "cohort", autoencoder(some), kinds)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    some, kinds = images(60, np.random.default_rng(9))
    return write_synthetic(tmp_path_factory.mktemp("small") / "cohort", autoencoder(some), kinds)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def report(real: Cohort, honest: Cohort, work: Path) -> QualityReport:
    return assess(real, honest, PREPROCESS, CONFIG, work=work, hooks=GeneratorHooks(autoencoder))


def value(report: QualityReport, name: str, network: str | None = None) -> float:
    found = report.find(name, network=network).value
    assert found is not None, report.find(name, network=network).refused
    return found


def test_an_honest_generator_scores_like_its_autoencoder(report: QualityReport) -> None:
    assert report.verdict == "inconclusive"  # by the core kinds that were not planted, and by nothing else
    unplanted = [kind for kind in CORE_KINDS if kind not in KINDS]
    assert [text.split("'")[1] for text in report.verdict_reasons] == unplanted, report.verdict_reasons
    assert 0.6 < value(report, "frechet_over_reconstruction", "filters") < 1.6
    assert report.agreement is not None
    assert report.agreement.per_label[0].value is not None
    assert report.agreement.per_label[0].value > 0.6
    assert value(report, "ms_ssim") == pytest.approx(report.find("ms_ssim").floor, abs=0.1)
    assert report.membership is not None
    assert "the weights were not attacked (set assess.membership.weights to true for this)" in report.membership.gaps


def test_every_score_carries_n_and_floor_or_says_why_not(report: QualityReport) -> None:
    names = [(e.name, e.network, e.label) for e in report.estimates]
    assert len(names) == len(set(names))
    for estimate in report.estimates:
        if estimate.value is None:
            assert estimate.refused
        elif "over" not in estimate.name and estimate.name != "frechet_infinite":
            assert estimate.floor is not None, estimate.name
            assert estimate.n_real
            assert estimate.n_synthetic
    assert {e.name for e in report.estimates} >= {
        "frechet", "frechet_random_halves", "kernel", "precision", "recall", "density", "coverage", "ms_ssim",
        "frechet_reconstruction", "frechet_over_floor", "frechet_over_reconstruction",
    }  # fmt: skip
    for name in ("frechet", "frechet_over_floor", "frechet_infinite", "kernel", "recall", "vendi"):
        for network in ("cross_fitted", "filters"):
            found = report.find(name, network=network)
            assert found.interval is not None, (name, network)
            assert found.value is not None
            assert found.interval[0] <= found.value < found.interval[1]
            assert "interval:" in found.method
    assert report.find("kernel", network="filters", label="rings").value is not None
    assert len([n for n in report.networks if n.name == "cross_fitted"]) == 2
    assert {score.arm.kind for score in report.utility} == {"real", "synthetic", "real_and_synthetic", "metadata"}


def test_floor_of_the_kernel_distance_is_about_zero(report: QualityReport) -> None:
    kernel = report.find("kernel", network="filters")
    assert kernel.floor is not None
    assert kernel.floor_interval is not None
    assert kernel.floor_interval[0] < 0 < kernel.floor_interval[1]


def test_faults_move_the_scores_that_should_see_them(
    real: Cohort, report: QualityReport, tmp_path: Path, work: Path
) -> None:
    rng = np.random.default_rng(8)
    some, kinds = images(150, rng)

    def scores(name: str, faulty: Array, requested: Array, config: AssessConfig) -> QualityReport:
        cohort = write_synthetic(tmp_path / name, faulty, requested)
        return assess(real, cohort, PREPROCESS, config, work=work, hooks=GeneratorHooks(autoencoder))

    few = scores("few, blurred", np.repeat(blurred(blurred(some[:12])), 12, axis=0), np.repeat(kinds[:12], 12), BARE)
    assert value(few, "frechet", "filters") > 3 * value(report, "frechet", "filters")
    assert value(few, "ms_ssim") > value(report, "ms_ssim") + 0.02
    assert value(few, "coverage", "filters") < 0.6 * value(report, "coverage", "filters")
    stolen = autoencoder(some)
    train = EvaluationData(real, real, PREPROCESS).images["train"]
    stolen[:40] = autoencoder(train[rng.permutation(len(train))[:40]])
    caught = scores("stolen, wrong labels", stolen, (kinds + 1) % 3, BARE)
    assert caught.agreement is not None
    assert caught.agreement.per_label[0].value is not None
    assert caught.agreement.per_label[0].value < 0.3
    assert caught.verdict == "fail"
    assert caught.copies is not None
    assert {pair.synthetic_row for pair in caught.nearest if pair.flagged} <= set(range(150))
    assert np.mean([row < 40 for row in caught.copies.flagged_rows]) > 0.7
    pair = caught.nearest[0]
    assert real.manifest["image_id"][pair.train_row] == pair.train_id
    assert real.manifest["split"][pair.train_row] == "train"
    assert real.manifest["split"][pair.holdout_row] == "holdout"


def test_the_same_seed_gives_the_same_report_and_finished_parts_are_not_made_again(
    real: Cohort, honest: Cohort, report: QualityReport, work: Path
) -> None:
    calls: list[tuple[int, int, str]] = []
    again = assess(
        real, honest, PREPROCESS, CONFIG, work=work, hooks=GeneratorHooks(autoencoder),
        progress=lambda done, total, what="": calls.append((done, total, what)),
    )  # fmt: skip
    assert again == report
    assert not [what for _, _, what in calls if "classifier" in what or "feature network" in what]


def test_damaged_parts_are_made_again(real: Cohort, small: Cohort, tmp_path: Path) -> None:
    place = tmp_path / "work"
    first = assess(real, small, PREPROCESS, BARE, work=place, hooks=GeneratorHooks(autoencoder))
    damaged = [part for part in (place / "parts").iterdir() if part.name.startswith(("diversity", "copies"))]
    assert len(damaged) >= 2
    for part in damaged:
        part.write_text("{")  # as after a crash of another version
    assert assess(real, small, PREPROCESS, BARE, work=place, hooks=GeneratorHooks(autoencoder)) == first


def test_another_seed_draws_other_halves(real: Cohort, honest: Cohort, report: QualityReport, work: Path) -> None:
    other = BARE.model_copy(update={"seed": 5})
    shown: list[tuple[int, int]] = []
    found = assess(
        real, honest, PREPROCESS, other, work=work, hooks=GeneratorHooks(autoencoder),
        progress=lambda done, total, what="": shown.append((done, total)),
    )  # fmt: skip
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)  # progress never goes back
    assert shown[-1] == (1000, 1000)
    assert value(found, "frechet", "filters") != value(report, "frechet", "filters")
    assert value(found, "frechet", "filters") == pytest.approx(value(report, "frechet", "filters"), rel=0.5)


def test_without_an_autoencoder_there_is_no_ceiling_and_no_verdict(real: Cohort, small: Cohort, work: Path) -> None:
    asked = BARE.model_copy(update={"membership": BARE.membership.model_copy(update={"weights": True})})
    found = assess(real, small, PREPROCESS, asked, work=work)
    assert found.verdict == "inconclusive"
    assert found.membership is not None  # no weights, no attack on them, whatever was asked for
    assert "the weights were not attacked: no generator was given (give its bundle for this)" in found.membership.gaps
    assert not [e for e in found.estimates if "reconstruction" in e.name]
    assert any("no autoencoder was given" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"copies": {"core": (), "kinds": ()}}, "no copy of the kind 'as it is' could be planted"),
        ({"copies": {"controls": 0}}, "no copy of the kind 'as it is' could be planted"),
        ({"membership": {"enabled": False}}, "membership was not tested (assess.membership.enabled is false)"),
        ({"membership": {"images": 50}}, "assess.membership.images 50 is less than the 2000 required for screening"),
    ],
)
def test_no_setting_screens_a_set(
    real: Cohort, small: Cohort, work: Path, changed: dict[str, dict[str, object]], message: str
) -> None:
    copies = {**CONFIG.copies.model_dump(), "kinds": CORE_KINDS}
    given = {**CONFIG.model_dump(), "copies": copies, "networks": ("filters",), "utility": {"enabled": False}}
    whole = AssessConfig.model_validate(given)
    found = assess(real, small, PREPROCESS, whole, work=work, hooks=GeneratorHooks(autoencoder))
    assert found.verdict == "screened", found.verdict_reasons
    assert "of each of 7 core kinds of planted copies" in found.verdict_reasons[0]
    assert "separates training patients from others with AUROC" in found.verdict_reasons[1]
    lax = AssessConfig.model_validate(
        {**given, **{part: {**given[part], **part_of} for part, part_of in changed.items()}}
    )
    found = assess(real, small, PREPROCESS, lax, work=work, hooks=GeneratorHooks(autoencoder))
    assert found.verdict == "inconclusive"
    assert [text for text in found.verdict_reasons if message in text]
    assert public_grids(found, real, small, PREPROCESS)[0] is None


def test_few_images_are_refused_not_scored(real: Cohort, tmp_path: Path) -> None:
    some, kinds = images(24, np.random.default_rng(0))
    cohort = write_synthetic(tmp_path / "few", some, kinds)
    found = assess(real, cohort, PREPROCESS, BARE, work=tmp_path / "work", hooks=GeneratorHooks(autoencoder))
    for name in ("frechet", "kernel", "recall"):
        refused = found.find(name, network="filters")
        assert refused.value is None
        assert "too few" in str(refused.refused) or "cannot support" in str(refused.refused)


def test_report_survives_a_round_trip_and_a_damaged_one_is_refused(report: QualityReport, tmp_path: Path) -> None:
    report.save(tmp_path / "report.json")
    assert QualityReport.load(tmp_path / "report.json") == report
    (tmp_path / "report.json").write_text('{"format_version": 1}')
    with pytest.raises(ArtifactError, match="not a quality report"):
        QualityReport.load(tmp_path / "report.json")


def test_what_cannot_be_compared_is_refused_in_one_line(real: Cohort, honest: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="spatial axes"):
        assess(real, honest, Preprocess(size=(16, 16, 16)), CONFIG, work=tmp_path)
    with CohortWriter(tmp_path / "empty", honest.schema) as _:
        pass
    with pytest.raises(InputError, match="holds no images"):
        assess(real, Cohort.open(tmp_path / "empty"), PREPROCESS, CONFIG, work=tmp_path)
    with pytest.raises(InputError, match="no test patients"):
        assess(honest, honest, PREPROCESS, CONFIG, work=tmp_path)
    cut = EvaluationData(real, honest, PREPROCESS, GeneratorHooks(lambda images: images[..., :-1]))
    with pytest.raises(InputError, match=r"images of shape \(4, 1, 32, 32\) came back with shape \(4, 1, 32, 31\)"):
        cut.rebuilt(cut.synthetic_images[:4])
    lone = CONFIG.model_copy(update={"networks": ("cross_fitted",)})
    with CohortWriter(tmp_path / "bare", CohortSchema()) as writer:
        for number in range(6):
            image = np.full((32, 32), number, np.uint8)
            split = ("train", "holdout", "val", "test", "test", "test")[number]
            writer.add(ImageRecord(image_id=str(number), patient=str(number), pixels=image, split=split))
    with pytest.raises(UnsupportedClaim, match="at least one known label"):
        assess(Cohort.open(tmp_path / "bare"), honest, PREPROCESS, lone, work=tmp_path)


def test_rounding_and_percentiles_never_tell_real_from_synthetic(tmp_path: Path) -> None:
    """A real cohort in percentiles, and the same network images stored by ``undo``, come back as the same pixels."""
    rng = np.random.default_rng(0)
    preprocess = Preprocess(size=(32, 32), intensity=Percentile())
    pixels = [(rng.random((40, 40)) ** 2 * 3000).astype(np.int16) for _ in range(6)]
    with CohortWriter(tmp_path / "real", CohortSchema()) as writer:
        for number, image in enumerate(pixels):
            writer.add(ImageRecord(image_id=str(number), patient=str(number), pixels=image, split="test"))
    with CohortWriter(tmp_path / "fake", CohortSchema(kind="synthetic")) as writer:
        for number, image in enumerate(pixels):
            copy = preprocess.undo(preprocess.apply(image))
            writer.add(ImageRecord(image_id=str(number), patient=str(number), pixels=copy, split="synthetic"))
    cohorts = [Cohort.open(tmp_path / name) for name in ("real", "fake")]
    data = EvaluationData(*cohorts, preprocess)
    assert data.images["test"] == pytest.approx(data.synthetic_images, abs=1e-6)


def test_multilabel_cohorts_get_auroc_beside_metadata(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real", 200, 1, exclusive=False)
    source = write_real(tmp_path / "source", 80, 2, exclusive=False)
    with CohortWriter(tmp_path / "fake", source.schema.model_copy(update={"kind": "synthetic"})) as writer:
        for record in source.records():
            writer.add(ImageRecord(record.image_id, record.image_id, record.pixels, "synthetic", labels=record.labels))
    config = CONFIG.model_copy(update={"networks": ("filters",), "copies": BARE_SEARCH})
    found = assess(real, Cohort.open(tmp_path / "fake"), PREPROCESS, config, work=tmp_path / "work")
    bright = {score.arm.kind: score.estimate for score in found.utility if score.estimate.label == "bright"}
    assert bright["metadata"].value == pytest.approx(1, abs=0.01)  # age was drawn from it
    assert bright["real"].value is not None
    assert bright["real"].value > 0.85
    assert found.agreement is not None
    assert found.agreement.per_label[1].value is not None
    assert found.agreement.per_label[1].value > 0.85
    assert not [e for e in found.estimates if e.name == "frechet_random_halves"]  # only where labels are matched


def test_its_configuration_and_its_report_need_no_torch() -> None:
    code = (
        "import sys, medphantom.quality.config, medphantom.quality.results.quality_report\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
