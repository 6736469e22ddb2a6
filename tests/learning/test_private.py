"""Private fits: what a unit can move, what is noised, what is recorded, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medphantom.core.errors import InputError
from medphantom.core.randomness import secret_numbers
from medphantom.learning.batches import TensorBatches
from medphantom.learning.fit import fit
from medphantom.learning.private_config import PrivateFitConfig
from medphantom.learning.private_steps import Private
from tests.learning.private_tiny import UNITS, Rows, convolutional, data, fitted, gradient, steps_of
from tests.learning.tiny import Regression, settings

# ---- what one unit can do ----


@pytest.mark.parametrize("ways", ["passes", "hooks"])
@pytest.mark.parametrize("loud", [None, 5])
def test_one_unit_moves_the_clipped_sum_by_at_most_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: str, loud: int | None
) -> None:
    """However many rows it has and however wrong they are; and the others' gradients stay exactly as they were."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "7" * 64)
    bound = 0.3
    common = {"gradients": ways, "clip_norm": bound, "loud": loud}
    everybody = gradient(steps_of(tmp_path / "with", UNITS, **common))
    without = gradient(steps_of(tmp_path / "without", UNITS[:-2], **common))
    moved = float((everybody - without).norm())
    assert moved <= bound * (1 + 1e-5)
    assert moved > (0.99 * bound if loud else 0)


@pytest.mark.parametrize("ways", ["passes", "hooks"])
def test_a_gradient_that_overflows_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ways: str
) -> None:
    """No clipping bounds what is not a number; everybody else's step goes on as if that unit were not there."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "7" * 64)
    found = []
    for name, units in (("with", UNITS), ("without", UNITS[:-2])):
        steps = steps_of(tmp_path / name, units, gradients=ways)
        if name == "with":
            content = steps.batches.rows(torch.arange(10))
            content["y"][8:] = float("inf")
            steps.batches = TensorBatches(content)
        found.append(gradient(steps))
    torch.testing.assert_close(found[0], found[1])


def test_numbers_that_protect_come_from_more_than_32_bits_of_the_key() -> None:
    """torch's CPU generator reads 32 bits of a seed: few enough to try them all against a published gradient."""
    streams = [secret_numbers(key, "noise", 0).standard_normal(4).tolist() for key in ("a" * 64, "b" + "a" * 63)]
    assert streams[0] != streams[1]
    assert secret_numbers("a" * 64, "noise", 0).bit_generator.state["state"]["key"].tolist()[1] > 2**32


def test_a_units_looks_are_averaged_before_they_are_clipped(tmp_path: Path) -> None:
    """Sixteen looks at one unit weigh no more than one: the sum over looks may not be what is clipped."""
    steps = steps_of(tmp_path, [0, 0, 0], draws=16, clip_norm=0.01, loud=0)
    assert float(gradient(steps).norm()) == pytest.approx(0.01, rel=1e-3)


def test_without_clipping_the_sum_is_that_of_the_units_mean_gradients(tmp_path: Path) -> None:
    """A unit of three rows, looked at three times, has the mean gradient of its rows."""
    learner = Rows(convolutional())
    steps = steps_of(tmp_path, learner=learner, draws=6, clip_norm=1e9)
    found = gradient(steps)
    batches, units = data(UNITS)
    total = torch.zeros_like(found)
    for rows in units.rows():
        learner.network.zero_grad()
        learner.row_losses(batches.rows(rows)).mean().backward()
        total += torch.cat([p.grad.flatten() for p in steps.parameters]).double()
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)


