"""The sentences of the report follow from its scores and claim no more."""

from __future__ import annotations

import pytest

from medphantom.quality.report.glossary import is_ratio, is_reconstruction, term
from medphantom.quality.report.page import (
    against_real,
    every_estimate,
    methods,
    refused_scores,
    score_groups,
    seed_spreads,
    sentence,
    utility_table,
)
from medphantom.quality.report.verdict import plain_words
from medphantom.quality.results.model_score import CheckedArm, ModelScore, TrainingArm
from medphantom.quality.results.quality_report import (
    LabelAgreement,
    MembershipSummary,
    QualityReport,
    Verdict,
)
from medphantom.quality.stats.estimate import Estimate


def _estimate(name: str, value: float | None, **changes: object) -> Estimate:
    return Estimate.model_validate({"name": name, "estimand": "x", "value": value, **changes})


def _model_score(kind: CheckedArm, *, estimate: Estimate) -> ModelScore:
    return ModelScore(arm=TrainingArm(kind=kind), test="test", measure="AUROC", estimate=estimate)


def _report(verdict: Verdict = "screened", **changes: object) -> QualityReport:
    usual = {
        "real_digest": "a",
        "synthetic_digest": "b",
        "config_digest": "c",
        "seed": 0,
        "synthetic_count": 9,
        "verdict": verdict,
        "verdict_reasons": (),
        "estimates": (),
    }
    return QualityReport.model_validate({**usual, **changes})


def test_only_a_screened_set_may_be_proposed_for_sharing() -> None:
    for verdict in ("fail", "inconclusive"):
        words = plain_words(_report(verdict))  # type: ignore[arg-type]  # literals of a loop
        assert any("Sharing in any form" in use for use in words.not_uses)
        assert not any("share" in use for use in words.uses)
    screened = plain_words(_report("screened"))
    assert any("request to share" in use for use in screened.uses)
    assert any("anonymity" in use for use in screened.not_uses)
    assert "guarantee" in screened.meaning


def test_a_set_that_fails_by_membership_alone_is_not_reported_to_hold_copies() -> None:
    attacked = MembershipSummary(
        results=(),
        blind=_estimate("membership_blind", 0.5),
        disclosure=(),
        reasons=("an attack succeeded",),
        weights_reasons=(),
        gaps=(),
    )
    assert "membership inference" in plain_words(_report("fail", membership=attacked)).meaning
    assert "too similar to training patients" in plain_words(_report("fail")).meaning
    assert "membership inference" not in plain_words(_report("screened", membership=attacked)).meaning


def test_realism_is_relative_to_floor_and_autoencoder() -> None:
    found = _report(
        estimates=(
            _estimate("frechet", 3.0, floor=2.0, network="filters"),
            _estimate("frechet_over_floor", 1.5, spread=(1.4, 1.6), network="filters"),
            _estimate("frechet_reconstruction_over_floor", 1.25, network="filters"),
            _estimate("frechet", 9.0, floor=3.0, network="a/encoder"),
        )
    )
    assert plain_words(found).realism == (
        (
            "Synthetic images are 1.50 (range 1.40 to 1.60) times as far from test patients as other real patients "
            "are; the autoencoder alone reaches 1.25 times (fixed filter bank)."
        ),
        "Synthetic images are 3.00 times as far from test patients as other real patients are (a/encoder).",
    )
    assert plain_words(_report()).realism == ("Not measured.",)
    refused = plain_words(_report(estimates=(_estimate("frechet", None, refused="few"),)))
    assert refused.realism[0].startswith("Not known: there are too few")


def test_agreement_names_its_measure() -> None:
    overall = _estimate("label_agreement", 0.98, interval=(0.97, 0.99), floor=0.995)
    for confusion, measure in ((((1, 0), (0, 1)), "share"), ((), "mean AUROC")):
        agreement = LabelAgreement(per_label=(overall,), labels=("a", "b"), confusion=confusion)
        assert plain_words(_report(agreement=agreement)).realism == (
            (
                f"A classifier trained on real images recognises the prompted labels: {measure} 0.980 (95 % interval "
                "0.970 to 0.990); 0.995 on real images."
            ),
        )


