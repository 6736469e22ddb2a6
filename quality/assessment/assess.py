"""The assessment: all scores of a synthetic cohort, computed part by part, resumable and reproducible by seed.

``work`` holds one JSON file per finished part, named by the digest of everything that it depends on, and the
checkpoints of all small classifiers. Finished parts are not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.scale import own_reading
from medphantom.cohorts.store import Cohort
from medphantom.core.folders import json_digest, kept, work_folder, write_json
from medphantom.core.progress import Progress
from medphantom.core.records import Frozen
from medphantom.quality.assessment.cautions import cautions
from medphantom.quality.assessment.condition_part import attribute_part, text_part
from medphantom.quality.assessment.parts import (
    Context,
    CopyScores,
    Estimates,
    LabelScores,
    copy_part,
    diversity_part,
    label_part,
    mask_part,
)
from medphantom.quality.assessment.privacy_part import ATTACKS_VERSION, MembershipScores, membership_part
from medphantom.quality.config import AssessConfig, MembershipConfig
from medphantom.quality.data.evaluation_data import EvaluationData, GeneratorHooks
from medphantom.quality.fidelity.scores import ImageSets, RunScores, Shown, estimates_of, score_run
from medphantom.quality.networks.features import NetworkRun, check_names, cross_fitted, simulated
from medphantom.quality.networks.fixed_networks import encoder, filter_bank, radiomics, volume_filters
from medphantom.quality.networks.radiomics import LEAST_REFERENCE
from medphantom.quality.privacy.gate import GATE_VERSION
from medphantom.quality.privacy.membership import SMALLEST
from medphantom.quality.results.quality_report import CopySummary, MembershipSummary, QualityReport, Verdict
from medphantom.quality.stats.estimate import Estimate

__all__ = ["AssessConfig", "assess"]

TRAINED = ("cross_fitted", "simulated")
WEIGHTS = {
    "cross_fitted": 8,
    "simulated": 6,
    "filters": 1,
    "diversity": 1,
    "labels": 12,
    "masks": 6,
    "copies": 5,
    "membership": 1,
    "attributes": 3,
    "texts": 1,
}  # relative computing times
NO_SEARCH = ("the copy search needs training images of at least two patients, and holdout images",)

Part = TypeVar("Part", bound=Frozen)


def assess(
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    config: AssessConfig,
    *,
    work: Path,
    hooks: GeneratorHooks | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Score a synthetic cohort against the real cohort that it represents; it may come from any generator.

    Args:
        real: real cohort with splits; ``test`` is the reference of the scores, ``holdout`` that of the copy search.
        synthetic: synthetic cohort whose labels are the prompts of its images.
        preprocess: preprocessing of the images for networks.
        config: settings of the assessment.
        work: private folder for finished parts and checkpoints; it is created, and may be removed afterwards.
        hooks: functions of the generator; without them distances have no ceiling, and the copy search is
            inconclusive.
        progress: callback that receives the progress in thousandths of the whole.

    Raises:
        InputError: the cohorts cannot be compared, or a feature network is not available.
        UnsupportedClaim: a configured feature network has no training data.
    """
    data = EvaluationData(real, synthetic, preprocess, hooks or GeneratorHooks(), config.synthetic_range)
    data.check()
    return _Assessment(data, config, work, progress).report()


def screen_copies(
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    config: AssessConfig,
    *,
    work: Path,
    hooks: GeneratorHooks | None = None,
    progress: Progress | None = None,
) -> CopySummary | None:
    """Run only the copy search, with features of the fixed filter bank, so that nothing is trained.

    Args:
        real: real cohort with training and holdout images.
        synthetic: synthetic images to be searched for copies of ``train``.
        preprocess: preprocessing of the images before the comparison.
        config: settings, of which only ``copies`` and ``seed`` are used.
        work: private folder for intermediate results.
        hooks: functions of the generator, as in :func:`assess`.
        progress: callback that receives the progress.

    Returns:
        The result; ``None`` if ``train`` has fewer than two patients or ``holdout`` has none.

    Raises:
        InputError: the cohorts cannot be compared.
    """
    data = EvaluationData(real, synthetic, preprocess, hooks or GeneratorHooks(), config.synthetic_range)
    data.check()
    context = Context(data, config, work, progress or (lambda *_: None))
    bank = filter_bank(len(data.rows["test"]), config.classifier.device).folds[0].network
    return copy_part(context, bank).summary