class Unused(nn.Module):
    """A table without rows, as encoders of cohorts without numbers have one, beside layers that learn."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.table = convolutional(), nn.Embedding(0, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)
        return found + self.table(torch.zeros(len(x), 0, dtype=torch.int64)).sum()


@pytest.mark.parametrize("draws", [1, 2])
def test_a_table_without_rows_is_no_obstacle(tmp_path: Path, draws: int) -> None:
    steps = steps_of(tmp_path, learner=Rows(Unused()), gradients="hooks", draws=draws)
    assert float(gradient(steps).norm()) > 0


@pytest.mark.parametrize("clip_norm", [0.2, 1e9])
@pytest.mark.parametrize("draws", [1, 3])
def test_hooks_and_passes_find_the_same_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draws: int, clip_norm: float
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "7" * 64)
    found = []
    for ways in ("passes", "hooks"):
        steps = steps_of(tmp_path / ways, draws=draws, gradients=ways, clip_norm=clip_norm, rows_at_once=7)
        assert (steps.hooks is not None) == (ways == "hooks")
        found.append(gradient(steps))
        steps.close()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_rows_at_once_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "7" * 64)
    found = [gradient(steps_of(tmp_path / str(many), draws=8, rows_at_once=many)) for many in (1, 3, 64)]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=1e-4, atol=1e-6)


# ---- drawing and noise ----


def test_the_noise_has_the_standard_deviation_that_was_recorded(tmp_path: Path) -> None:
    """Sum over steps without any gradient: what is left is σ C, over all weights and steps."""

    class Still(Rows):
        def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
            return 0 * super().row_losses(prepared)

    learner = Still(convolutional())
    steps = steps_of(tmp_path, learner=learner, epsilon=4.0, delta=0.01, clip_norm=0.5, expected=2)
    noise = torch.cat([gradient(steps, step) for step in range(20)])
    expected = steps.ledger.parameters.noise_multiplier * 0.5
    assert float(noise.std()) == pytest.approx(expected, rel=4 / (2 * len(noise)) ** 0.5)
    assert abs(float(noise.mean())) < 4 * expected / len(noise) ** 0.5
    assert not torch.equal(gradient(steps, 0), gradient(steps, 1))


def test_another_fit_draws_other_units_and_other_noise_from_the_same_seed(tmp_path: Path) -> None:
    """The recipe's seed is published, so nothing that protects may derive from it."""
    first, again = (fitted(tmp_path / name)[0].network.state_dict() for name in ("first", "again"))
    assert any(not torch.equal(first[name], again[name]) for name in first)


def test_units_are_drawn_independently_at_the_sample_rate(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, expected=2)
    counts = torch.tensor([len(steps._draw_units(step)) for step in range(3000)]).double()
    rate, total = 2 / 6, 6
    assert float(counts.mean()) == pytest.approx(rate * total, abs=4 * (total * rate * (1 - rate) / 3000) ** 0.5)
    assert float(counts.var()) == pytest.approx(total * rate * (1 - rate), rel=0.15)


def test_a_batch_without_any_unit_is_a_step_of_noise_alone(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, list(range(60)), expected=1, epsilon=6.0, draws=1)
    empty = next(step for step in range(100) if not steps._draw_units(step))
    logged = steps.take(empty)
    assert set(logged) == {"gradient_norm"}
    assert float(logged["gradient_norm"]) > 0
    assert steps.ledger.steps_begun == empty + 1


# ---- what is refused ----


def test_layers_that_count_or_mix_rows_are_refused(tmp_path: Path) -> None:
    counting = nn.Sequential(nn.Conv2d(2, 1, 3), nn.BatchNorm2d(1))
    with pytest.raises(InputError, match=r"1.running_mean accumulates statistics of the data; replace batch"):
        steps_of(tmp_path / "counting", learner=Rows(counting))

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(2, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) - self.net(x).mean()

    with pytest.raises(InputError, match="cannot be trained privately: its layers mix the images of a batch"):
        steps_of(tmp_path / "mixing", learner=Rows(Mixing()))


class Positions(nn.Module):
    """A table of places that all rows share: its first axis is no batch, which hooks cannot know."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.places = nn.Embedding(9, 18)
        self.net = nn.Conv2d(2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.net(x)
        return found + self.places(torch.arange(9)[None]).mean(-1).reshape(1, 1, 3, 3)


def test_a_layer_that_hooks_get_wrong_is_fitted_by_passes_or_refused(tmp_path: Path) -> None:
    steps = steps_of(tmp_path / "auto", learner=Rows(Positions()), draws=1)
    assert steps.hooks is None
    with pytest.raises(InputError, match=r"with privacy.gradients = hooks: gradients of .*places.weight"):
        steps_of(tmp_path / "hooks", learner=Rows(Positions()), gradients="hooks")


def test_a_learner_whose_rows_see_each_other_and_too_few_units_are_refused(tmp_path: Path) -> None:
    batches, units = data(UNITS)
    private = Private(PrivateFitConfig(), units)
    with pytest.raises(InputError, match="only losses that are a mean over rows can be fitted privately"):
        fit(Regression(), batches, settings(), work=tmp_path, private=private)
    with pytest.raises(InputError, match=r"batch_size = 8, .* exceeds the number of patients, 6"):
        fit(Rows(convolutional()), batches, settings(batch_size=8), work=tmp_path, private=private)
