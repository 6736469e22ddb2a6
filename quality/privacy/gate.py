"""Weighs what the copy search found: *fail*, *inconclusive* or *screened*. A search never passes anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.config import CORE_KINDS, CopyConfig
from medphantom.quality.privacy.contrast import CopyTest
from medphantom.quality.privacy.controls import control_kind, fewest_seen
from medphantom.quality.privacy.dcr_share import SMALLEST_YARDSTICK, DcrShare
from medphantom.quality.privacy.neighbours import NeighbourSimilarity
from medphantom.quality.results.quality_report import (
    ControlKind,
    CopyResult,
    CopySummary,
    SimilarityHistogram,
    Verdict,
)
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.intervals import proportion_interval

BINS = 40
JUDGE_VERSION = 2  # raise it when the same evidence is weighed otherwise: what was judged before is judged anew
BLIND_SPOTS = (
    "copies of a part of an image, such as one lesion, or text burned into a corner",
    "copies disguised in other or stronger ways than those that were planted",
    "copies of training images that look like many others anyway",
    "membership: that a patient was in the training set can leak without any copy",
)


@dataclass(frozen=True)
class Evidence:
    """What one way of comparing images found.

    Attributes:
        by: how images were compared: :data:`DETAIL`, or the name of a feature network.
        synthetic: similarity of the synthetic images.
        test: the test of single images, ``None`` where they are too few for one.
        dcr_share: the lean of the whole set.
        planted: similarity of planted copies by kind.
    """

    by: str
    synthetic: NeighbourSimilarity
    test: CopyTest | None
    dcr_share: DcrShare
    planted: Mapping[str, NeighbourSimilarity]


@dataclass(frozen=True)
class Judgement:
    """The summary; and of each synthetic image the p value of looking so were it no copy, and whether it is flagged."""

    summary: CopySummary
    p_values: Array
    flagged: Array


def judge(
    evidence: Sequence[Evidence],
    holdout_size: int,
    config: CopyConfig,
    rng: np.random.Generator,
    *,
    too_few: str | None,
) -> Judgement:
    """Weigh the evidence.

    *fail*: single images are more alike to training than chance makes them, or the crowd leans to train.
    *inconclusive*: a core kind of planted copies is not covered, or a yardstick is too small. *screened*: neither.

    Args:
        evidence: by every way of comparing, that of details first.
        holdout_size: holdout images.
        config: thresholds.
        rng: source of all draws.
        too_few: why there is no test of single images, if so.
    """
    first = evidence[0].synthetic
    level = config.significance / (2 * len(evidence))  # every way asks for single images and for a lean
    p_values = _union([part.test.p_values for part in evidence if part.test is not None], len(first))
    flagged = p_values < config.flag_level
    kinds = tuple(_kinds(evidence, config, level, rng))
    against = [*_single(evidence, level), *_lean(evidence, level)]
    gaps = [*([too_few] if too_few else _not_covered(kinds, config)), *_small_yardstick(holdout_size), *_lax(config)]
    verdict: Verdict = "fail" if against else "inconclusive" if gaps else "screened"
    order = np.argsort(p_values, kind="stable")
    summary = CopySummary(
        verdict=verdict,
        reasons=tuple([*against, *gaps] or [_screened_by(kinds, flagged, config)]),
        results=tuple(_results(evidence)),
        share_nearest_in_train=tuple(part.dcr_share.share for part in evidence),
        flagged_share=_flagged_share(flagged, evidence[0], config),
        controls=kinds,
        flagged_rows=tuple(int(row) for row in order if flagged[row]),
        total_flagged=int(flagged.sum()),
        blind_spots=BLIND_SPOTS,
        least_recall=config.least_recall,
        significance=config.significance,
        histogram=_histogram(evidence[0]),
    )
    return Judgement(summary, p_values, flagged)


def _union(p_values: Sequence[Array], total: int) -> Array:
    """The smallest p value of any of the ways, times their number (Bonferroni)."""
    if not p_values:
        return np.ones(total)
    found: Array = np.minimum(1.0, len(p_values) * np.min(np.stack(p_values), axis=0))
    return found


def _kinds(
    evidence: Sequence[Evidence], config: CopyConfig, level: float, rng: np.random.Generator
) -> Iterator[ControlKind]:
    usable = [(part, part.test) for part in evidence if part.test is not None]
    total = len(evidence[0].synthetic)
    for kind in dict.fromkeys((*config.kinds, *CORE_KINDS, *config.core)):
        if not usable or kind not in evidence[0].planted:
            yield control_kind(kind, np.zeros(0), config, fewest=None, total=total)
            continue
        contrasts = [part.planted[kind].contrast for part, _ in usable]
        tests = [test for _, test in usable]
        p_values = _union([test.p_values_of(c) for test, c in zip(tests, contrasts, strict=True)], len(contrasts[0]))
        fewest = fewest_seen(tests, contrasts, level, rng)
        yield control_kind(kind, p_values, config, fewest=fewest, total=total)


def _results(evidence: Sequence[Evidence]) -> Iterator[CopyResult]:
    for part in evidence:
        yield CopyResult(
            by=part.by,
            single_p_value=None if part.test is None else part.test.p_value,
            dcr_share_p_value=part.dcr_share.p_value,
        )


def _single(evidence: Sequence[Evidence], level: float) -> Iterator[str]:
    for part in evidence:
        if part.test is not None and part.test.p_value < level:
            yield (
                f"the {part.test.depth} most suspicious images are more alike to training patients than chance allows "
                f"(by {part.by}, p = {part.test.p_value:.1g})"
                if part.test.depth > 1
                else f"one image is more alike to a training patient than chance allows (by {part.by}, "
                f"p = {part.test.p_value:.1g})"
            )


def _lean(evidence: Sequence[Evidence], level: float) -> Iterator[str]:
    """Shares in train that luck does not explain."""
    for part in evidence:
        share, p_value = part.dcr_share.share, part.dcr_share.p_value
        if p_value < level:
            yield (
                f"{share.value:.3f} of the synthetic images lie nearer to train than to holdout (honest: 0.5; "
                f"by {part.by}, p = {p_value:.1g})"
            )


def _not_covered(kinds: Sequence[ControlKind], config: CopyConfig) -> Iterator[str]:
    for kind in kinds:
        if not kind.core or kind.covered:
            continue
        if kind.recall is None or kind.recall.interval is None:
            yield f"no copy of the kind '{kind.kind}' could be planted, so nobody knows whether one would be found"
        else:
            yield (
                f"of {kind.recall.n_synthetic} planted copies of the kind '{kind.kind}' {kind.recall.value:.2f} were "
                f"found (lower bound {kind.recall.interval[0]:.3f}, needed {config.least_recall:.2f})"
            )


def _screened_by(kinds: Sequence[ControlKind], flagged: Array, config: CopyConfig) -> str:
    """What a set is screened by, as it was done."""
    core = [kind.recall for kind in kinds if kind.core and kind.recall is not None and kind.recall.interval is not None]
    bound = min(recall.interval[0] for recall in core if recall.interval is not None)
    return (
        "no image is more alike to a training patient than chance makes it "
        f"({int(flagged.sum())} of {len(flagged)} flagged, chance flags {config.flag_level:g} of them), and of each of "
        f"{len(core)} core kinds of planted copies at least {bound:.3f} are found (95 % lower bound)"
    )


def _lax(config: CopyConfig) -> Iterator[str]:
    """Settings under which a search that found nothing would say less than by default."""
    usual = CopyConfig()
    pairs = (
        ("least_recall", config.least_recall < usual.least_recall),
        ("significance", config.significance < usual.significance),
        ("flag_level", config.flag_level > usual.flag_level),
    )
    for name, lax in pairs:
        if lax:
            yield (
                f"assess.copies.{name} {getattr(config, name):g} is laxer than {getattr(usual, name):g}, by which sets "
                "are screened"
            )


def _small_yardstick(holdout_size: int) -> Iterator[str]:
    if holdout_size < SMALLEST_YARDSTICK:
        yield f"holdout holds {holdout_size} images, at least {SMALLEST_YARDSTICK} are needed as yardstick"


def _flagged_share(flagged: Array, first: Evidence, config: CopyConfig) -> Estimate:
    return Estimate(
        name="flagged_share",
        estimand="share of synthetic images that are more alike to a training patient than chance makes them",
        value=float(flagged.mean()),
        interval=proportion_interval(int(flagged.sum()), len(flagged), "exact"),
        method=f"Clopper-Pearson; an honest image is flagged with a chance of {config.flag_level:g}, as far as the "
        "same images reach towards holdout",
        n_synthetic=len(flagged),
        n_real=first.dcr_share.share.n_real,
        floor=config.flag_level,
        better="near_floor",
    )


def _histogram(first: Evidence) -> SimilarityHistogram:
    sets = [first.synthetic.block_score, first.synthetic.holdout_score]
    if first.planted:
        sets.append(np.concatenate([part.train_score for part in first.planted.values()]))
    correlations = [np.tanh(part) for part in sets]
    low = float(np.floor(min(part.min() for part in correlations) * 20) / 20)
    edges = np.linspace(low, 1.0, BINS + 1)
    counts = [tuple(int(n) for n in np.histogram(part, edges)[0]) for part in correlations]
    return SimilarityHistogram(
        edges=tuple(float(edge) for edge in edges),
        train=counts[0],
        holdout=counts[1],
        control=counts[2] if len(counts) > 2 else (),
    )
