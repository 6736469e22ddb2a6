"""The results of an assessment as one frozen value: numbers, row numbers and ids, but no pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medphantom.cohorts.scale import Reading
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.results.model_score import CheckedScore
from medphantom.quality.stats.estimate import Estimate

Verdict = Literal["fail", "screened", "inconclusive"]
RealSplit = Literal["train", "holdout"]


class NetworkFacts(Frozen):
    """A feature network of the assessment.

    Attributes:
        name: ``cross_fitted``, ``simulated``, ``filters``, or the hub id or folder name of an encoder.
        digest: digest of its weights or, for fixed filters, of their definition.
        num_features: length of a feature vector.
        seed: seed of its training, ``None`` for networks that were not trained here.
        fitted_on: images on which it was fitted, in words.
        scores: images that it scores, in words.
        held_out_score: accuracy (exclusive labels) or mean AUROC on the images it scores; ``None`` without labels.
        held_out_measure: performance measure of ``held_out_score``.
    """

    name: str
    digest: str
    num_features: int
    seed: int | None = None
    fitted_on: str
    scores: str
    held_out_score: float | None = None
    held_out_measure: Literal["accuracy", "mean AUROC"] | None = None


class LabelAgreement(Frozen):
    """Agreement of the prompted labels with the predictions of a classifier trained on real images.

    Attributes:
        per_label: one estimate per label (and ``label=None`` over all): accuracy with a Wilson interval for exclusive
            labels, otherwise AUROC of images prompted with the label against those prompted without it; ``floor`` is
            the result of the same classifier on held-out real images.
        labels: order of the rows and columns of ``confusion``.
        confusion: images prompted as row, predicted as column; empty for non-exclusive labels.
    """

    per_label: tuple[Estimate, ...]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = ()


class NearestPair(Frozen):
    """A synthetic image with the most similar real images, as row numbers and ids of both cohorts.

    Attributes:
        synthetic_row: row number in the synthetic cohort.
        synthetic_id: image id of the synthetic image.
        train_row: row of the most similar training image in the real cohort.
        train_id: image id of that training image.
        train_similarity: normalised correlation with it, -1…1.
        holdout_row: row of the most similar holdout image.
        holdout_id: image id of that holdout image.
        holdout_similarity: normalised correlation with it, -1…1.
        flagged: whether the synthetic image was flagged as a copy.
    """

    synthetic_row: int
    synthetic_id: str
    train_row: int
    train_id: str
    train_similarity: float
    holdout_row: int
    holdout_id: str
    holdout_similarity: float
    flagged: bool


class SimilarityHistogram(Frozen):
    """Histogram of the similarities of synthetic images to their nearest real images, without any image ids.

    Attributes:
        edges: ascending bin edges of the normalised correlation, one more than there are bins.
        train: synthetic images by similarity to their nearest training image, out of as many as there are holdout
            images.
        holdout: synthetic images by similarity to their nearest holdout image.
        control: planted copies by similarity to their nearest training image; empty when nothing was planted.
    """

    edges: tuple[float, ...]
    train: tuple[int, ...]
    holdout: tuple[int, ...]
    control: tuple[int, ...] = ()


class ControlKind(Frozen):
    """Planted copies of one kind, and the recall of the search for them.

    Attributes:
        kind: kind of alteration of the copies.
        core: whether the verdict depends on this kind.
        covered: whether the lower bound of its recall is high enough.
        recall: share of the copies that were flagged; ``None`` if none could be planted.
        fewest: smallest number of such copies that fails the set with a power of 80 %; ``None`` if a tenth of the set
            is not enough.
    """

    kind: str
    core: bool
    covered: bool
    recall: Estimate | None
    fewest: int | None


class CopyPValues(Frozen):
    """The tests of one method of comparing images.

    Attributes:
        by: method of comparison: registered detail, or the name of a feature network.
        single_p_value: p value of the test of single images; ``None`` if there are too few.
        dcr_share_p_value: p value of the DCR share.
    """

    by: str
    single_p_value: float | None
    dcr_share_p_value: float


class CopySummary(Frozen):
    """The results of the copy search.

    Attributes:
        verdict: ``fail`` (copies, or a high DCR share), ``screened`` (none found by a search that detects planted
            copies), or ``inconclusive`` (the search is not sensitive enough); never *pass*.
        reasons: reasons for the verdict, one sentence each.
        results: p values by method of comparison.
        share_nearest_in_train: DCR share: share of synthetic images whose nearest real neighbour is in train rather
            than in the holdout, at equal counts; 0.5 without memorisation.
        flagged_share: share of synthetic images that were flagged; ``floor`` is the expected false-positive rate.
        controls: planted copies, by kind.
        flagged_rows: row numbers of all flagged synthetic images, in ascending order of the p value.
        total_flagged: number of flagged images.
        blind_spots: copies and leaks that this search cannot detect.
        histogram: histogram of the similarities; ``None`` if it was not stored.
        least_recall: lower bound of the recall that is required for coverage.
        significance: significance level of all tests together.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    results: tuple[CopyPValues, ...]
    share_nearest_in_train: tuple[Estimate, ...]
    flagged_share: Estimate
    controls: tuple[ControlKind, ...]
    flagged_rows: tuple[int, ...]
    total_flagged: int
    blind_spots: tuple[str, ...]
    least_recall: float
    significance: float
    histogram: SimilarityHistogram | None = None

    @property
    def not_covered(self) -> tuple[str, ...]:
        """Kinds of copies for which the search is not sensitive enough."""
        return tuple(control.kind for control in self.controls if not control.covered)


