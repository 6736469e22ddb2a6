"""The privacy gate: derives *fail*, *inconclusive* or *screened* from the copy search. It never says *pass*."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.config import CORE_KINDS, CopyConfig
from medphantom.quality.privacy.contrast import CopyTest
from medphantom.quality.privacy.controls import control_kind, fewest_detected
from medphantom.quality.privacy.dcr_share import SMALLEST_HOLDOUT, DcrShare
from medphantom.quality.privacy.neighbours import NeighbourSimilarity
from medphantom.quality.results.quality_report import (
    ControlKind,
    CopyPValues,
    CopySummary,
    SimilarityHistogram,
    Verdict,
)
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.intervals import proportion_interval

BINS = 40
GATE_VERSION = 4  # increase it when the same evidence leads to another verdict, so that cached verdicts are redone
BLIND_SPOTS = (
    "copies of a part of an image, such as one lesion or burned-in text",
    "copies with other or stronger alterations than those of the planted copies",
    "copies of training images that closely resemble many other images",
    "membership: an attack may infer that a patient was in the training set although no image is a copy",
)


@dataclass(frozen=True)
class Evidence:
    """The results of one method of comparing images.

    Attributes:
        by: method of comparison: :data:`DETAIL`, or the name of a feature network.
        synthetic: nearest-neighbour similarity of the synthetic images.
        test: test of single images; ``None`` if there are too few images for it.
        dcr_share: DCR share of the whole set.
        planted: nearest-neighbour similarity of the planted copies, by kind.
    """

    by: str
    synthetic: NeighbourSimilarity
    test: CopyTest | None
    dcr_share: DcrShare
    planted: Mapping[str, NeighbourSimilarity]


@dataclass(frozen=True)
class GateResult:
    """The summary, the p value of each synthetic image under the null hypothesis of no copy, and the flagged images."""

    summary: CopySummary
    p_values: Array
    flagged: Array


def evaluate_gate(
    evidence: Sequence[Evidence],
    holdout_size: int,
    config: CopyConfig,
    rng: np.random.Generator,
    *,
    too_few: str | None,
) -> GateResult:
    """Derive the verdict.

    *fail*: single images are more similar to training images than expected by chance, or the DCR share is significantly
    above 0.5. *inconclusive*: a core kind of planted copies is not covered, or the holdout is too small. *screened*:
    neither.

    Args:
        evidence: results of every method of comparison, starting with registered detail.
        holdout_size: number of holdout images.
        config: thresholds of the gate.
        rng: source of all random draws.
        too_few: reason why single images could not be tested, or ``None``.
    """
    first = evidence[0].synthetic
    level = config.significance / (2 * len(evidence))  # every method tests single images and the DCR share
    p_values = _union([part.test.p_values for part in evidence if part.test is not None], len(first))
    flagged = p_values < config.flag_level
    kinds = tuple(_kinds(evidence, config, level, rng))
    against = [*_single(evidence, level), *_high_dcr_share(evidence, level)]
    gaps = [*([too_few] if too_few else _not_covered(kinds, config)), *_small_holdout(holdout_size), *_lenient(config)]
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
    return GateResult(summary, p_values, flagged)


def _union(p_values: Sequence[Array], total: int) -> Array:
    """The smallest p value over the methods, corrected for their number (Bonferroni)."""
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
        fewest = fewest_detected(tests, contrasts, level, rng)
        yield control_kind(kind, p_values, config, fewest=fewest, total=total)


def _results(evidence: Sequence[Evidence]) -> Iterator[CopyPValues]:
    for part in evidence:
        yield CopyPValues(
            by=part.by,
            single_p_value=None if part.test is None else part.test.p_value,
            dcr_share_p_value=part.dcr_share.p_value,
        )


def _single(evidence: Sequence[Evidence], level: float) -> Iterator[str]:
    for part in evidence:
        if part.test is not None and part.test.p_value < level:
            yield (
                f"the {part.test.depth} most suspicious images are more similar to training patients than expected by "
                f"chance (by {part.by}, p = {part.test.p_value:.1g})"
                if part.test.depth > 1
                else f"one image is more similar to a training patient than expected by chance (by {part.by}, "
                f"p = {part.test.p_value:.1g})"
            )


def _high_dcr_share(evidence: Sequence[Evidence], level: float) -> Iterator[str]:
    """Significantly high DCR shares, as reasons."""
    for part in evidence:
        share, p_value = part.dcr_share.share, part.dcr_share.p_value
        if p_value < level:
            yield (
                f"the DCR share is {share.value:.3f}: so many synthetic images are closer to training than to holdout "
                f"images (0.5 without memorisation; by {part.by}, p = {p_value:.1g})"
            )


def _not_covered(kinds: Sequence[ControlKind], config: CopyConfig) -> Iterator[str]:
    for kind in kinds:
        if not kind.core or kind.covered:
            continue
        if kind.recall is None or kind.recall.interval is None:
            yield f"no copy of the kind '{kind.kind}' could be planted, so the sensitivity for this kind is unknown"
        else:
            yield (
                f"the recall of {kind.recall.n_synthetic} planted copies of the kind '{kind.kind}' is "
                f"{kind.recall.value:.2f} (lower bound {kind.recall.interval[0]:.3f}, "
                f"required {config.least_recall:.2f})"
            )


def _screened_by(kinds: Sequence[ControlKind], flagged: Array, config: CopyConfig) -> str:
    """The evidence by which a set is screened, as a reason."""
    core = [kind.recall for kind in kinds if kind.core and kind.recall is not None and kind.recall.interval is not None]
    bound = min(recall.interval[0] for recall in core if recall.interval is not None)
    return (
        "no image is more similar to a training patient than expected by chance "
        f"({int(flagged.sum())} of {len(flagged)} flagged, expected false-positive rate {config.flag_level:g}), and "
        f"the recall of each of {len(core)} core kinds of planted copies is at least {bound:.3f} (95 % lower bound)"
    )


def _lenient(config: CopyConfig) -> Iterator[str]:
    """Settings that make the search less sensitive than the defaults, as reasons."""
    usual = CopyConfig()
    pairs = (
        ("least_recall", config.least_recall < usual.least_recall),
        ("significance", config.significance < usual.significance),
        ("flag_level", config.flag_level > usual.flag_level),
    )
    for name, lenient in pairs:
        if lenient:
            yield (
                f"assess.copies.{name} {getattr(config, name):g} is more lenient than {getattr(usual, name):g}, which "
                "is required for screening"
            )


def _small_holdout(holdout_size: int) -> Iterator[str]:
    if holdout_size < SMALLEST_HOLDOUT:
        yield f"the holdout has {holdout_size} images, but at least {SMALLEST_HOLDOUT} are required as a reference"


def _flagged_share(flagged: Array, first: Evidence, config: CopyConfig) -> Estimate:
    return Estimate(
        name="flagged_share",
        estimand="share of synthetic images that are more similar to a training patient than expected by chance",
        value=float(flagged.mean()),
        interval=proportion_interval(int(flagged.sum()), len(flagged), "exact"),
        method=f"Clopper-Pearson; the false-positive rate of {config.flag_level:g} is calibrated by the similarity of "
        "the same images to the holdout",
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
