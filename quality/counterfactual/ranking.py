"""Ranking of interventions by the change of a classifier's output between factual and counterfactual images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from pydantic import Field

from medphantom.cohorts.pairs import pair_rows
from medphantom.cohorts.preprocess import network_images
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array, Frozen
from medphantom.quality.data.evaluation_data import on_stored_grid
from medphantom.quality.data.pairs import pairs_preprocess, read_role, source_rows
from medphantom.quality.networks.outside_classifier import ClassifierInput, OutsideClassifier
from medphantom.quality.stats.correction import holm
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.means import Means

EXACT_PATIENTS = 12  # largest number of patients for the exact test
SIGN_DRAWS = 9_999
NO_COHORT = "the source images were not given: give their cohort to measure the effect of the method itself"


class RankConfig(Frozen):
    """Settings of the ranking.

    Attributes:
        threshold: output at or above which the decision is positive.
        bootstrap: bootstrap samples for each interval.
        seed: seed of the bootstrap samples.
        takes: input format of the classifier.
    """

    threshold: float = 0.5
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    takes: ClassifierInput = ClassifierInput()


class RankedIntervention(Frozen):
    """The effect of one intervention on the classifier.

    Attributes:
        intervention: name of the intervention in words.
        pairs_digest: digest of the cohort of pairs.
        total_pairs: number of images with a counterfactual.
        total_patients: number of patients of these images.
        change: mean output on the counterfactual minus that on the factual image; the floor is the change from source
            to factual image, which the method causes without an intervention.
        flipped: share of images whose decision at the threshold changes; the floor is the same between source and
            factual image.
        p: p value of a paired sign-flip test over patients of a zero mean change; ``None`` if it was refused.
        p_holm: p value corrected for all interventions of the ranking (Holm 1979).
    """

    intervention: str
    pairs_digest: str
    total_pairs: int
    total_patients: int
    change: Estimate
    flipped: Estimate
    p: float | None = None
    p_holm: float | None = None


class Ranking(Frozen):
    """Interventions ranked by the absolute mean change, largest first.

    Attributes:
        output: name of the classifier's output.
        config: settings of the ranking.
        interventions: ranked interventions, with refused ones last.
        remarks: remarks that a reader must know before citing the ranking.
    """

    output: str
    config: RankConfig
    interventions: tuple[RankedIntervention, ...]
    remarks: tuple[str, ...] = ()


def rank_interventions(
    classifier: OutsideClassifier,
    pairs: Sequence[Cohort],
    output: str,
    config: RankConfig,
    *,
    real: Cohort | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank interventions, one cohort of pairs each.

    Args:
        classifier: classifier whose output is compared.
        pairs: cohorts of kind ``counterfactual``, one per intervention.
        output: name or index of the output.
        config: settings of the ranking.
        real: cohort of the source images, needed for the floor.
        progress: callback that receives the number of finished cohorts.

    Raises:
        InputError: there are no pairs, pairs are repeated or of another cohort, or the classifier cannot process them.
    """
    if not pairs or len({cohort.digest for cohort in pairs}) != len(pairs):
        raise InputError("a ranking needs different cohorts of pairs", "give each cohort once")
    column = classifier.column(output)
    found = []
    for place, cohort in enumerate(pairs):
        seen = _seen(classifier, column, config.takes, cohort, real)
        found.append(_one(cohort, seen, config))
        if progress is not None:
            progress(place + 1, len(pairs), "interventions")
    corrected = holm([one.p for one in found])
    ranked = [one.model_copy(update={"p_holm": p}) for one, p in zip(found, corrected, strict=True)]
    ranked.sort(key=lambda one: -abs(one.change.value) if one.change.value is not None else 1.0)
    return Ranking(
        output=output,
        config=config,
        interventions=tuple(ranked),
        remarks=() if real is not None else (NO_COHORT,),
    )


@dataclass(frozen=True)
class _Seen:
    """One output of a classifier for every pair; ``source`` is ``None`` if the source images were not given."""

    source: Array | None
    factual: Array
    counterfactual: Array
    patients: Array