@pytest.mark.parametrize(("low", "weak"), [(0.55, True), (0.65, False)])
def test_a_label_that_metadata_predict_as_well_is_not_for_training(low: float, weak: bool) -> None:
    utility = (
        _model_score("synthetic", estimate=_estimate("u", 0.7, interval=(low, 0.8), label="edema")),
        _model_score("metadata", estimate=_estimate("u", 0.6, interval=(0.5, 0.7), label="edema")),
    )
    words = plain_words(_report(utility=utility))
    assert any("edema" in use for use in words.not_uses) is weak
    assert words.utility[0].startswith("edema: a classifier trained on synthetic images alone reaches AUROC 0.700")


def test_distances_are_reported_as_ratios_and_shares_as_differences() -> None:
    assert against_real(_estimate("frechet", 3.0, floor=2.0)) == ("1.50 × floor", 1.5)
    assert against_real(_estimate("kernel", 0.5, floor=0.1, floor_interval=(-0.1, 0.3))) == ("+0.400", 0.4)
    assert against_real(_estimate("recall", 0.5, floor=0.75, better="higher")) == ("−0.250", -0.25)
    assert against_real(_estimate("recall", 0.5)) == ("–", None)


def test_reconstructions_are_the_ceiling_of_their_score() -> None:
    estimates = (
        _estimate("frechet", 3.0, floor=2.0, network="filters"),
        _estimate("frechet_reconstruction", 2.5, floor=2.0, network="filters"),
        _estimate("frechet_reconstruction", 7.5, floor=2.0, network="other"),
    )
    (group,) = score_groups(_report(estimates=estimates), estimates[:1])
    assert group.has_ceiling
    assert group.rows[0].ceiling == 2.5
    assert is_reconstruction("recall_reconstruction")
    assert not is_reconstruction("frechet_reconstruction_over_floor")
    assert is_ratio("frechet_random_halves_over_floor")
    assert term("frechet_random_halves_over_floor").title == "Synthetic over floor, any label mix"


def test_every_seed_of_a_network_stands_in_one_row() -> None:
    details = [
        _estimate("frechet", value, network=f"cross_fitted, seed {seed}") for seed, value in enumerate((3.0, 4.0))
    ]
    details.append(_estimate("frechet", 5.0, network="simulated, seed 0"))
    (row,) = seed_spreads(details)
    assert (row.network, row.values) == ("cross_fitted", (3.0, 4.0))


def test_a_refusal_is_listed_once_with_all_labels() -> None:
    refused = [_estimate("utility", None, refused="few", label=label) for label in ("a", "a", "b")]
    refused.append(_estimate("utility", None, refused="none", label="c"))
    title = term("utility").title
    utility = tuple(_model_score("real", estimate=estimate) for estimate in refused)
    report = _report(utility=utility)
    assert refused_scores(every_estimate(report)) == ((title, "a; b", "few"), (title, "c", "none"))
    assert utility_table(report) == ()


def test_a_method_is_listed_once() -> None:
    rows = [_estimate("recall", 0.5, method="halves", network=network) for network in ("filters", "a/encoder")]
    groups = score_groups(_report(estimates=tuple(rows)), rows)
    assert methods(groups) == [("Recall", "fixed filter bank; a/encoder", "x halves")]


def test_remarks_become_sentences() -> None:
    assert sentence("holdout holds 3 images") == "Holdout holds 3 images."
    assert sentence("") == ""
    assert sentence("Why?") == "Why?"


def test_a_set_without_a_distance_is_described_by_precision_and_recall() -> None:
    found = _report(
        estimates=(
            _estimate("frechet", None, refused="few", network="filters"),
            _estimate("precision", 0.9, floor=0.8, network="filters"),
            _estimate("recall", 0.5, floor=0.7, network="filters"),
        )
    )
    (words,) = plain_words(found).realism
    assert words.startswith("Precision is 0.900 (synthetic images within the real distribution) and recall is 0.500")
    assert "real against real 0.800 and 0.700; fixed filter bank" in words
