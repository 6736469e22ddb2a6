"""Ctrl-C and SIGTERM end a fit with a checkpoint of the last whole step, from which it goes on to the same weights."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from medphantom.core.progress import Progress
from medphantom.learning import interruption
from medphantom.learning.batches import TensorBatches
from medphantom.learning.checkpoint import latest_checkpoint
from medphantom.learning.fit import CHECKPOINTS, FitResult, fit
from medphantom.learning.interruption import Postponed
from tests.learning.tiny import Denoise, settings


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C; here it is the usual KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fitted(work: Path, progress: Progress | None = None, **changes: float) -> tuple[Denoise, FitResult]:
    learner = Denoise()
    config = settings(checkpoint_every=1000, **changes)
    batches = TensorBatches({"x": learner.images[:12]})
    return learner, fit(learner, batches, config, work=work, name="line", progress=progress)


def test_the_step_of_an_interruption_is_kept_and_the_fit_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    straight, _ = fitted(tmp_path / "straight")

    def interrupt(done: int, total: int, what: str = "") -> None:
        if done == 11:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as ending:
        fitted(tmp_path / "cut", interrupt)
    assert ending.value.__notes__ == ["step 12 of 30 of line is kept"]
    kept = latest_checkpoint(tmp_path / "cut" / CHECKPOINTS)
    assert kept is not None
    assert kept.step == 12

    again, result = fitted(tmp_path / "cut")
    assert result.resumed_from == 12
    for one, other in zip(straight.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_minutes_write_a_checkpoint_between_steps(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(done: int, total: int, what: str = "") -> None:
        time.sleep(0.06)
        kept = latest_checkpoint(tmp_path / CHECKPOINTS)
        seen.append(0 if kept is None else kept.step)

    fitted(tmp_path, look, steps=4, checkpoint_minutes=0.05 / 60)
    assert seen == [0, 2, 3, 4]


def interrupted(*, times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)


def held_back(*, times: int, then: Callable[[], None] = lambda: None) -> Postponed:
    """A block in which signals arrive; whether they also ended it shows in the time that ``then`` took."""
    with Postponed() as held:
        held.raise_now("nothing has arrived")
        interrupted(times=times)
        then()
    return held


def test_a_second_signal_acts_at_once() -> None:
    went_on: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        held_back(times=2, then=lambda: went_on.append(True))
    assert not went_on
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "PATIENCE_S", 0.05)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        held_back(times=1, then=lambda: time.sleep(30))
    assert time.monotonic() - began < 20


def test_what_arrives_after_the_last_look_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt):
        held_back(times=1)


def test_nothing_is_held_back_without_a_signal() -> None:
    assert not held_back(times=0).requested