def _seen(
    classifier: OutsideClassifier, column: int, takes: ClassifierInput, pairs: Cohort, real: Cohort | None
) -> _Seen:
    rows, preprocess = pair_rows(pairs), pairs_preprocess(pairs)

    def read(images: Array) -> Array:
        return classifier.read(takes.prepared(images), column)

    source = None
    if real is not None:
        originals = network_images(real, source_rows(real, pairs, rows), preprocess)
        source = read(on_stored_grid(originals, preprocess))
    return _Seen(
        source,
        read(read_role(pairs, rows, "factual", preprocess)),
        read(read_role(pairs, rows, "counterfactual", preprocess)),
        np.asarray(pairs.patients(rows.rows["factual"])),
    )


def _one(pairs: Cohort, seen: _Seen, config: RankConfig) -> RankedIntervention:
    words, patients = intervention_words(pairs), seen.patients
    means = Means(config.bootstrap, derive_seed(config.seed, "ranking", pairs.digest))
    change = means.mean(
        "change",
        "mean output on the counterfactual minus that on the factual image; floor: factual minus source image, the "
        "effect of the method itself",
        seen.counterfactual - seen.factual,
        patients,
        floor=None if seen.source is None else seen.factual - seen.source,
        better="near_floor",
        label=words,
    )
    yes = seen.factual >= config.threshold
    flipped = means.share(
        "flipped",
        f"share of images whose decision at {config.threshold:g} differs between factual and counterfactual image; "
        "floor: between source and factual image",
        np.asarray(yes != (seen.counterfactual >= config.threshold)),
        patients,
        floor=None if seen.source is None else np.asarray(yes != (seen.source >= config.threshold)),
        label=words,
    )
    refused = change.value is None
    return RankedIntervention(
        intervention=words,
        pairs_digest=pairs.digest,
        total_pairs=len(patients),
        total_patients=len(np.unique(patients)),
        change=change,
        flipped=flipped,
        p=None if refused else sign_flip_p(seen.counterfactual - seen.factual, patients, config.seed),
    )


def sign_flip_p(changes: Array, patients: Array, seed: int) -> float:
    """Two-sided p value of a paired permutation test in which the images of a pair are exchanged, by patient.

    Fisher's randomisation test on sums of changes per patient: all signs for up to :data:`EXACT_PATIENTS` patients,
    otherwise :data:`SIGN_DRAWS` random ones in addition to the observed one (Phipson and Smyth 2010).
    """
    _, owner = np.unique(patients, return_inverse=True)
    sums = np.bincount(owner, weights=changes)
    observed, slack = abs(float(sums.sum())), 1e-12 * float(np.abs(sums).sum())
    if len(sums) <= EXACT_PATIENTS:
        signs = np.array(list(product((-1, 1), repeat=len(sums))))
        return float((np.abs(signs @ sums) >= observed - slack).mean())
    rng = np.random.default_rng(derive_seed(seed, "signs"))
    hits = 0
    for start in range(0, SIGN_DRAWS, 1000):
        signs = rng.choice((-1.0, 1.0), size=(min(1000, SIGN_DRAWS - start), len(sums)))
        hits += int((np.abs(signs @ sums) >= observed - slack).sum())
    return (1 + hits) / (1 + SIGN_DRAWS)


def intervention_words(pairs: Cohort) -> str:
    """The intervention of the pairs in words, or the beginning of their digest if it is not recorded."""
    intervention = pairs.schema.generation.get("intervention")
    if not isinstance(intervention, dict):
        return f"pairs {pairs.digest[:12]}"
    parts = [f"{name} {'present' if shown else 'absent'}" for name, shown in intervention.get("labels", {}).items()]
    parts += [f"{name} {value}" for name, value in intervention.get("attributes", {}).items()]
    parts += [f"{name} {low:g} to {high:g}" for name, (low, high) in intervention.get("ranges", {}).items()]
    return ", ".join(parts) or f"pairs {pairs.digest[:12]}"
