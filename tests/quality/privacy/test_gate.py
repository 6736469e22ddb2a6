"""The gate as a whole: honest sets are screened, copies fail, and what could not be found makes it inconclusive."""

from __future__ import annotations

import numpy as np
import pytest

from medphantom.core.records import Array
from medphantom.quality.config import CORE_KINDS, CopyConfig
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.privacy.gate import GateResult
from medphantom.quality.privacy.search import CopySearch, RealImages, screen
from medphantom.quality.results.quality_report import ControlKind
from tests.quality.privacy.textures import textures

SIDE = 48
CORE = CORE_KINDS
CONFIG = CopyConfig(repeats=40, kinds=CORE[:2], core=CORE[:2], controls=60, side=16)
FEW = CONFIG.model_copy(update={"kinds": CORE[:1], "controls": 10})  # where no kind needs to be covered
BARE = CONFIG.model_copy(update={"kinds": (), "core": (), "controls": 0})  # copies are searched for, none is planted
WHOLE = CONFIG.model_copy(update={"kinds": (*CORE, "patched"), "core": CORE})
TRAIN, HOLDOUT, MORE = 300, 100, 40


def numbered(prefix: str, total: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(total)]


@pytest.fixture(scope="module")
def real() -> RealImages:
    images = textures(TRAIN + HOLDOUT + MORE, (SIDE, SIDE), 0)
    train, holdout, more = np.split(images, [TRAIN, TRAIN + HOLDOUT])
    return RealImages(train, holdout, more, numbered("t", TRAIN), numbered("g", HOLDOUT))


def searched(real: RealImages, config: CopyConfig = CONFIG) -> CopySearch:
    network = filter_bank(100, "cpu").folds[0].network
    return CopySearch(real, config, network, np.random.default_rng(1))


@pytest.fixture(scope="module")
def search(real: RealImages) -> CopySearch:
    return searched(real)


@pytest.fixture(scope="module")
def bare_search(real: RealImages) -> CopySearch:
    return searched(real, BARE)


def degraded(images_NC: Array) -> Array:
    """What an autoencoder does to an image, roughly."""
    noise = np.random.default_rng(len(images_NC)).normal(0, 0.08, images_NC.shape).astype(np.float32)
    return np.clip(0.9 * images_NC + noise, -1, 1)


def gate_result(search: CopySearch, synthetic: Array, *, reconstructs: bool = True) -> GateResult:
    found = screen(search, synthetic, {"reconstructed": degraded} if reconstructs else {}).gate
    assert found.summary.total_flagged == found.flagged.sum()
    assert sorted(found.summary.flagged_rows) == np.flatnonzero(found.flagged).tolist()
    return found


def kinds_of(found: GateResult) -> dict[str, ControlKind]:
    return {control.kind: control for control in found.summary.controls}


@pytest.fixture(scope="module")
def honest() -> Array:
    return degraded(textures(120, (SIDE, SIDE), 5))


def test_an_honest_set_is_screened_by_a_search_that_finds_planted_copies(real: RealImages, honest: Array) -> None:
    found = gate_result(searched(real, WHOLE), honest)
    assert found.summary.verdict == "screened", found.summary.reasons
    assert found.summary.total_flagged <= 6
    share = found.summary.share_nearest_in_train[0]
    assert share.value == pytest.approx(0.5, abs=0.12)
    controls = kinds_of(found)
    assert list(controls) == list(WHOLE.kinds)
    assert all(controls[kind].covered for kind in CORE)
    recall = controls["mirrored"].recall
    assert recall is not None
    assert recall.n_synthetic == 60
    assert recall.interval is not None
    assert recall.interval[0] == pytest.approx(0.05 ** (1 / 60), abs=1e-6)
    assert controls["as it is"].fewest in {1, 2}


@pytest.mark.parametrize("copies", [2, 20])
def test_copies_fail_the_set_and_are_flagged(
    bare_search: CopySearch, real: RealImages, honest: Array, copies: int
) -> None:
    stolen = honest.copy()
    stolen[:copies] = degraded(real.train[::7][:copies])
    found = gate_result(bare_search, stolen)
    assert found.summary.verdict == "fail"
    assert found.flagged[:copies].all()
    assert found.flagged[copies:].mean() <= 0.04
    assert set(found.summary.flagged_rows[:copies]) == set(range(copies))
    assert "more similar to" in found.summary.reasons[0]