class _Assessment:
    """The state of one call of :func:`assess`."""

    def __init__(self, data: EvaluationData, config: AssessConfig, work: Path, progress: Progress | None) -> None:
        self.data, self.config, self.progress = data, config, progress
        self.parts = work / "parts"
        self.context = Context(data, config, work / "classifiers", self.tell)
        trained = "simulated" if data.targets.source == "none" else "cross_fitted"
        scaled = ("radiomics",) if len(data.rows["train"]) >= LEAST_REFERENCE else ()
        whole = ("volume_filters",) if data.real.schema.spatial_dims == 3 else ()
        self.names = config.networks or (trained, "filters", *whole, *scaled)
        check_names(self.names)
        self.seeds = {name: range(config.network_seeds) if name in TRAINED else range(1) for name in self.names}
        self.runs: dict[tuple[str, int], NetworkRun] = {}
        self.total_weight = sum(WEIGHTS.get(name, 2) * len(self.seeds[name]) for name in self.names)
        parts = [
            "diversity",
            "labels",
            "copies",
            "membership",
            "attributes",
            "texts",
            *(["masks"] if data.mask_values else []),
        ]
        self.total_weight += sum(WEIGHTS[name] for name in parts)
        self.done_weight = self.weight = 0

    def report(self) -> QualityReport:
        """Compute all parts and assemble the report."""
        config, data = self.config, self.data
        scored = [[self.fidelity(name, number) for number in self.seeds[name]] for name in self.names]
        trainer = config.classifier.model_dump(mode="json")
        diversity = self.part("diversity", config.diversity_pairs, Estimates, lambda: diversity_part(self.context))
        labels = self.part(
            "labels", [trainer, config.utility.model_dump()], LabelScores, lambda: label_part(self.context)
        )
        masks = Estimates(estimates=())
        if data.mask_values:
            masks = self.part("masks", config.segmenter.model_dump(), Estimates, lambda: mask_part(self.context))
        more = self.conditions()
        by = self.names[0]
        copies = self.part(
            "copies",
            [GATE_VERSION, config.copies.model_dump(), by, trainer if by in TRAINED else None],
            CopyScores,
            lambda: copy_part(self.context, self.run(by, 0).folds[0].network),
        )
        attacked = self.part(
            "membership",
            [ATTACKS_VERSION, config.membership.model_dump(), data.hooks.attack is not None],
            MembershipScores,
            lambda: membership_part(self.context),
        )
        known = data.real.schema.patients == "known"
        summary = copies.summary
        verdict, verdict_reasons = _verdict(summary, attacked.summary, config)
        return QualityReport(
            real_digest=data.real.digest,
            synthetic_digest=data.synthetic.digest,
            config_digest=json_digest([data.preprocess.model_dump(mode="json"), config.model_dump(mode="json")]),
            seed=config.seed,
            readings={"real": own_reading(data.real, data.preprocess), "synthetic": data.reading},
            real_counts={split: len(data.rows[split]) for split in SPLITS},
            real_patients={split: len(set(data.patients[split])) for split in SPLITS} if known else {},
            synthetic_count=len(data.synthetic),
            verdict=verdict,
            verdict_reasons=verdict_reasons,
            estimates=(
                *(e for runs in scored for e in estimates_of(runs, per_seed=False)),
                *diversity.estimates,
                *masks.estimates,
                *labels.conditions,
                *more,
            ),
            details=tuple(_details(scored)),
            networks=tuple(run.facts for runs in scored for run in runs),
            agreement=labels.agreement,
            copies=summary,
            nearest=copies.nearest,
            membership=attacked.summary,
            utility=labels.utility,
            warnings=tuple(cautions(data, [run.facts for runs in scored for run in runs])),
        )

    def conditions(self) -> tuple[Estimate, ...]:
        """Agreement with prompted attribute values and texts."""
        config = self.config
        trainer = config.classifier.model_dump(mode="json")
        read = self.part("attributes", trainer, Estimates, lambda: attribute_part(self.context))
        texts = self.part("texts", config.text_encoder, Estimates, lambda: text_part(self.context))
        return (*read.estimates, *texts.estimates)

    # ---- parts ----

    def part(
        self, name: str, settings: object, kind: type[Part], make: Callable[[], Part], weight: int | None = None
    ) -> Part:
        """A finished part from ``work``, or a new one, which is stored there."""
        self.weight = WEIGHTS.get(name, 2) if weight is None else weight
        key = json_digest([self.data.fingerprint, self.config.seed, name, settings])
        path = self.parts / f"{name}-{key[:16]}.json"
        found = kept(kind, path)
        if found is None:
            self.tell(0, 1, name.replace("_", " "))
            found = make()
            work_folder(path.parent)
            write_json(path, found.model_dump(mode="json"))
        self.done_weight += self.weight
        self.weight = 0
        self.tell(0, 1, name.replace("_", " "))
        return found

    def tell(self, done: int, total: int, what: str = "") -> None:
        """Report the progress of the current part as progress of the whole."""
        if self.progress is not None:
            share = self.weight * done / total if total else 0
            self.progress(int(1000 * (self.done_weight + share) / self.total_weight), 1000, what)

    def run(self, name: str, number: int) -> NetworkRun:
        """A feature network, created when it is first needed."""
        if (name, number) not in self.runs:
            self.runs[name, number] = self.make_run(name, self.config.seed + number)
        return self.runs[name, number]

    def make_run(self, name: str, seed: int) -> NetworkRun:
        data, config = self.data, self.config
        total_test, total_synthetic = len(data.rows["test"]), len(data.synthetic)
        work = self.context.work
        if name == "cross_fitted":
            return cross_fitted(
                data.images, data.patients, data.targets, total_synthetic=total_synthetic,
                seed=seed, config=config.classifier, work=work, progress=self.tell,
            )  # fmt: skip
        if name == "simulated":
            return simulated(
                data.preprocess, total_test, total_synthetic=total_synthetic,
                seed=seed, config=config.classifier, work=work, progress=self.tell,
            )  # fmt: skip
        if name == "filters":
            return filter_bank(total_test, config.classifier.device)
        if name == "volume_filters":
            return volume_filters(total_test, data.real.schema.spatial_dims, config.classifier.device)
        if name == "radiomics":
            return radiomics(data.images["train"], total_test)
        return encoder(name, total_test, config.classifier.device)

    def fidelity(self, name: str, number: int) -> RunScores:
        """Distances and manifold scores of one network and seed."""
        data, config = self.data, self.config

        def make() -> RunScores:
            images = ImageSets(
                test=data.images["test"],
                synthetic=data.synthetic_images,
                reconstruction=data.test_reconstruction,
                patients=data.patients["test"],
                test_class=data.targets.classes("test") if data.requested_class is not None else None,
                synthetic_class=data.requested_class,
                shown=self.shown(),
            )
            rng = self.context.rng("halves", name, number)
            return score_run(self.run(name, number), images, draws=config.draws, rng=rng, work=self.parts)

        settings = {"network": name, "number": number, "draws": config.draws}
        settings |= {"classifier": config.classifier.model_dump()} if name in TRAINED else {}
        return self.part("fidelity", settings, RunScores, make, WEIGHTS.get(name, 2))

    def shown(self) -> tuple[Shown, ...]:
        """The prompted labels with their real and synthetic images."""
        data = self.data
        if data.targets.source != "labels":
            return ()
        sides = (data.targets.values["test"], data.requested)
        columns = [tuple(side[:, place] == 1 for side in sides) for place in range(len(data.targets.names))]
        return tuple(
            Shown(name, test, synthetic)
            for name, (test, synthetic) in zip(data.targets.names, columns, strict=True)
            if test.any() and synthetic.any()
        )


