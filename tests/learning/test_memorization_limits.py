"""How many rows the early warning needs, and how sure it is."""

from __future__ import annotations

import pytest
import torch

from medphantom.learning.memorization import SampleLosses, membership_signal


def sample_losses(errors: list[float], rows: list[int]) -> SampleLosses:
    return SampleLosses(torch.tensor(errors), torch.tensor(rows))


@pytest.mark.parametrize(("total", "says"), [(19, False), (20, True), (21, True)])
def test_twenty_rows_say_something_and_nineteen_do_not(total: int, says: bool) -> None:
    rows = [*range(total), 0]  # a row that is measured twice counts once
    found = membership_signal(sample_losses([0.0] * (total + 1), rows), sample_losses([1.0] * (total + 1), rows))
    assert (found is not None) == says


def test_the_bound_is_one_sided_at_95_percent() -> None:
    """Fifteen of twenty rows separated: a share of 3/4, and the sample's deviation of its mean."""
    rows = list(range(20))
    found = membership_signal(sample_losses([0.0] * 15 + [1.0] * 5, rows), sample_losses([0.5] * 20, rows))
    assert found is not None
    assert found.share == 0.75
    assert found.low == pytest.approx(0.75 - 1.6449 * (0.75 * 0.25 * 20 / 19 / 20) ** 0.5, abs=1e-9)
