"""Recommendations from the scores of a utility study, label by label, including *no benefit was shown*."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medphantom.quality.results.model_score import FREE, MIXING, Difference, Measure, ModelScore, TrainingArm
from medphantom.quality.results.study_report import Advice
from medphantom.quality.stats.estimate import Interval


def advise(
    scores: Sequence[ModelScore], labels: Sequence[str], significance: float, measure: Measure = "AUROC"
) -> Iterator[Advice]:
    """Recommendations for the mean over labels, then for every label.

    Args:
        scores: scores of the study.
        labels: names of the labels of interest.
        significance: significance level of p values after Holm's correction over labels, arms and ratios.
        measure: performance measure on which the recommendations are based.
    """
    for label in (None, *labels):
        found = [
            score
            for score in scores
            if score.estimate.label == label
            and score.test == "test"
            and score.measure == measure
            and score.group is None
        ]
        yield _advice(label, found, significance)


def _advice(label: str | None, found: Sequence[ModelScore], significance: float) -> Advice:
    what = label or "mean over labels"
    refused = next((score.estimate.refused for score in found if score.estimate.refused), None)
    mixed = [score for score in found if score.arm.kind in MIXING and score.difference is not None]
    if refused is not None or not mixed:
        why = refused or "no arm with synthetic images was tested"
        return Advice(
            label=label, recommendation="refused", arm=None, sentence=f"{what}: no recommendation, because {why}."
        )
    helping = [score for score in mixed if _value(score) > 0 and _shown(score, significance)]
    if helping:
        best = max(helping, key=_value)
        chosen = _smallest_equivalent(best, helping)
        free = _equivalent_free(chosen, found, significance)
        if free is not None:
            sentence = (
                f"{what}: use {free.arm.words} instead, which needs no synthetic images: {_gain(free)} over real "
                f"images alone; {chosen.arm.words}: {_gain(chosen)}{_less(chosen, free.arm)}."
            )
            return Advice(label=label, recommendation="instead", arm=free.arm, sentence=sentence)
        sentence = f"{what}: {_do(chosen.arm)}: {_gain(chosen)} over real images alone{_beyond(chosen, mixed)}"
        return Advice(
            label=label, recommendation="add", arm=chosen.arm, sentence=f"{sentence}.{_against_free(chosen, found)}"
        )
    best = max(mixed, key=_value)
    if all(_value(score) < 0 and _shown(score, significance) for score in mixed):
        sentence = (
            f"{what}: do not add synthetic images, which reduce performance: {_gain(best)} at best ({best.arm.words})."
        )
        return Advice(label=label, recommendation="harm", arm=best.arm, sentence=sentence)
    sentence = (
        f"{what}: a benefit of synthetic images was not shown: {_gain(best)} at best ({best.arm.words})."
        f"{_against_free(best, found)}"
    )
    return Advice(label=label, recommendation="no gain", arm=best.arm, sentence=sentence)


def _value(score: ModelScore) -> float:
    return 0.0 if score.difference is None or score.difference.value is None else score.difference.value


def _shown(score: ModelScore, significance: float) -> bool:
    """Whether its difference to *real* is statistically significant."""
    return score.p_holm is not None and score.p_holm < significance


def _equivalent_free(chosen: ModelScore, found: Sequence[ModelScore], significance: float) -> ModelScore | None:
    """The best arm without synthetic images that also helps and that the chosen arm was not shown to exceed."""
    beaten = {
        other.arm
        for other in chosen.beside
        if other.difference.interval is not None and other.difference.interval[0] > 0
    }
    candidates = [
        score
        for score in found
        if score.arm.kind in FREE and score.arm not in beaten and _value(score) > 0 and score.difference
    ]
    good = [score for score in candidates if _shown(score, significance) or _value(score) >= _value(chosen)]
    return max(good, key=_value, default=None)


def _less(chosen: ModelScore, free: TrainingArm) -> str:
    """Difference between the chosen arm and an arm without synthetic images, in words."""
    beside: Difference | None = next((other for other in chosen.beside if other.arm == free), None)
    if beside is None or beside.difference.value is None:
        return ""
    return f" (difference: {_signed(beside.difference.value, beside.difference.interval)})"


def _half_width(score: ModelScore) -> float:
    interval = None if score.difference is None else score.difference.interval
    return 0.0 if interval is None else (interval[1] - interval[0]) / 2


def _smallest_equivalent(best: ModelScore, helping: Sequence[ModelScore]) -> ModelScore:
    """The smallest mixing ratio of the same arm whose gain is within one standard error of the best."""
    near = [
        score
        for score in helping
        if score.arm.kind == best.arm.kind and _value(score) >= _value(best) - _half_width(best) / 2
    ]
    return min(near, key=lambda score: score.arm.ratio or 0.0)


def _do(arm: TrainingArm) -> str:
    times = f"about {arm.ratio:.2g} synthetic images per real one"
    if arm.kind == "pretrained":
        return f"train on {times} first, then on the real ones"
    return f"add {times}" + (", all under classical augmentation" if arm.kind == "classical_and_synthetic" else "")


def _gain(score: ModelScore) -> str:
    return f"{score.measure} {_signed(_value(score), None if score.difference is None else score.difference.interval)}"


def _signed(value: float, interval: Interval | None) -> str:
    return f"{value:+.3f}" + ("" if interval is None else f" [{interval[0]:+.3f}, {interval[1]:+.3f}]")


def _beyond(chosen: ModelScore, mixed: Sequence[ModelScore]) -> str:
    """The effect of larger mixing ratios, if any were tested."""
    ratio = chosen.arm.ratio or 0.0
    more = [score for score in mixed if score.arm.kind == chosen.arm.kind and (score.arm.ratio or 0.0) > ratio]
    if not more:
        return "; larger ratios were not tested"
    return f"; larger ratios bring no further gain ({_value(more[-1]):+.3f} at {more[-1].arm.ratio:g})"


def _against_free(chosen: ModelScore, found: Sequence[ModelScore]) -> str:
    """The gains of classical augmentation and oversampling, which need no generator, for comparison."""
    others = [score for score in found if score.arm.kind in FREE and score.difference]
    return "".join(
        f" {'However, ' if _value(other) >= _value(chosen) else ''}{other.arm.words} alone: {_gain(other)}"
        f"{_less(chosen, other.arm)}."
        for other in others
    )
