"""A first search for copies of training images among synthetic ones, with the gate patients as yardstick.

Two questions. Do synthetic images as a crowd lie nearer to training than to gate patients (at equal counts, honest: one
half)? And does a single synthetic image match one training image far better than it matches anybody else, beyond what
held-out real images ever do? A planted control (training images sent through the autoencoder) says whether the search
could have found anything; without it the best verdict is *inconclusive*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional as F

from cohorts.progress import Progress
from cohorts.records import Array
from quality.config import CopyConfig
from quality.copy_evidence import (
    SMALLEST_YARDSTICK,
    cross_checked_flags,
    draw_subsets,
    fewest_seen,
    flag_threshold,
    isolation,
    recall_estimate,
    share_in_train,
    tail_p_value,
    wins_of_train,
)
from quality.estimate import Estimate
from quality.fingerprints import DEFAULT_SIDE, Fingerprints
from quality.intervals import proportion_interval
from quality.quality_report import CopySummary, SimilarityHistogram, Verdict

QUERIES_PER_BLOCK = 256
FINGERPRINT_IMAGES = 3000
SMALLEST_NULL = 50
SIGNIFICANCE = 0.01
BINS = 40

BLIND_SPOTS = (
    "copies that are rotated, cropped, rescaled, or moved further than the shifts that were tried",
    "copies of a part of an image, such as one lesion, or text burned into a corner",
    "copies of training images that look like many others anyway",
    "membership: that a patient was in the training set can leak without any copy",
)


@dataclass(frozen=True)
class Matches:
    """Nearest real images of each query, and counts over all of them.

    Attributes:
        train: position of the most similar training image.
        train_similarity: its similarity.
        gate: position of the most similar gate image.
        gate_similarity: its similarity.
        isolation: how much better the best training match is than the crowd.
        subset_similarity: similarity to the nearest image of the first training subset (as many images as gate).
        wins: queries nearer to train than to gate, per training subset.
        pseudo_wins: the same for training patients that stand in for gate.
    """

    train: Array
    train_similarity: Array
    gate: Array
    gate_similarity: Array
    isolation: Array
    subset_similarity: Array
    wins: Array
    pseudo_wins: Array


@dataclass(frozen=True)
class RealImages:
    """The real images of a copy search, float32 ``(N, C, *spatial)`` in -1…1, with their patients.

    Attributes:
        train: all training images.
        gate: all gate images.
        more: further real images for the fingerprint (``val``).
        train_patients: patient of each training image.
        gate_patients: patient of each gate image.
    """

    train: Array
    gate: Array
    more: Array
    train_patients: Sequence[str]
    gate_patients: Sequence[str]


class CopySearch:
    """Similarities of any images to the training and gate images of one cohort.

    Args:
        real: what is searched.
        config: how.
        rng: source of all draws.
    """

    def __init__(self, real: RealImages, config: CopyConfig, rng: np.random.Generator) -> None:
        self.config = config
        side = config.side or DEFAULT_SIDE[real.train.ndim - 2]
        pool = np.concatenate([real.train, real.gate, real.more])
        # Every training and gate image has the same chance to shape the fingerprint. Were all of gate in it but not all
        # of train, whitening would push gate away from honest images, and they would seem to lean to train.
        self.fingerprints = Fingerprints.fit(pool[rng.permutation(len(pool))[:FINGERPRINT_IMAGES]], side)
        self.train = self.fingerprints.of(torch.from_numpy(real.train))
        self.gate = self.fingerprints.of(torch.from_numpy(real.gate))
        self.train_patients = np.unique(np.asarray(real.train_patients), return_inverse=True)[1]
        self.subsets = draw_subsets(real.train_patients, real.gate_patients, config.repeats, rng)

    def matches(self, queries_NC: Array, what: str, progress: Progress | None = None) -> Matches:
        """Nearest real images of queries, block by block, so that memory does not grow with their number."""
        blocks = []
        for start in range(0, len(queries_NC), QUERIES_PER_BLOCK):
            train, gate = self.fingerprints.similarities(
                queries_NC[start : start + QUERIES_PER_BLOCK],
                [self.train, self.gate],
                self.config.max_shift,
                mirror=self.config.mirror,
            )
            blocks.append(self._matches(train, gate))
            if progress is not None:
                progress(min(start + QUERIES_PER_BLOCK, len(queries_NC)), len(queries_NC), what)
        counts = ("wins", "pseudo_wins")
        joined = {field.name: [getattr(block, field.name) for block in blocks] for field in fields(Matches)}
        return Matches(**{k: np.sum(v, axis=0) if k in counts else np.concatenate(v) for k, v in joined.items()})

    def share_by_features(self, queries_ND: Array, train_ND: Array, gate_ND: Array, *, network: str) -> Estimate:
        """The share in train by cosine of a feature network's features, standardised over train and gate alike."""
        both = np.concatenate([train_ND, gate_ND]).astype(np.float64)
        center, scale = both.mean(axis=0), both.std(axis=0) + 1e-9
        queries, train, gate = (
            F.normalize(torch.from_numpy((part - center) / scale), dim=1) for part in (queries_ND, train_ND, gate_ND)
        )
        wins, pseudo = wins_of_train((queries @ train.T).numpy(), (queries @ gate.T).numpy(), self.subsets)
        size = self.subsets.size
        return share_in_train(
            wins, pseudo, total=len(queries), size=size, what="by cosine of features", network=network
        )

    def _matches(self, train_NM: Array, gate_NK: Array) -> Matches:
        here = np.arange(len(train_NM))
        train, gate = train_NM.argmax(axis=1), gate_NK.argmax(axis=1)
        wins, pseudo = wins_of_train(train_NM, gate_NK, self.subsets)
        return Matches(
            train=train,
            train_similarity=train_NM[here, train],
            gate=gate,
            gate_similarity=gate_NK[here, gate],
            isolation=isolation(train_NM, gate_NK, self.train_patients),
            subset_similarity=train_NM[:, self.subsets.train[0]].max(axis=1),
            wins=wins,
            pseudo_wins=pseudo,
        )


