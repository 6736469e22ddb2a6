"""What the attacks leave open is said, from what was done."""

from __future__ import annotations

import pytest

from medphantom.quality.assessment.privacy_part import _gaps


@pytest.mark.parametrize(("lower", "said"), [(0.49, False), (0.5, False), (0.51, True)])
def test_patients_who_differ_anyway_are_named_from_the_first_excess_on(lower: float, said: bool) -> None:
    found = list(_gaps((lower, 0.7), 5000, None))
    assert any("differ from the others independently of the generator" in gap for gap in found) == said
    assert not any("weights" in gap for gap in found)
    assert ("too few for false-positive rates" in " ".join(_gaps((0.4, 0.6), 50, None))) is True
