"""Attacks on single patients, as an assessment asks for them."""

from __future__ import annotations

from pathlib import Path

from medphantom.cohorts.preprocess import Preprocess
from medphantom.quality.assessment.parts import Context
from medphantom.quality.assessment.privacy_part import membership_part
from medphantom.quality.config import AssessConfig, MembershipConfig
from medphantom.quality.data.evaluation_data import EvaluationData
from tests.generators.tiny import SIDE, make_cohort


def test_the_limit_of_the_recipe_reaches_the_attacks(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path / "cohort", total=160)
    data = EvaluationData(cohort, cohort, Preprocess(size=(SIDE, SIDE)))
    for limit in (0.5, 0.8):
        config = AssessConfig(membership=MembershipConfig(limit=limit))
        summary = membership_part(Context(data, config, tmp_path / "work", lambda *_: None)).summary
        assert summary is not None
        (result,) = summary.results
        assert result.limit == limit
        assert result.limited_by == "recipe"
        assert not result.flagged  # images of members and of others equally
