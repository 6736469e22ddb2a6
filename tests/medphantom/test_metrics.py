from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torchmetrics import MetricCollection

import medphantom as mp
from medphantom import metrics
from medphantom.cohorts.preprocess import Percentile, Preprocess
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generation import Generator
from medphantom.quality.fidelity.diversity import diversity
from medphantom.quality.fidelity.frechet import frechet_distance, frechet_interval
from medphantom.quality.fidelity.half_samples import Standardised
from medphantom.quality.fidelity.kernel import kernel_distance
from medphantom.quality.fidelity.manifold import manifold_scores
from medphantom.quality.fidelity.vendi import vendi_score
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.networks.radiomics import Radiomics
from medphantom.quality.privacy.dcr_share import draw_subsets, share_in_train
from medphantom.quality.privacy.neighbours import FeatureMatcher

TOTAL, WIDTH = 120, 8
PATIENTS = [f"Pätient {number // 2:03d}" for number in range(TOTAL)]


@pytest.fixture(scope="module")
def features() -> tuple[Array, Array]:
    """Of real and of synthetic images, float32 as networks give them."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((WIDTH, WIDTH))
    real = rng.standard_normal((TOTAL, WIDTH)) @ mix
    synthetic = rng.standard_normal((TOTAL + 20, WIDTH)) @ mix * 1.2 + 0.3
    return real.astype(np.float32), synthetic.astype(np.float32)


@pytest.fixture(scope="module")
def images() -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    smooth = rng.uniform(-1, 1, (130, 1, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
    noisy = (smooth + rng.normal(0, 0.1, smooth.shape)).clip(-1, 1).astype(np.float32)
    return noisy[:65], noisy[65:]


def filled(metric: Any, real: Any, synthetic: Any, patients: Sequence[str] | None = None, step: int = 50) -> Any:
    """A metric that was given everything, batch by batch."""
    for start in range(0, len(real), step):
        names = None if patients is None else patients[start : start + step]
        metric.update(real[start : start + step], real=True, patients=names)
    for start in range(0, len(synthetic), step):
        metric.update(torch.as_tensor(synthetic[start : start + step]), real=False)
    return metric


# ---- the same numbers as the functions ----


def test_frechet_is_the_function_and_the_textbook_formula(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    value = filled(mp.metrics.FrechetDistance(), real, synthetic).compute()
    assert (value.dtype, value.shape) == (torch.float64, ())
    assert float(value) == frechet_distance(synthetic, real)
    wide = [side.astype(np.float64) for side in features]
    covariances = [np.cov(side, rowvar=False) for side in wide]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = ((wide[0].mean(0) - wide[1].mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_frechet_has_the_interval_of_its_patients(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    own = [str(number) for number in range(len(synthetic))]
    rng = np.random.default_rng(derive_seed(3, "halves"))
    expected = frechet_interval(synthetic, real, own, PATIENTS, rng=rng)
    assert filled(metrics.FrechetDistance(), real, synthetic, PATIENTS).interval(seed=3) == expected


def test_kernel_is_the_function_and_knows_patients(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    alone = filled(metrics.KernelDistance(), real, synthetic)
    grouped = filled(metrics.KernelDistance(), real, synthetic, PATIENTS)
    assert float(alone.compute()) == kernel_distance(synthetic, real).value
    assert float(grouped.compute()) == kernel_distance(synthetic, real, None, PATIENTS).value
    assert float(alone.compute()) != float(grouped.compute())
    value, (low, high) = grouped.interval()
    assert value == float(grouped.compute())
    assert low < value < high
    longer = filled(metrics.KernelDistance(), real, synthetic, [name * 20 for name in PATIENTS])
    assert float(longer.compute()) == pytest.approx(value, rel=1e-9)


def test_neighbourhoods_are_those_of_the_function(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    expected = manifold_scores(real, synthetic, k=4, k_density=6)._asdict()
    found = filled(metrics.PRDC(k=4, k_density=6), real, synthetic).compute()
    assert {name: float(value) for name, value in found.items()} == expected
    one_each = [metrics.Precision, metrics.Recall, metrics.Density, metrics.Coverage]
    for kind in one_each:
        assert float(filled(kind(k=4, k_density=6), real, synthetic).compute()) == expected[kind.__name__.lower()]
    assert len(set(expected.values())) == len(one_each)


def test_vendi_is_the_function_with_or_without_real_images(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    score = metrics.VendiScore()
    score.update(synthetic, real=False)
    assert float(score.compute()) == vendi_score(synthetic)
    score.update(real, real=True)
    assert float(score.compute()) == vendi_score(Standardised.by(real, synthetic))


def test_diversity_is_that_of_a_report(images: tuple[Array, Array]) -> None:
    real, synthetic = images
    patients = [f"p{number // 2}" for number in range(len(real))]
    score = filled(metrics.MSSSIMDiversity(pairs=15, seed=4), real, synthetic, patients)
    rng = np.random.default_rng(derive_seed(4, "pairs"))
    expected = diversity(synthetic, real, np.asarray(patients), pairs=15, rng=rng)
    assert float(score.compute()) == expected.value
    assert score.estimate() == expected
    assert expected.floor is not None


def test_the_dcr_share_is_the_function(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    train, holdout, names = real[:80], real[80:], (PATIENTS[:80], PATIENTS[80:])
    share = metrics.DcrShare(repeats=30, seed=2)
    for side, split, patients in ((train, "train", names[0]), (holdout, "holdout", names[1])):
        share.update(side[:25], split, patients[:25])  # type: ignore[arg-type]
        share.update(side[25:], split, patients[25:])  # type: ignore[arg-type]
    share.update(synthetic, split="synthetic")
    subsets = draw_subsets(*names, 30, np.random.default_rng(derive_seed(2, "copies")))
    matcher = FeatureMatcher(train, holdout[subsets.holdout], subsets)
    found = matcher.find(synthetic + (matcher.center - synthetic.mean(axis=0)))
    expected = share_in_train(found.wins, found.pseudo_wins, size=subsets.size, what="by cosine of features")
    assert float(share.compute()) == expected.share.value
    assert share.share() == expected
    nearest = metrics.NearestNeighbourSimilarity(repeats=30, seed=2)
    for split, side, patients in (("train", train, names[0]), ("holdout", holdout, names[1])):
        nearest.update(side, split, patients)  # type: ignore[arg-type]
    nearest.update(synthetic, "synthetic")
    assert np.array_equal(nearest.compute().numpy(), found.train_score.astype(np.float64))


# ---- networks ----


def test_named_networks_are_those_of_a_report(images: tuple[Array, Array]) -> None:
    real, synthetic = images
    filters = filter_bank(0, "cpu").folds[0].network
    value = filled(metrics.KernelDistance("filters"), real, synthetic).compute()
    expected = kernel_distance(filters.features(synthetic), filters.features(real)).value
    assert float(value) == pytest.approx(expected, rel=1e-9)
    assert float(filled(metrics.KernelDistance(filters), real, synthetic).compute()) == float(value)
    scaled = Radiomics(real[:30])
    value = filled(metrics.KernelDistance("radiomics", reference=real[:30]), real[30:], synthetic).compute()
    assert float(value) == kernel_distance(scaled.features(synthetic), scaled.features(real[30:])).value


def test_modules_and_functions_extract_features(images: tuple[Array, Array]) -> None:
    real, synthetic = images
    module = nn.Sequential(nn.AvgPool2d(8), nn.Flatten()).double()
    expected = kernel_distance(
        *(side.reshape(65, 2, 8, 2, 8).mean((2, 4)).reshape(65, 4) for side in (synthetic, real))
    )
    for extractor in (module, lambda given: module(given).numpy()):
        value = filled(metrics.KernelDistance(extractor), real, synthetic).compute()
        assert float(value) == pytest.approx(expected.value, rel=1e-5)


def test_source_values_are_put_as_networks_take_them(generator: Generator) -> None:
    made = generator(labels={"bright": True}, n=30, sampler={"steps": 2, "device": "cpu"})
    others = generator(labels={"dark": True}, n=30, sampler={"steps": 2, "device": "cpu"})
    by_source = metrics.KernelDistance("filters", preprocess=generator.preprocess)
    by_source.update(list(others.images), real=True)
    by_source.update(made.images, real=False)
    by_object = metrics.KernelDistance("filters")
    by_object.update(others, real=True)
    by_object.update(made, real=False)
    by_network = filled(metrics.KernelDistance("filters"), others.network, made.network)
    assert float(by_source.compute()) == float(by_object.compute()) == pytest.approx(float(by_network.compute()))
    eight_bits = metrics.KernelDistance("filters")
    eight_bits.update(np.rint(others.images).astype(np.uint8)[:, None], real=True)
    eight_bits.update(np.rint(made.images).astype(np.uint8)[:, None], real=False)
    assert float(eight_bits.compute()) == pytest.approx(float(by_network.compute()), rel=0.1)


def test_colour_is_seen_where_the_last_axis_has_three_channels() -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    preprocess = Preprocess(size=(16, 16), channels=3)
    metric = metrics.KernelDistance(lambda seen: seen.flatten(1)[:, :6].double(), preprocess=preprocess)
    metric.update(colour, real=True)
    assert np.allclose(metric.real_kept[0].numpy(), colour[:, 0, :6, 0] / 127.5 - 1, atol=1e-6)
    assert isinstance(Preprocess(size=(16, 16), intensity=Percentile()).intensity, Percentile)


# ---- what is refused ----


def test_scores_that_n_cannot_support_name_the_one_to_use(features: tuple[Array, Array], images: Any) -> None:
    real, synthetic = features
    few = real[:49], synthetic[:60]
    with pytest.raises(UnsupportedClaim, match=r"49 images cannot support .* \(≥ 50\); use KernelDistance"):
        filled(metrics.FrechetDistance(), *few).compute()
    with pytest.raises(UnsupportedClaim, match=r"49 images cannot support .*; use KernelDistance"):
        filled(metrics.FrechetDistance(), *few).interval()
    for kind in (metrics.PRDC, metrics.Coverage, metrics.VendiScore):
        with pytest.raises(UnsupportedClaim, match=r"49 images are too few for neighbourhoods .*; use KernelDistance"):
            filled(kind(), *few).compute()
    with pytest.raises(UnsupportedClaim, match=r"24 images are too few \(≥ 25\); inspect the images"):
        filled(metrics.KernelDistance(), real, synthetic[:24]).compute()
    with pytest.raises(UnsupportedClaim, match="needs images of 3 patients a side, got 1"):
        filled(metrics.KernelDistance(), real, synthetic, ["one"] * TOTAL).compute()
    with pytest.raises(UnsupportedClaim, match=r"9 independent pairs are too few .*; use Recall and Coverage"):
        filled(metrics.MSSSIMDiversity(), images[0], images[1][:18]).compute()
    small = np.zeros((40, 1, 8, 8), np.float32)
    with pytest.raises(UnsupportedClaim, match="images of 8 pixels are too small"):
        filled(metrics.MSSSIMDiversity(), small, small).compute()
    share = metrics.DcrShare()
    for split, total in (("train", 80), ("holdout", 19), ("synthetic", 80)):
        share.update(real[:total], split)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedClaim, match=r"80 training and 19 holdout images are too few \(≥ 40 and ≥ 20\)"):
        share.compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_an_empty_side_and_a_dominated_one_are_refused(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    with pytest.raises(UnsupportedClaim, match="no synthetic image was given"):
        metrics.FrechetDistance().compute()
    metric = metrics.KernelDistance()
    metric.update(synthetic, real=False)
    with pytest.raises(UnsupportedClaim, match="no real image was given"):
        metric.compute()
    broken = real.copy()
    broken[0] *= 1000
    for kind in (metrics.FrechetDistance, metrics.KernelDistance, metrics.PRDC, metrics.VendiScore):
        with pytest.raises(UnsupportedClaim, match=r"6 of 120 real images account for 0\.99 of the variance"):
            filled(kind(), broken, synthetic).compute()


def test_wrong_input_is_refused_at_once(features: tuple[Array, Array], images: tuple[Array, Array]) -> None:
    real, _ = features
    with pytest.raises(InputError, match="give the metric a feature_extractor for images"):
        metrics.FrechetDistance().update(images[0], real=True)
    with pytest.raises(InputError, match="real must be true or false, got str"):
        metrics.FrechetDistance().update(real, real="no")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="patients must be a list, got str"):
        metrics.FrechetDistance().update(real[:4], real=True, patients="abcd")
    with pytest.raises(InputError, match="images cannot be read as numbers; give an array"):
        metrics.FrechetDistance().update("x", real=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="feature_extractor must be a function, a module or a name, got int"):
        metrics.FrechetDistance(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="preprocess must be a Preprocess, got str"):
        metrics.MSSSIMDiversity("nope")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="features are not finite"):
        metrics.FrechetDistance().update(real * np.nan, real=True)
    with pytest.raises(InputError, match="2 patients were given for 120 images"):
        metrics.FrechetDistance().update(real, real=True, patients=["a", "b"])
    with pytest.raises(InputError, match="rows of 4 features were given after rows of 8 features; give"):
        filled(metrics.FrechetDistance(), real, real[:, :4])
    with pytest.raises(InputError, match=r"images must be uint8, or floats in -1…1; scale them"):
        metrics.FrechetDistance("filters").update(images[0] * 255, real=True)
    with pytest.raises(InputError, match=r"must have shape \(N, C, \*spatial\), got \(65, 16, 16\); or give"):
        metrics.FrechetDistance("filters").update(images[0][:, 0], real=True)
    with pytest.raises(InputError, match="there is no feature network 'filter'; did you mean 'filters'"):
        metrics.FrechetDistance("filter")
    with pytest.raises(InputError, match="radiomics, and no other network, needs a reference"):
        metrics.FrechetDistance("radiomics")
    with pytest.raises(InputError, match="radiomics, and no other network, needs a reference"):
        metrics.FrechetDistance(reference=images[0])
    with pytest.raises(UnsupportedClaim, match="5 are too few"):
        metrics.FrechetDistance("radiomics", reference=images[0][:5])
    with pytest.raises(InputError, match="the feature extractor gave 1 rows for 65 images"):
        metrics.FrechetDistance(lambda given: given.mean(0, keepdim=True).flatten(1)).update(images[0], real=True)
    with pytest.raises(InputError, match="there is no side 'test'; known: holdout, synthetic, train"):
        metrics.DcrShare().update(real, split="test")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(metrics.__all__) - {"MSSSIMDiversity"}))
def test_rows_of_another_width_are_refused_when_they_are_given(features: tuple[Array, Array], name: str) -> None:
    real, _ = features
    metric = getattr(metrics, name)()
    split = name in {"DcrShare", "NearestNeighbourSimilarity"}
    side: dict[str, Any] = {"split": "train"} if split else {"real": True}
    metric.update(real, **side)
    for other in ({"split": "synthetic"} if split else {"real": False}, side):
        with pytest.raises(InputError, match="rows of 4 features were given after rows of 8 features; give"):
            metric.update(real[:, :4], **other)
    metric.reset()
    metric.update(real[:, :4], **side)


def test_images_of_another_size_are_refused_when_they_are_given(images: tuple[Array, Array]) -> None:
    metric = metrics.MSSSIMDiversity()
    metric.update(images[0], real=True)
    with pytest.raises(InputError, match=r"images of 1×8×16 were given after images of 1×16×16; give"):
        metric.update(images[1][:, :, :8], real=False)


# ---- as torchmetrics knows them ----


def test_parts_merge_to_the_whole(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    first = filled(metrics.KernelDistance(), real[:60], synthetic[:70], PATIENTS[:60])
    first.merge_state(filled(metrics.KernelDistance(), real[60:], synthetic[70:], PATIENTS[60:]))
    whole = filled(metrics.KernelDistance(), real, synthetic, PATIENTS)
    assert float(first.compute()) == pytest.approx(float(whole.compute()), rel=1e-9)
    copied = pickle.loads(pickle.dumps(whole))  # noqa: S301 - our own object
    assert float(copied.compute()) == float(whole.compute())


SYNCED = """
import sys
import numpy as np
import torch.distributed as dist
from medphantom import metrics

place, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=place, world_size=2)
data = np.load(f"{folder}/features.npz")
names = [f"p{number // 2}" for number in range(len(data["real"]))]
metric = metrics.KernelDistance()
metric.update(data["real"][place::2], real=True, patients=names[place::2])
if place:
    metric.update(data["synthetic"], real=False)
print(float(metric.compute()), metric.interval()[0])
"""


@pytest.mark.slow
def test_processes_share_what_they_were_given(features: tuple[Array, Array], tmp_path: Path) -> None:
    """Two processes have half of the real images each, so that every patient is in both; one has all synthetic ones."""
    real, synthetic = features
    np.savez(tmp_path / "features.npz", real=real, synthetic=synthetic)
    commands = [[sys.executable, "-c", SYNCED, str(place), str(tmp_path)] for place in (0, 1)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    output = [process.communicate(timeout=300)[0] for process in running]
    expected = kernel_distance(synthetic, real, None, [f"p{number // 2}" for number in range(len(real))]).value
    for line in output:
        assert [float(word) for word in line.split()[-2:]] == pytest.approx([expected] * 2, rel=1e-9)


def test_reset_forgets_all_or_keeps_the_real_images(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    metric = filled(metrics.FrechetDistance(reset_real_features=False), real, synthetic[:60])
    metric.reset()
    metric.update(synthetic, real=False)
    assert float(metric.compute()) == frechet_distance(synthetic, real)
    forgetful = filled(metrics.FrechetDistance(), real, synthetic)
    forgetful.reset()
    forgetful.update(synthetic, real=False)
    with pytest.raises(UnsupportedClaim, match="no real image was given"):
        forgetful.compute()


def test_an_array_may_be_filled_again(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    metric, buffer = metrics.KernelDistance(), np.empty((20, WIDTH), np.float32)
    for side, is_real in ((real, True), (synthetic, False)):
        for start in range(0, len(side), 20):
            buffer[:] = side[start : start + 20]
            metric.update(buffer, real=is_real)
    assert float(metric.compute()) == kernel_distance(synthetic, real).value


def test_a_collection_shares_updates(features: tuple[Array, Array]) -> None:
    real, synthetic = features
    both = MetricCollection([metrics.FrechetDistance(), metrics.KernelDistance(), metrics.PRDC()])
    both.update(torch.from_numpy(real), real=True)
    both.update(torch.from_numpy(synthetic), real=False)
    found = both.compute()
    assert float(found["FrechetDistance"]) == frechet_distance(synthetic, real)
    assert float(found["KernelDistance"]) == kernel_distance(synthetic, real).value
    assert {"precision", "recall", "density", "coverage"} <= found.keys()
