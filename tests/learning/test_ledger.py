"""The ledger of a private fit: which steps are recorded and when, what a resume needs, and whose key it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medphantom.core.errors import ArtifactError
from medphantom.learning.accounting import epsilon_of
from medphantom.learning.fit import CHECKPOINTS
from medphantom.learning.ledger import KEY_FILE, LEDGER_FILE
from tests.learning.private_tiny import Rows, convolutional, fitted


def test_the_ledger_is_that_of_all_steps_and_validation_chooses_nothing(tmp_path: Path) -> None:
    class SampleLosses(Rows):
        def validate(self, network: nn.Module, split: str) -> dict[str, float]:
            return {"loss": 1.0 if self.step < 5 else 2.0}

    _, result = fitted(tmp_path, SampleLosses(convolutional()), validate_every=2)
    assert (result.best_step, result.best_loss) == (12, None)
    guarantee = result.guarantee
    assert result.private
    assert guarantee is not None
    (mechanism,) = guarantee.parts
    assert (mechanism.sample_rate, mechanism.steps) == (2 / 6, 12)
    assert 0.97 * 8 <= guarantee.epsilon <= 8
    assert guarantee.epsilon == epsilon_of(mechanism, 0.01)
    assert guarantee.epsilon_rdp is not None
    assert guarantee.epsilon < guarantee.epsilon_rdp


def test_a_resumed_fit_has_the_same_bits_and_the_same_ledger(tmp_path: Path) -> None:
    whole, result = fitted(tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / CHECKPOINTS / "step-000000012")
    resumed, again = fitted(tmp_path / "work")
    assert again.resumed_from == 8
    assert again.guarantee == result.guarantee
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_a_step_that_is_cut_short_was_recorded(tmp_path: Path) -> None:
    class Cut(Rows):
        def row_losses(self, prepared: dict[str, Tensor]) -> Tensor:
            if self.step >= 3 and torch.is_grad_enabled():  # the first one from there on that drew anybody
                raise KeyboardInterrupt
            return super().row_losses(prepared)

    learner = Cut(convolutional())
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, learner, privacy={"gradients": "passes"})
    assert json.loads((tmp_path / LEDGER_FILE).read_text())["steps_begun"] == learner.step + 1


def test_another_fit_with_the_same_parameters_has_a_key_of_its_own(tmp_path: Path) -> None:
    """Without checkpoints, too: two releases with the same noise would differ by what they learned alone."""
    fitted(tmp_path)
    key = (tmp_path / KEY_FILE).read_text()
    shutil.rmtree(tmp_path / CHECKPOINTS)
    fitted(tmp_path)
    assert (tmp_path / KEY_FILE).read_text() == key
    shutil.rmtree(tmp_path / CHECKPOINTS)
    fitted(tmp_path, weight_decay=0.5)
    assert (tmp_path / KEY_FILE).read_text() != key


def test_steps_are_recorded_before_they_are_taken(tmp_path: Path) -> None:
    """A fit that is stopped between checkpoints has a ledger of more steps than its checkpoint, never of fewer."""
    learner = Rows(convolutional(), noise=0.1)
    steps_begun = []

    def look() -> bool:
        steps_begun.append(json.loads((tmp_path / LEDGER_FILE).read_text())["steps_begun"])
        if len(steps_begun) == 7:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, learner, stop=look)
    assert steps_begun == list(range(1, 8))
    _, result = fitted(tmp_path)
    assert result.resumed_from == 4
    assert result.guarantee is not None
    assert result.guarantee.steps == 12


@pytest.mark.parametrize("file", [LEDGER_FILE, KEY_FILE])
def test_a_resumed_fit_without_its_ledger_is_refused(tmp_path: Path, file: str) -> None:
    fitted(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ArtifactError, match=r"of the 12 private steps in .* is missing or damaged; restore"):
        fitted(tmp_path)


def test_a_ledger_of_fewer_steps_is_refused(tmp_path: Path) -> None:
    fitted(tmp_path)
    ledger = json.loads((tmp_path / LEDGER_FILE).read_text())
    (tmp_path / LEDGER_FILE).write_text(json.dumps({**ledger, "steps_begun": 3}))
    with pytest.raises(ArtifactError, match=r"of the 12 private steps .* belongs to other steps"):
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