def _verdict(
    copies: CopySummary | None, attacked: MembershipSummary | None, config: AssessConfig
) -> tuple[Verdict, tuple[str, ...]]:
    """The empirical verdict: a detected leak outweighs negative results, and missing tests preclude *screened*."""
    against = () if attacked is None else attacked.reasons
    gaps = tuple(_not_attacked(attacked, config))
    if copies is None:
        return ("fail", (*against, *NO_SEARCH)) if against else ("inconclusive", (*NO_SEARCH, *gaps))
    found = copies.reasons if copies.verdict != "screened" else ()
    if against or copies.verdict == "fail":
        return "fail", (*found, *against)
    if found or gaps:
        return "inconclusive", (*found, *gaps)
    return "screened", (*copies.reasons, *_attacked_by(attacked))


def _attacked_by(attacked: MembershipSummary | None) -> Iterator[str]:
    """Results of the attacks on the synthetic images, as reasons."""
    for result in () if attacked is None else attacked.results:
        interval = result.auroc.interval
        if result.target == "images" and interval is not None:
            yield (
                f"membership inference by {result.attack} separates training patients from others with AUROC "
                f"{result.auroc.value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]; an interval above "
                f"{result.limit:.2f} would fail the set"
            )


def _not_attacked(attacked: MembershipSummary | None, config: AssessConfig) -> Iterator[str]:
    """Reasons why the membership inference attacks are insufficient for screening a set."""
    usual = MembershipConfig()
    if attacked is None:
        yield (
            f"membership could not be tested: there are fewer than {SMALLEST} training patients or other patients"
            if config.membership.enabled
            else "membership was not tested (assess.membership.enabled is false)"
        )
        return
    if config.membership.images < usual.images:
        yield (
            f"assess.membership.images {config.membership.images} is less than the {usual.images} required for "
            "screening"
        )
    for result in attacked.results:
        interval = result.auroc.interval
        tolerated = result.limited_by == "recipe" and interval is not None and interval[0] > usual.limit
        if result.target == "images" and tolerated and not result.flagged:
            yield (
                f"membership inference by {result.attack} separates training patients from others, which the recipe "
                f"tolerates up to AUROC {result.limit:g}: such a set cannot be screened"
            )


def _details(scored: Sequence[Sequence[RunScores]]) -> Iterator[Estimate]:
    """Scores of each seed, for networks with several seeds."""
    for runs in scored:
        for run in runs if len(runs) > 1 else ():
            yield from estimates_of([run], per_seed=True)