def test_a_set_with_a_high_dcr_share_fails_though_no_image_is_a_copy(bare_search: CopySearch, real: RealImages) -> None:
    blended = (0.3 * real.train[:150] + 0.7 * textures(150, (SIDE, SIDE), 6)).astype(np.float32)
    found = gate_result(bare_search, blended)
    assert found.summary.verdict == "fail"
    assert any("closer to training" in reason for reason in found.summary.reasons)
    share = found.summary.share_nearest_in_train[0]
    assert share.value is not None
    assert share.value > 0.6


def test_what_cannot_be_planted_or_found_is_inconclusive(real: RealImages, search: CopySearch, honest: Array) -> None:
    without = gate_result(search, honest[:60], reconstructs=False)
    assert without.summary.verdict == "inconclusive"
    unplanted = ("reconstructed", *CORE[2:])
    assert [reason for reason in without.summary.reasons if "could be planted" in reason] == [
        f"no copy of the kind '{kind}' could be planted, so the sensitivity for this kind is unknown"
        for kind in CORE
        if kind in unplanted
    ]
    assert "reconstructed" in without.summary.not_covered
    few = gate_result(searched(real, FEW.model_copy(update={"controls": 30})), honest[:60])
    assert few.summary.verdict == "inconclusive"
    assert (
        "the recall of 30 planted copies of the kind 'as it is' is 1.00 (lower bound 0.905, required 0.95)"
        in few.summary.reasons
    )
    small = gate_result(searched(real, BARE), honest[:40])
    assert small.summary.verdict == "inconclusive"
    assert small.summary.results[0].single_p_value is None
    assert small.summary.reasons == ("40 images are too few for a test of single images; at least 50 are required",)


def test_a_set_that_is_odd_as_a_whole_is_not_accused(bare_search: CopySearch, honest: Array) -> None:
    """The same few real images are nearest to the whole set, which must not count as hundreds of copies."""
    rng = np.random.default_rng(2)
    noisy = np.clip(honest + rng.normal(0, 0.3, honest.shape), -1, 1).astype(np.float32)
    ramp = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    for odd in (noisy, np.clip(0.5 * honest + ramp, -1, 1), 0.4 * honest + 0.6 * honest[:1]):
        assert gate_result(bare_search, odd).summary.verdict != "fail"


def test_copies_found_outweigh_controls_that_were_missed(real: RealImages, honest: Array) -> None:
    stolen = honest.copy()
    stolen[:10] = real.train[:10]
    found = gate_result(searched(real, FEW), stolen, reconstructs=False)
    assert found.summary.verdict == "fail"
    assert len(found.summary.reasons) > 1


def test_a_control_that_the_search_misses_is_not_covered(real: RealImages, honest: Array) -> None:
    config = WHOLE.model_copy(update={"mirror": False, "kinds": ("mirrored",)})
    found = gate_result(searched(real, config), honest[:60])
    mirrored = kinds_of(found)["mirrored"]
    assert not mirrored.covered
    assert mirrored.recall is not None
    assert mirrored.recall.value is not None
    assert mirrored.recall.value < 0.3
    assert found.summary.verdict == "inconclusive"


def test_a_kind_that_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="'rotated' is no kind of copy; there are as it is, reconstructed"):
        CopyConfig(core=("rotated",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core": ()}, "no copy of the kind 'scaled' could be planted"),
        ({"controls": 0}, "no copy of the kind 'as it is' could be planted"),
        ({"least_recall": 0.1}, r"assess.copies.least_recall 0.1 is more lenient than 0.95"),
        ({"significance": 1e-9}, r"assess.copies.significance 1e-09 is more lenient than 0.02"),
    ],
)
def test_no_setting_buys_a_screened_set(
    real: RealImages, honest: Array, changes: dict[str, object], message: str
) -> None:
    found = gate_result(searched(real, FEW.model_copy(update=changes)), honest[:60]).summary
    assert found.verdict == "inconclusive"
    assert any(message in reason for reason in found.reasons)
