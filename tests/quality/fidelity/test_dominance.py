"""Features that a few images dominate are distinguished from honest ones, and no score of them is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from medphantom.core.records import Array
from medphantom.quality.fidelity.dominance import LARGEST_SHARE, dominance_refusal, dominant_share
from medphantom.quality.fidelity.scores import ImageSets, Shown, estimates_of, score_run
from medphantom.quality.networks.features import ModuleNetwork, everything
from medphantom.quality.networks.fixed_networks import filter_bank, radiomics
from tests.quality.scenes import images


def test_a_twentieth_of_normal_features_carries_what_the_normal_law_says() -> None:
    rng = np.random.default_rng(0)
    cut = stats.norm.ppf(0.975)
    one = 2 * (cut * stats.norm.pdf(cut) + stats.norm.sf(cut))  # second moment beyond both 2.5 % points
    assert dominant_share(rng.standard_normal((100_000, 1))) == pytest.approx(one, abs=0.01)
    assert dominant_share(rng.standard_normal((2_000, 500))) == pytest.approx(0.05, abs=0.01)
    assert dominant_share(np.ones((30, 4))) == 0
    few = np.zeros((100, 3))
    few[:2] = 1000
    assert dominant_share(few) > 0.9


class Bursting(torch.nn.Module):
    """Means over eight rows; of a few images, marked by one grey value, a thousand times as large."""

    def forward(self, images_NC: torch.Tensor) -> torch.Tensor:
        rows = images_NC.mean(dim=(1, 3)).unflatten(1, (8, -1)).mean(dim=2)
        return torch.where(images_NC[:, 0, 0, :1] == 1, 1000 * rows, rows)


@pytest.mark.parametrize("bursting", [True, False])
def test_no_score_is_given_where_a_few_real_images_dominate(tmp_path: Path, bursting: bool) -> None:
    some = images(240, np.random.default_rng(1))[0].clip(-0.9, 0.9)
    test, synthetic = some[:120], some[120:]
    if bursting:
        test[[3, 50, 90], 0, 0, 0] = 1
    sets = ImageSets(
        test=test, synthetic=synthetic, reconstruction=test, patients=[f"p{row}" for row in range(120)],
        test_class=None, synthetic_class=None, shown=(Shown("even", np.arange(120) % 2 == 0, np.arange(120) % 2 == 0),),
    )  # fmt: skip
    run = everything(ModuleNetwork("bursting", "0" * 64, 8, Bursting(), "cpu"), 120, "nothing", None)
    found = score_run(run, sets, draws=2, rng=np.random.default_rng(0), work=tmp_path)
    estimates = {estimate.name: estimate for estimate in estimates_of([found], per_seed=False)}
    assert {"frechet", "kernel", "precision", "recall"} <= set(estimates)
    if not bursting:
        assert estimates["frechet"].refused is None
        return
    for estimate in estimates.values():
        assert estimate.value is None
        assert "6 of 120 real images account for " in str(estimate.refused)
        assert "exclude them if they are blank or corrupt, or choose another network" in str(estimate.refused)
        assert "\n" not in str(estimate.refused)


@pytest.mark.real_data
@pytest.mark.parametrize(("where", "side"), [("nih_chest_xray_256", 64), ("mednist_64", 64), ("malaria_cells_50", 48)])
def test_networks_on_real_images_stay_well_below_the_limit(real_data: Path, where: str, side: int) -> None:
    paths = sorted(path for path in (real_data / where).rglob("*") if path.suffix in {".png", ".jpeg", ".jpg"})
    chosen = [paths[row] for row in np.random.default_rng(0).permutation(len(paths))[:400]]
    some = np.stack([_read(path, side) for path in chosen])[:, None]
    for run in (filter_bank(200, "cpu"), radiomics(some[:200], 200)):
        features = run.folds[0].network.features(some[200:])
        assert dominant_share(features) < 0.6 * LARGEST_SHARE
        assert dominance_refusal(features) is None


def _read(path: Path, side: int) -> Array:
    grey = Image.open(path).convert("L").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(grey, dtype=np.float32) / 127.5 - 1
