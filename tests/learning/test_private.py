"""Private fits: what a unit can move, what is noised, what is paid for, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cohorts.errors import ArtifactError, InputError
from learning.account import ACCOUNT_FILE, KEY_FILE
from learning.accounting import Mechanism, epsilon_of
from learning.batches import TensorBatches
from learning.fit import CHECKPOINTS, FitResult, fit
from learning.learner import RowLearner
from learning.private_config import PrivateFitConfig
from learning.private_steps import Private, PrivateSteps, Units
from learning.randomness import secret_numbers
from tests.learning.tiny import Regression, settings


class Rows(RowLearner):
    """Squared error of a small network, each look at a row with noise of its own."""

    def __init__(self, network: nn.Module, *, noise: float = 0.0) -> None:
        super().__init__(network)
        self.noise = noise

    def prepare(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"x": batch["x"] + self.noise * torch.randn(batch["x"].shape, generator=generator), "y": batch["y"]}

    def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
        return (self.network(prepared["x"]) - prepared["y"]).square().flatten(1).mean(1)


def convolutional(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.SiLU(), nn.Conv2d(6, 1, 3))
    return network.to(memory_format=torch.channels_last)


def data(unit_of_row: Sequence[int], *, loud: int | None = None) -> tuple[TensorBatches, Units]:
    """One image per row; the rows of the unit ``loud`` ask for absurd values."""
    total = len(unit_of_row)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(64, 2, 5, 5, generator=generator)[:total]
    y = torch.randn(64, 1, 3, 3, generator=generator)[:total]
    of_row = torch.tensor(unit_of_row)
    if loud is not None:
        y[of_row == loud] += 1e6
    return TensorBatches({"x": x, "y": y}), Units(of_row)


UNITS = [0, 0, 1, 2, 2, 2, 3, 4, 5, 5]


def steps_of(
    tmp_path: Path, unit_of_row: Sequence[int] = UNITS, *, learner: RowLearner | None = None, **changes: Any
) -> PrivateSteps:
    """The steps of a private fit on their own, begun; every unit is drawn in each unless told otherwise."""
    batches, units = data(unit_of_row, loud=changes.pop("loud", None))
    expected = changes.pop("expected", len(units))
    learner = learner or Rows(convolutional(), noise=0.1)
    config = PrivateFitConfig.model_validate({"epsilon": None, "draws": 4, **changes})
    optimizer = torch.optim.SGD(learner.network.parameters(), lr=0.1)
    from accelerate import Accelerator

    steps = PrivateSteps(
        learner,
        batches,
        Private(config, units),
        settings(batch_size=expected, steps=20),
        optimizer,
        accelerator=Accelerator(cpu=True),
        work=tmp_path,
    )
    steps.begin(0, None)
    return steps


def gradient(steps: PrivateSteps, step: int = 0) -> Tensor:
    """The noised sum of clipped gradients of one step."""
    steps.take(step)
    return torch.cat([p.grad.flatten() for p in steps.parameters]).double() * steps.expected_units


def fitted(work: Path, learner: RowLearner | None = None, **changes: Any) -> tuple[RowLearner, FitResult]:
    batches, units = data(UNITS)
    learner = learner or Rows(convolutional(), noise=0.1)
    private = PrivateFitConfig.model_validate({"epsilon": 8.0, "draws": 2, "delta": 0.01, **changes.pop("privacy", {})})
    stop = changes.pop("stop", None)
    config = settings(steps=12, batch_size=2, checkpoint_every=4, learning_rate=0.02, **changes)
    return learner, fit(learner, batches, config, work=work, private=Private(private, units), stop=stop)


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


def test_the_noise_has_the_standard_deviation_that_was_paid_for(tmp_path: Path) -> None:
    """Sum over steps without any gradient: what is left is σ C, over all weights and steps."""

    class Still(Rows):
        def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
            return 0 * super().row_losses(prepared)

    learner = Still(convolutional())
    steps = steps_of(tmp_path, learner=learner, epsilon=4.0, delta=0.01, clip_norm=0.5, expected=2)
    noise = torch.cat([gradient(steps, step) for step in range(20)])
    expected = steps.account.terms.noise_multiplier * 0.5
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
    assert steps.account.steps_begun == empty + 1


# ---- the account ----


def test_the_account_is_that_of_all_steps_and_validation_chooses_nothing(tmp_path: Path) -> None:
    class Judged(Rows):
        def validate(self, network: nn.Module, split: str) -> dict[str, float]:
            return {"loss": 1.0 if self.step < 5 else 2.0}

    _, result = fitted(tmp_path, Judged(convolutional()), validate_every=2)
    assert (result.best_step, result.best_loss) == (12, None)
    spent = result.spent
    assert spent is not None
    assert spent.mechanism == Mechanism(spent.mechanism.noise_multiplier, 2 / 6, 12)
    assert 0.97 * 8 <= spent.epsilon <= 8
    assert spent.epsilon == epsilon_of(spent.mechanism, 0.01)
    assert spent.epsilon < spent.epsilon_rdp


def test_a_resumed_fit_has_the_same_bits_and_the_same_account(tmp_path: Path) -> None:
    whole, result = fitted(tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / CHECKPOINTS / "step-000000012")
    resumed, again = fitted(tmp_path / "work")
    assert again.resumed_from == 8
    assert again.spent == result.spent
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_a_step_that_is_cut_short_was_paid_for(tmp_path: Path) -> None:
    class Cut(Rows):
        def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
            if self.step >= 3 and torch.is_grad_enabled():  # the first one from there on that drew anybody
                raise KeyboardInterrupt
            return super().row_losses(prepared)

    learner = Cut(convolutional())
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, learner, privacy={"gradients": "passes"})
    assert json.loads((tmp_path / ACCOUNT_FILE).read_text())["steps_begun"] == learner.step + 1


def test_another_fit_on_the_same_terms_has_a_key_of_its_own(tmp_path: Path) -> None:
    """Without checkpoints, too: two releases with the same noise would differ by what they learned alone."""
    fitted(tmp_path)
    key = (tmp_path / KEY_FILE).read_text()
    shutil.rmtree(tmp_path / CHECKPOINTS)
    fitted(tmp_path)
    assert (tmp_path / KEY_FILE).read_text() == key
    shutil.rmtree(tmp_path / CHECKPOINTS)
    fitted(tmp_path, weight_decay=0.5)
    assert (tmp_path / KEY_FILE).read_text() != key


def test_steps_are_paid_before_they_are_taken(tmp_path: Path) -> None:
    """A fit that is stopped between checkpoints has an account of more steps than its checkpoint, never of fewer."""
    learner = Rows(convolutional(), noise=0.1)
    paid = []

    def look() -> bool:
        paid.append(json.loads((tmp_path / ACCOUNT_FILE).read_text())["steps_begun"])
        if len(paid) == 7:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, learner, stop=look)
    assert paid == list(range(1, 8))
    _, result = fitted(tmp_path)
    assert result.resumed_from == 4
    assert result.spent is not None
    assert result.spent.mechanism.steps == 12


@pytest.mark.parametrize("file", [ACCOUNT_FILE, KEY_FILE])
def test_a_resumed_fit_without_its_account_is_refused(tmp_path: Path, file: str) -> None:
    fitted(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ArtifactError, match=r"of the 12 private steps in .* is missing or damaged; restore"):
        fitted(tmp_path)


def test_an_account_of_fewer_steps_is_refused(tmp_path: Path) -> None:
    fitted(tmp_path)
    account = json.loads((tmp_path / ACCOUNT_FILE).read_text())
    (tmp_path / ACCOUNT_FILE).write_text(json.dumps({**account, "steps_begun": 3}))
    with pytest.raises(ArtifactError, match=r"of the 12 private steps .* is of other steps"):
        fitted(tmp_path)


def test_the_key_is_readable_by_its_owner_only_and_no_checkpoint_holds_it(tmp_path: Path) -> None:
    fitted(tmp_path)
    key = (tmp_path / KEY_FILE).read_text()
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o077 == 0
    holders = [p for p in tmp_path.rglob("*") if p.is_file() and p.name != KEY_FILE and key.encode() in p.read_bytes()]
    assert holders == []


def test_another_budget_does_not_go_on_from_this_one(tmp_path: Path) -> None:
    fitted(tmp_path)
    with pytest.raises(ArtifactError, match="another privacy"):
        fitted(tmp_path, privacy={"epsilon": 4.0})


# ---- what is refused ----


def test_layers_that_count_or_mix_rows_are_refused(tmp_path: Path) -> None:
    counting = nn.Sequential(nn.Conv2d(2, 1, 3), nn.BatchNorm2d(1))
    with pytest.raises(InputError, match=r"fitted privately: 1.running_mean keeps what it saw; replace batch"):
        steps_of(tmp_path / "counting", learner=Rows(counting))

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(2, 1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) - self.net(x).mean()

    with pytest.raises(InputError, match="cannot be fitted privately: its layers mix the images of a batch"):
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
    with pytest.raises(InputError, match=r"cannot be fitted by privacy.gradients hooks: gradients of .*places.weight"):
        steps_of(tmp_path / "hooks", learner=Rows(Positions()), gradients="hooks")


def test_a_learner_whose_rows_see_each_other_and_too_few_units_are_refused(tmp_path: Path) -> None:
    batches, units = data(UNITS)
    private = Private(PrivateFitConfig(), units)
    with pytest.raises(InputError, match="only losses that are a mean over rows can be fitted privately"):
        fit(Regression(), batches, settings(), work=tmp_path, private=private)
    with pytest.raises(InputError, match="batch_size is the expected number of patients per step, 8, and there are 6"):
        fit(Rows(convolutional()), batches, settings(batch_size=8), work=tmp_path, private=private)
