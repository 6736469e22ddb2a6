"""All that was measured of a synthetic cohort, as one frozen value: numbers, row numbers and ids, never pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from medphantom.cohorts.scale import Reading
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.stats.estimate import Estimate

Verdict = Literal["fail", "screened", "inconclusive"]
RealSplit = Literal["train", "holdout"]
TrainedOn = Literal["real", "synthetic", "real_and_synthetic", "metadata"]


class NetworkFacts(Frozen):
    """One feature network that scored.

    Attributes:
        name: ``cross_fitted``, ``simulated``, ``filters``, or the hub id or folder name of an encoder.
        digest: digest of its weights or, for fixed filters, of their definition.
        num_features: length of a feature vector.
        seed: seed of its training, ``None`` for networks that were not trained here.
        fitted_on: whose images it was fitted on, in words.
        scores: whose images it scores, in words.
        held_out_score: accuracy (exclusive labels) or mean AUROC on the images it scores; ``None`` without labels.
        held_out_measure: what ``held_out_score`` is.
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
    """Does a classifier trained on real images see in a synthetic image what its prompt asked for?

    Attributes:
        per_label: one estimate per label (and ``label=None`` over all): accuracy with a Wilson interval for exclusive
            labels, AUROC of prompted present against prompted absent otherwise; ``floor`` is the same classifier's
            figure on held-out real images.
        labels: order of the rows and columns of ``confusion``.
        confusion: images prompted as row, predicted as column; empty for labels that do not exclude each other.
    """

    per_label: tuple[Estimate, ...]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] = ()


class NearestPair(Frozen):
    """A synthetic image beside the real images most like it, as row numbers and ids of the two cohorts.

    Attributes:
        synthetic_row: row number in the synthetic cohort.
        synthetic_id: its image id.
        train_row: row of the most similar training image in the real cohort.
        train_id: its image id.
        train_similarity: normalised correlation with it, -1…1.
        holdout_row: row of the most similar holdout image.
        holdout_id: its image id.
        holdout_similarity: normalised correlation with it, -1…1.
        flagged: whether this image was flagged as a copy.
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
    """How like their nearest real images the synthetic ones are, as counts per bin; it names no image.

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
    """Planted copies of one kind, and what the search found of them.

    Attributes:
        kind: how the copies were disguised.
        core: whether the verdict rests on it.
        covered: whether the lower bound of its recall is high enough.
        recall: share that was flagged; ``None``: none could be planted.
        fewest: so many such copies in the set would have made it fail, four times out of five; ``None``: not even a
            tenth of the set would have.
    """

    kind: str
    core: bool
    covered: bool
    recall: Estimate | None
    fewest: int | None


class CopyResult(Frozen):
    """The tests by one way of comparing images.

    Attributes:
        by: the way: registered detail, or the name of a feature network.
        single_p_value: chance that honest images are so alike to training patients; ``None``: too few to say.
        dcr_share_p_value: chance that an honest crowd leans to train so far.
    """

    by: str
    single_p_value: float | None
    dcr_share_p_value: float


class CopySummary(Frozen):
    """What the copy search found.

    Attributes:
        verdict: ``fail`` (copies, or a lean towards train), ``screened`` (none found by a search that found the planted
            ones), ``inconclusive`` (the search could not have caught a copy). Never *pass*.
        reasons: why, one sentence each.
        results: p-values by every way of comparing.
        share_nearest_in_train: share of synthetic images whose nearest real neighbour lies in train rather than
            holdout, at equal counts; 0.5 is honest.
        flagged_share: share of synthetic images flagged one by one; ``floor`` is the chance of an honest one.
        controls: what was planted, kind by kind.
        flagged_rows: row numbers of all flagged synthetic images, the least likely first.
        total_flagged: how many were flagged.
        blind_spots: what this search cannot see.
        histogram: the similarities behind the verdict, counted; ``None`` when they were not kept.
        least_recall: lower bound of recall from which on a kind is covered.
        significance: chance with which an honest set may fail.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    results: tuple[CopyResult, ...]
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
        """Kinds of copies that the search cannot be relied on to find."""
        return tuple(control.kind for control in self.controls if not control.covered)


class AttackResult(Frozen):
    """How well one attack tells training patients from others.

    Attributes:
        attack: its name.
        target: what it looks at: ``images`` or ``weights``.
        auroc: area under its ROC curve, by patient.
        tpr: share of training patients found at few false alarms, for the shares that the number of patients supports.
        curve: the ROC curve, thinned: (false alarms, found).
        bound: AUROC that no attack exceeds by the formal guarantee; ``None``: there is none.
        limit: AUROC above which its interval lies where the attack succeeded.
        limited_by: what sets that: the ``recipe`` (one half unless it says otherwise), the formal ``guarantee``, or the
            ``patients``, who differ by themselves.
        flagged: whether it succeeded.
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
    """Could somebody tell who was learned from, and what is recorded of them.

    Attributes:
        results: of each attack.
        blind: the same without the generator; where its interval lies above one half, members and others differ by
            themselves, and an attack must exceed that.
        disclosure: gain over other patients in guessing what is recorded, per label and attribute.
        reasons: attacks on the images that succeeded, one sentence each; they fail the set.
        weights_reasons: attacks on the weights that succeeded; they speak against sharing those.
        gaps: what was not shown.
    """

    results: tuple[AttackResult, ...]
    blind: Estimate
    disclosure: tuple[Estimate, ...]
    reasons: tuple[str, ...]
    weights_reasons: tuple[str, ...]
    gaps: tuple[str, ...]


class UtilityScore(Frozen):
    """One cell of the train-on-synthetic-test-on-real table.

    Attributes:
        trained_on: what the classifier learned from, at equal optimiser steps; ``metadata`` is a logistic regression
            on attributes alone.
        estimate: accuracy (exclusive labels, ``label=None``) or AUROC on real test patients.
    """

    trained_on: TrainedOn
    estimate: Estimate


class QualityReport(Frozen):
    """The result of :func:`medphantom.quality.assessment.assess.assess`.

    Attributes:
        real_digest: digest of the real cohort.
        synthetic_digest: digest of the synthetic cohort.
        config_digest: digest of preprocess and configuration.
        seed: run seed of the assessment.
        readings: ``real`` and ``synthetic``: how the values of either cohort were read.
        real_counts: images per split of the real cohort.
        real_patients: patients per split; empty when the source named no patients.
        synthetic_count: synthetic images.
        verdict: of the copy search, the only verdict here; realism and utility are numbers.
        verdict_reasons: why, one sentence each.
        estimates: headline scores, unique by (name, network, label): Fréchet and kernel distance, ratios,
            precision/recall/density/coverage, diversity, agreement.
        details: the same per feature-network seed.
        networks: which feature networks scored.
        agreement: label agreement; ``None`` without labels.
        copies: the copy search.
        nearest: the most similar pairs, flagged ones first.
        membership: attacks on single patients; ``None``: too few patients, or not asked for.
        utility: train on synthetic, test on real; empty without labels.
        warnings: what a reader must know before quoting a number.
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
    utility: tuple[UtilityScore, ...] = ()
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
