"""Real images held out as pseudo-synthetic ones: an honest set must score like the floor, a spoiled one must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medphantom.cohorts.identity import IdentityKey, SplitFractions
from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.core.records import Array
from medphantom.quality.assessment.assess import assess
from medphantom.quality.config import CORE_KINDS, AssessConfig, ClassifierConfig, CopyConfig, UtilityConfig
from medphantom.quality.data.evaluation_data import EvaluationData, GeneratorHooks
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.privacy.search import CopySearch, RealImages, screen
from medphantom.quality.results.quality_report import QualityReport

KINDS = ("as it is", "reconstructed")
PREPROCESS = Preprocess(size=(64, 64))
SCREEN = AssessConfig(
    networks=("filters",),
    draws=10,
    classifier=ClassifierConfig(steps=100),
    utility=UtilityConfig(enabled=False),
    copies=CopyConfig(repeats=30, kinds=KINDS, core=KINDS),
)


def softened(images_NC: Array) -> Array:
    """A slight blur, as an autoencoder leaves it: 3 x 3 with most weight in the middle."""
    padded = np.pad(images_NC, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    sides = sum(padded[..., i : i + 64, j : j + 64] for i, j in ((0, 1), (1, 0), (1, 2), (2, 1)))
    return (0.7 * images_NC + 0.075 * sides).astype(np.float32)


class Halves:
    """Three quarters of the images as real cohort, the rest as pseudo-synthetic ones."""

    def __init__(self, source: Path, folder: Path, per_class: int) -> None:
        names = tuple(sorted(path.name for path in source.iterdir() if path.is_dir()))
        key, self.folder = IdentityKey.from_phrase("mednist halves"), folder
        self.schema = CohortSchema(labels=names, exclusive=True, patients="per_image")
        held_out: list[Array] = []
        self.classes: list[str] = []
        with CohortWriter(folder / "real", self.schema) as writer:
            for label in names:
                for number, path in enumerate(sorted((source / label).iterdir())[:per_class]):
                    pixels = np.asarray(Image.open(path).convert("L"))
                    if number % 4 == 0:
                        held_out.append(pixels)
                        self.classes.append(label)
                        continue
                    patient = key.pseudonym("patient", f"{label}/{path.name}")
                    split = key.split(patient, SplitFractions())
                    labels: dict[str, bool | None] = {name: name == label for name in names}
                    writer.add(ImageRecord(patient, patient, pixels, split, labels=labels))
        self.real = Cohort.open(folder / "real")
        self.held_out = np.stack(held_out)[:, None].astype(np.float32) / 127.5 - 1

    def synthetic(self, name: str, images_NC: Array) -> Cohort:
        with CohortWriter(self.folder / name, self.schema.model_copy(update={"kind": "synthetic"})) as writer:
            for number, (image, label) in enumerate(zip(images_NC, self.classes, strict=True)):
                pixels = np.rint((image[0] + 1) * 127.5).clip(0, 255).astype(np.uint8)
                labels: dict[str, bool | None] = {each: each == label for each in self.schema.labels}
                facts = Provenance("0" * 64, "{}", number)
                name_ = f"s{number:05d}"
                writer.add(ImageRecord(name_, name_, pixels, "synthetic", labels=labels, provenance=facts))
        return Cohort.open(self.folder / name)


def value(report: QualityReport, name: str, network: str) -> float:
    found = report.find(name, network=network)
    assert found.value is not None, found.refused
    return found.value


@pytest.fixture(scope="module")
def halves(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return Halves(real_data / "mednist_64", tmp_path_factory.mktemp("mednist"), 200)


@pytest.mark.slow
@pytest.mark.real_data
def test_held_out_images_score_like_the_floor_and_are_not_called_copies(real_data: Path, tmp_path: Path) -> None:
    halves = Halves(real_data / "mednist_64", tmp_path / "mednist", 400)
    honest = halves.synthetic("honest", halves.held_out)
    found = assess(halves.real, honest, PREPROCESS, SCREEN, work=tmp_path, hooks=GeneratorHooks(lambda images: images))
    low, high = found.find("frechet_over_floor", network="filters").interval or (0.0, 0.0)
    assert low < 1 < high < 4
    low, high = found.find("frechet_infinite", network="filters").interval or (0.0, 0.0)
    assert low < 0 < high
    for name in ("precision", "recall", "density", "coverage"):
        assert value(found, name, "filters") == pytest.approx(found.find(name, network="filters").floor, rel=0.1)
    unplanted = [kind for kind in CORE_KINDS if kind not in KINDS]
    assert found.verdict == "inconclusive"  # by the core kinds that were not planted, and by nothing else
    assert [text.split("'")[1] for text in found.verdict_reasons] == unplanted, found.verdict_reasons
    assert found.agreement is not None
    assert found.agreement.per_label[0].interval is not None
    assert found.agreement.per_label[0].interval[0] > 0.95
    soft = halves.synthetic("soft", softened(halves.held_out))
    blurred = assess(halves.real, soft, PREPROCESS, SCREEN, work=tmp_path, hooks=GeneratorHooks(softened))
    assert value(blurred, "frechet", "filters") > 1.2 * value(found, "frechet", "filters")
    assert 0.7 < value(blurred, "frechet_over_reconstruction", "filters") < 1.4


@pytest.mark.slow
@pytest.mark.real_data
def test_softened_training_images_among_held_out_ones_are_found(halves: Halves) -> None:
    images, rng = EvaluationData(halves.real, halves.real, PREPROCESS).images, np.random.default_rng(0)
    patients = [[str(number) for number in range(len(images[split]))] for split in ("train", "holdout")]
    real = RealImages(images["train"], images["holdout"], images["val"], *patients)
    network = filter_bank(len(images["test"]), "cpu").folds[0].network
    planting_none = SCREEN.copies.model_copy(update={"kinds": (), "controls": 0})
    search = CopySearch(real, planting_none, network, rng)
    stolen = softened(halves.held_out)
    stolen[:40] = softened(images["train"][rng.permutation(len(images["train"]))[:40]])
    found = screen(search, stolen, {}).gate
    assert found.summary.verdict == "fail"
    assert found.flagged[:40].mean() > 0.75
    assert found.flagged[40:].mean() < 0.05


@pytest.mark.real_data
@pytest.mark.slow
def test_all_scores_of_held_out_images_at_full_size(real_data: Path, tmp_path: Path) -> None:
    halves = Halves(real_data / "mednist_64", tmp_path, 800)
    honest = halves.synthetic("honest", halves.held_out)
    config = AssessConfig()
    found = assess(
        halves.real, honest, PREPROCESS, config, work=tmp_path / "work", hooks=GeneratorHooks(lambda images: images)
    )
    ratio = found.find("frechet_over_floor", network="cross_fitted")
    assert ratio.value is not None
    assert ratio.interval is not None
    assert 0.6 < ratio.interval[0] <= ratio.value <= ratio.interval[1] < 1.6
    assert {facts.held_out_measure for facts in found.networks if facts.name == "cross_fitted"} == {"accuracy"}
    assert all((facts.held_out_score or 1) > 0.97 for facts in found.networks)
    trained = {s.arm.kind: s.estimate.value for s in found.utility if s.estimate.label is None}
    assert trained["synthetic"] == pytest.approx(trained["real"], abs=0.02)
    assert found.verdict == "screened", found.verdict_reasons