@dataclass(frozen=True)
class Evidence:
    """What a search found, before it is judged.

    Attributes:
        synthetic: matches of the synthetic images.
        null: matches of held-out real images (through the autoencoder where there is one).
        control: matches of planted copies, ``None`` when nothing could be planted.
        null_patients: patient of each held-out image.
        planted: what was planted, in words.
    """

    synthetic: Matches
    null: Matches
    control: Matches | None
    null_patients: Sequence[str]
    planted: str | None


def judge(
    evidence: Evidence, shares: Sequence[Estimate], gate_size: int, config: CopyConfig, rng: np.random.Generator
) -> tuple[CopySummary, Array]:
    """Weigh the evidence.

    *fail*: an unlikely number of synthetic images stand out, or the crowd leans to train. *inconclusive*: the planted
    control was not found (or could not be planted), or a yardstick is too small. *screened*: neither. A search never
    passes anything.

    Returns:
        The summary, and whether each synthetic image is flagged.
    """
    null, synthetic = evidence.null.isolation, evidence.synthetic.isolation
    threshold = flag_threshold(null, config.false_flags)
    flagged = synthetic > threshold
    recall = None
    if evidence.control is not None and evidence.planted is not None:
        recall = recall_estimate(evidence.control.isolation, threshold, evidence.planted)
    against = [*_lean(shares), *_standing_out(synthetic, null)]
    gaps = _gaps(recall, len(null), gate_size, config)
    verdict: Verdict = "fail" if against else "inconclusive" if gaps else "screened"
    nothing = "no synthetic image stands out more often than held-out real images do, and the planted copies were found"
    order = np.argsort(-synthetic, kind="stable")
    summary = CopySummary(
        verdict=verdict,
        reasons=tuple([*against, *gaps] or [nothing]),
        share_nearest_in_train=tuple(shares),
        flagged_share=_flagged_share(flagged, evidence, config, rng),
        control_recall=recall,
        control=evidence.planted,
        flagged_rows=tuple(int(row) for row in order if flagged[row]),
        total_flagged=int(flagged.sum()),
        blind_spots=tuple(_blind_spots(evidence, rng)),
        histogram=_histogram(evidence),
    )
    return summary, flagged