class AttackResult(Frozen):
    """The performance of one membership inference attack.

    Attributes:
        attack: name of the attack.
        target: object of the attack: ``images`` or ``weights``.
        auroc: area under its ROC curve, by patient.
        tpr: true-positive rates at low false-positive rates that the number of patients supports.
        curve: points of the ROC curve, thinned, as (false-positive rate, true-positive rate).
        bound: upper bound of the AUROC under the formal guarantee; ``None`` without one.
        limit: AUROC that the whole interval of a successful attack exceeds.
        limited_by: origin of the limit: the ``recipe`` (0.5 by default), the formal ``guarantee``, or differences of
            the ``patients`` that exist without the generator.
        flagged: whether the attack succeeded.
    """

    attack: str
    target: Literal["images", "weights"]
    auroc: Estimate
    tpr: tuple[Estimate, ...]
    curve: tuple[tuple[float, float], ...]
    bound: float | None
    limit: float
    limited_by: Literal["recipe", "guarantee", "patients"]
    flagged: bool


class MembershipSummary(Frozen):
    """The results of membership and attribute inference.

    Attributes:
        results: result of each attack.
        blind: blind baseline without the generator; if its interval lies above 0.5, attacks must exceed it.
        disclosure: gain in attribute inference over other patients, per label and attribute.
        reasons: successful attacks on the images, one sentence each; they fail the set.
        weights_reasons: successful attacks on the weights, which advise against sharing the weights.
        gaps: limitations of the attacks.
    """

    results: tuple[AttackResult, ...]
    blind: Estimate
    disclosure: tuple[Estimate, ...]
    reasons: tuple[str, ...]
    weights_reasons: tuple[str, ...]
    gaps: tuple[str, ...]


class QualityReport(Frozen):
    """The result of :func:`medphantom.quality.assessment.assess.assess`.

    Attributes:
        real_digest: digest of the real cohort.
        synthetic_digest: digest of the synthetic cohort.
        config_digest: digest of preprocess and configuration.
        seed: run seed of the assessment.
        readings: how the intensity values of both cohorts were read, under ``real`` and ``synthetic``.
        real_counts: images per split of the real cohort.
        real_patients: patients per split; empty if patients are unknown.
        synthetic_count: number of synthetic images.
        verdict: verdict of the privacy gate, the only verdict in the report; realism and utility are numbers.
        verdict_reasons: reasons for the verdict, one sentence each.
        estimates: headline scores, unique by (name, network, label): Fréchet and kernel distance, ratios,
            precision/recall/density/coverage, diversity, agreement.
        details: scores of each seed of the feature networks.
        networks: feature networks that computed the scores.
        agreement: label agreement; ``None`` without labels.
        copies: result of the copy search.
        nearest: most similar pairs, flagged ones first.
        membership: attacks on single patients; ``None`` if there are too few patients or it is disabled.
        utility: scores on real test patients of classifiers trained on synthetic, on real and on both kinds of images,
            with equal optimiser steps, and of a logistic regression on attributes alone (``metadata``): accuracy of
            exclusive labels, and AUROC by label; empty without labels.
        warnings: warnings that a reader must know before citing a number.
    """

    format_version: Literal[4] = 4
    real_digest: str
    synthetic_digest: str
    config_digest: str
    seed: int
    readings: dict[str, Reading] = Field(default_factory=dict)
    real_counts: dict[str, int] = Field(default_factory=dict)
    real_patients: dict[str, int] = Field(default_factory=dict)
    synthetic_count: int
    verdict: Verdict
    verdict_reasons: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    details: tuple[Estimate, ...] = ()
    networks: tuple[NetworkFacts, ...] = ()
    agreement: LabelAgreement | None = None
    copies: CopySummary | None = None
    nearest: tuple[NearestPair, ...] = ()
    membership: MembershipSummary | None = None
    utility: tuple[CheckedScore, ...] = ()
    warnings: tuple[str, ...] = ()

    def find(self, name: str, *, network: str | None = None, label: str | None = None) -> Estimate:
        """The headline estimate of that name, network and label.

        Raises:
            KeyError: there is none.
        """
        for estimate in self.estimates:
            if (estimate.name, estimate.network, estimate.label) == (name, network, label):
                return estimate
        raise KeyError((name, network, label))

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> QualityReport:
        """Read :meth:`save`.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        return parse_model(
            cls, read_json(path), path, ArtifactError, "is not a quality report of this version; assess again"
        )