def _blind_spots(evidence: Evidence, rng: np.random.Generator) -> Iterator[str]:
    synthetic, null = evidence.synthetic.isolation, evidence.null.isolation
    if evidence.control is not None:
        needed = fewest_seen(synthetic, null, evidence.control.isolation, SIGNIFICANCE, rng)
        if needed <= len(synthetic):
            yield f"fewer than about {needed} copies among {len(synthetic)} images (look at the nearest pairs)"
    yield from BLIND_SPOTS


def _lean(shares: Sequence[Estimate]) -> list[str]:
    """Shares whose whole interval lies above one half."""
    return [
        f"{estimate.value:.3f} of the synthetic images lie nearer to train than to gate (honest: 0.5, "
        f"interval {estimate.interval[0]:.3f} to {estimate.interval[1]:.3f}, {estimate.network or 'pixels'})"
        for estimate in shares
        if estimate.interval is not None and estimate.value is not None and estimate.interval[0] > 0.5
    ]


def _standing_out(synthetic: Array, null: Array) -> list[str]:
    chance = tail_p_value(synthetic, null)
    if chance >= SIGNIFICANCE:
        return []
    return [f"more synthetic images match one training image too well than chance allows (p = {chance:.1g})"]


def _gaps(recall: Estimate | None, null_size: int, gate_size: int, config: CopyConfig) -> list[str]:
    found = []
    if recall is None or recall.interval is None or recall.value is None:
        found.append("no copy could be planted, so nobody knows whether the search would find one")
    elif recall.interval[0] < config.least_recall:
        found.append(
            f"of the planted copies {recall.value:.2f} were found (lower bound {recall.interval[0]:.2f}, needed "
            f"{config.least_recall:.2f})"
        )
    if gate_size < SMALLEST_YARDSTICK:
        found.append(f"gate holds {gate_size} images, at least {SMALLEST_YARDSTICK} are needed as yardstick")
    if null_size < SMALLEST_NULL:
        found.append(f"test holds {null_size} images, at least {SMALLEST_NULL} are needed to calibrate single flags")
    return found


def _flagged_share(flagged: Array, evidence: Evidence, config: CopyConfig, rng: np.random.Generator) -> Estimate:
    null = evidence.null.isolation
    false_flags = cross_checked_flags(null, evidence.null_patients, config.false_flags, rng)
    return Estimate(
        name="flagged_share",
        estimand="share of synthetic images that match one training image better than held-out images ever do",
        value=float(flagged.mean()),
        interval=proportion_interval(int(flagged.sum()), len(flagged), "exact"),
        method=f"Clopper-Pearson; threshold: at most {config.false_flags:.0%} of held-out images; floor: held-out "
        "images by the threshold of the other half of their patients",
        n_synthetic=len(flagged),
        n_real=len(null),
        floor=false_flags / len(null),
        floor_interval=proportion_interval(false_flags, len(null), "exact"),
    )


def _histogram(evidence: Evidence) -> SimilarityHistogram:
    sets = [evidence.synthetic.subset_similarity, evidence.synthetic.gate_similarity]
    if evidence.control is not None:
        sets.append(evidence.control.train_similarity)
    low = float(np.floor(min(part.min() for part in sets) * 20) / 20)
    edges = np.linspace(low, 1.0, BINS + 1)
    counts = [tuple(int(n) for n in np.histogram(np.minimum(part, 1.0), edges)[0]) for part in sets]
    return SimilarityHistogram(
        edges=tuple(float(edge) for edge in edges),
        train=counts[0],
        gate=counts[1],
        control=counts[2] if len(counts) > 2 else (),
    )
