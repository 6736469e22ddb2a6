"""Augment a scarce label: plan, draw, gate, and say whether it helped; resumable from ``<out>.work``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import Count, checked
from medphantom.core.errors import InputError
from medphantom.core.folders import publishing
from medphantom.flows.operations.assess import score
from medphantom.flows.operations.places import Folder, opened, preprocess_flags, refuse_existing, resumable
from medphantom.flows.operations.train import training_curves
from medphantom.flows.operations.utility import STUDY_FILE, TABLE_FILE, drawn_by, trained_bundle
from medphantom.flows.process.facts import machine, versions
from medphantom.flows.process.progress import warn, watcher
from medphantom.flows.recipes.plans import BalancePlan
from medphantom.flows.recipes.settings import AugmentPart, read_part
from medphantom.flows.runs.costs import Sections, tell_costs
from medphantom.flows.runs.formal import formal_facts
from medphantom.flows.runs.provenance import learned_from

if TYPE_CHECKING:
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.core.records import Frozen
    from medphantom.flows.recipes.recipe import PreprocessChoice
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import GeneratorConfig, SamplerConfig
    from medphantom.quality.config import AssessConfig, StudyArm, StudyConfig
    from medphantom.quality.results.augment_report import AugmentPlan, AugmentReport
    from medphantom.quality.results.quality_report import QualityReport
    from medphantom.quality.results.study_report import StudyReport

ANSWER_FILE = "augment.json"
IMAGES_FOLDER, BUNDLE_FOLDER = "images", "bundle"
ARMS: tuple[StudyArm, ...] = ("real", "oversampled", "classical", "real_and_synthetic", "classical_and_synthetic")
SHARES = (0.5, 1.0)


def propose(
    cohort: Cohort,
    label: str,
    to: int,
    study: StudyConfig,
    *,
    shares: Sequence[float] = SHARES,
    generators: int = 2,
    trained: bool = True,
) -> AugmentPlan:
    """What it takes to have so many images of a label.

    Args:
        cohort: real cohort.
        label: the scarce one.
        to: images of it that are wanted in ``train``, real and synthetic together.
        study: how classifiers are trained.
        shares: shares of the planned images that classifiers learn from.
        generators: seeds of the generator.
        trained: whether they are trained for this.

    Raises:
        InputError: no such label, no training image shows it, or there are as many already.
    """
    from medphantom.quality.results.augment_report import AugmentPlan
    from medphantom.quality.utility.trainers import planned_trainings

    if label not in cohort.schema.labels:
        raise InputError(f"the cohort has no label {label!r}", f"it has {', '.join(cohort.schema.labels) or 'none'}")
    rows = cohort.rows("train")
    states = cohort.labels(rows)[:, cohort.schema.labels.index(label)]
    shown = [row for row, value in zip(rows, states, strict=True) if value == 1]
    if not shown:
        raise InputError(f"no training image shows {label!r}, so nothing can be learned of it", "bring real ones")
    if len(shown) >= to:
        raise InputError(f"{len(shown)} training images show {label!r} already", f"give --to above {len(shown)}")
    if not shares or any(not 0 < share <= 1 for share in shares) or len(set(shares)) < len(shares) or generators < 1:
        raise InputError(
            f"shares {list(shares)} of {generators} generators make no study", "give shares above 0 up to 1"
        )
    arms = _arms(study)
    return AugmentPlan(
        label=label,
        to=to,
        images=len(shown),
        patients=len(set(cohort.patients(shown))),
        training_images=len(rows),
        planned=to - len(shown),
        shares=tuple(sorted(shares)),
        generators=generators,
        trained=trained,
        classifiers=planned_trainings(arms, len(shares), generators) * study.classifier_seeds,
        classifier_steps=study.classifier.steps,
    )


def _arms(study: StudyConfig) -> tuple[StudyArm, ...]:
    """Those that decide, and what the recipe asks for besides; by default no other."""
    from medphantom.quality.config import StudyConfig as Defaults

    more = () if study.arms == Defaults().arms else study.arms
    return tuple(dict.fromkeys((*ARMS, *more)))


@checked
def augment(
    cohort: Cohort | Folder,
    label: str,
    to: Count,
    out: Folder,
    *,
    bundles: Sequence[Folder] = (),
    generators: int = 2,
    shares: Sequence[float] = SHARES,
    external: Mapping[str, Cohort | Folder] | None = None,
    size: int | Sequence[int] | None = None,
    preprocess: Mapping[str, Any] | PreprocessChoice | None = None,
    generator: Mapping[str, Any] | GeneratorConfig | None = None,
    sampler: Mapping[str, Any] | SamplerConfig | None = None,
    assess: Mapping[str, Any] | AssessConfig | None = None,
    study: Mapping[str, Any] | StudyConfig | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
    announce: Callable[[AugmentPlan], object] | None = None,
) -> AugmentReport:
    """Top up a scarce label, and measure on real patients whether that helps; the same call continues.

    Args:
        cohort: Real cohort with labels.
        label: The scarce label.
        to: Training images of it that are wanted, real and synthetic together.
        out: Folder to make: answer, report, table of the study, images.
        bundles: Generators of different seeds that learned from exactly this cohort; without any they are trained.
        generators: Number of seeds of the generator, where they are trained.
        shares: Shares of the planned images to learn from, above 0 up to 1: each gives one mixing ratio.
        external: Further real cohorts to test on, by name.
        size: Side, or sides, of what the networks see, in pixels, where no bundle says so.
        preprocess: The ``preprocess`` section.
        generator: The ``generator`` section.
        sampler: The ``sampler`` section.
        assess: The ``assess`` section.
        study: The ``study`` section.
        recipe: Recipe whose sections are taken.
        settings: ``field=value`` as of ``--set``.
        announce: Called with the plan before anything is done.

    Raises:
        InputError: ``out`` exists, the bundles do not fit the cohort, or both bundles and a size are given.
        RecipeError: A setting is unknown or out of bounds.
        UnsupportedClaim: Too few patients show the label to say whether images of it help.
    """
    real, place, paths = opened(cohort), Path(out), tuple(Path(one) for one in bundles)
    outside = {name: opened(one) for name, one in (external or {}).items()}
    part, planned = proposal(
        real,
        label,
        to,
        out=place,
        bundles=paths,
        generators=generators,
        shares=shares,
        size=size,
        sections={
            "preprocess": preprocess,
            "generator": generator,
            "sampler": sampler,
            "assess": assess,
            "study": study,
        },
        recipe=recipe,
        settings=settings,
    )
    if announce is not None:
        announce(planned)
    return augmented(real, part, planned, place, bundles=paths, external=outside or None)


@checked
def proposal(
    cohort: Cohort,
    label: str,
    to: Count,
    *,
    out: Folder | None = None,
    external: Mapping[str, Cohort | Folder] | None = None,
    bundles: Sequence[Folder] = (),
    generators: int = 2,
    shares: Sequence[float] = SHARES,
    size: int | Sequence[int] | None = None,
    sections: Mapping[str, Mapping[str, Any] | Frozen | None] | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
) -> tuple[AugmentPart, AugmentPlan]:
    """The settings of an augmentation and what would be done; see :func:`augment`, whose arguments it checks.

    Raises:
        InputError: Nothing can be planned so, ``out`` exists, or both bundles and a size are given.
        UnsupportedClaim: Too few patients show the label to say whether images of it help.
    """
    if out is not None:
        refuse_existing(Path(out))
    for other in (external or {}).values():
        opened(other)
    from medphantom.quality.utility.study import check_study

    if bundles and size is not None:
        raise InputError("--size and --bundle are mutually exclusive: the generator knows its size", "give one of them")
    sized = {"preprocess": preprocess_flags(cohort, size)}
    part = read_part(AugmentPart, recipe, settings, sections or {}, sized)
    total = len(bundles) or generators
    planned = propose(cohort, label, to, part.study, shares=shares, generators=total, trained=not bundles)
    _preprocess(cohort, part, bundles, label)
    check_study(cohort, _study(part, planned))
    return part, planned


def _study(part: AugmentPart, plan: AugmentPlan) -> StudyConfig:
    """Return the study that decides whether images of the label help."""
    decisive = {"arms": _arms(part.study), "ratios": plan.ratios, "primary": (plan.label,), "oversample_to": plan.to}
    return part.study.model_copy(update=decisive)


def augmented(
    cohort: Cohort,
    part: AugmentPart,
    plan: AugmentPlan,
    out: Path,
    *,
    bundles: Sequence[Path] = (),
    external: dict[str, Cohort] | None = None,
) -> AugmentReport:
    """Draw what a plan proposes, gate it, and measure on real patients whether it helps.

    ``out`` gets the answer (``augment.json``), the report pages, the table of the study, and, unless they may repeat
    patients, the images of the first generator.

    Args:
        cohort: real cohort.
        part: preprocess, generator, sampler, how images are scored and how classifiers are trained.
        plan: from :func:`propose`.
        out: folder to make.
        bundles: generators of different seeds; empty: they are trained here.
        external: further cohorts to test on, by name.

    Raises:
        InputError: ``out`` exists, or the bundles do not fit the cohort.
        UnsupportedClaim: too few patients show the label to say whether images of it help.
    """
    from medphantom.quality.utility.study import check_study

    refuse_existing(out)
    study = _study(part, plan)
    check_study(cohort, study)
    preprocess = _preprocess(cohort, part, bundles, plan.label)
    tell_costs(
        Sections(preprocess=preprocess, generator=part.generator, sampler=part.sampler, assess=part.assess),
        plan.training_images,
        out,
        trainings=0 if bundles else plan.generators,
        drawn=plan.planned * plan.generators,
        classifier_steps=plan.classifiers * plan.classifier_steps,
    )
    job = _Augmentation(cohort, preprocess, part.model_copy(update={"study": study}), plan, tuple(bundles), external)
    return resumable(out, lambda work: job.run(work, out))


def _preprocess(cohort: Cohort, part: AugmentPart, bundles: Sequence[Folder], label: str) -> Preprocess:
    """What the networks see of an image: as the bundles say, or as the recipe does.

    Raises:
        InputError: A bundle does not know the label, sees images otherwise, or needs a package that is not installed.
    """
    from medphantom.generators.facts import read_facts
    from medphantom.generators.requirements import require_for_use

    known = [read_facts(path)[0] for path in bundles]
    for path, facts in zip(bundles, known, strict=True):
        require_for_use(facts, f"the bundle {path}")
        if label not in facts.conditions.labels:
            raise InputError(f"the generator {path} does not know {label!r}", "give one that learned it")
        if facts.preprocess != known[0].preprocess:
            raise InputError(f"{path} sees images otherwise than {bundles[0]}", "give generators of one recipe")
    return known[0].preprocess if known else part.preprocess.for_cohort(cohort)


@dataclass(frozen=True)
class _Augmentation:
    cohort: Cohort
    preprocess: Preprocess
    part: AugmentPart
    plan: AugmentPlan
    bundles: tuple[Path, ...]
    external: dict[str, Cohort] | None

    def run(self, work: Path, out: Path) -> AugmentReport:
        paths = list(self.bundles) or [
            trained_bundle(self.cohort, self.preprocess, self.part, seed, work) for seed in range(self.plan.generators)
        ]
        makers = [self._loaded(path) for path in paths]
        sets = [self._drawn(maker, seed, work) for seed, maker in enumerate(makers)]
        quality = self._scored(sets[0], makers[0], work)
        study = None if quality.verdict == "fail" else self._studied(sets, work)
        with publishing(out) as partial:
            found = self._written(quality, study, sets[0], makers[0], partial)
            if found.verdict != "fail":
                shutil.copytree(sets[0].path, partial / IMAGES_FOLDER)
                if not self.bundles:
                    shutil.copytree(paths[0], partial / BUNDLE_FOLDER)
        return found

    def _loaded(self, path: Path) -> GeneratorBundle:
        """A generator, with a warning where it learned from other patients: some of these may be in ``test``."""
        from medphantom.generators.bundle import GeneratorBundle

        bundle = GeneratorBundle.load(path)
        if not learned_from(bundle, self.cohort):
            warn(
                "the generator did not learn from exactly these training images: if it saw test patients, "
                "the answer flatters it, and its images are not screened",
                "augment",
            )
        return bundle

    def _drawn(self, maker: GeneratorBundle, seed: int, work: Path) -> Cohort:
        choice = BalancePlan(kind="balance", per_label=self.plan.to, labels=(self.plan.label,), seed=seed)
        return drawn_by(
            maker, self.cohort, choice, self.part.sampler, work, shown=watcher().stage(f"images {seed + 1}")
        )

    def _scored(self, made: Cohort, maker: GeneratorBundle, work: Path) -> QualityReport:
        """Fidelity and the privacy gate; the study says more than the quick check of use does."""
        config = self.part.assess.model_copy(
            update={"utility": self.part.assess.utility.model_copy(update={"enabled": False})}
        )
        shown = watcher().stage("assess")
        place = work / "assess"
        return score(self.cohort, made, self.preprocess, config, work=place, bundle=maker, others=True, progress=shown)

    def _studied(self, sets: Sequence[Cohort], work: Path) -> StudyReport:
        from medphantom.quality.utility.study import run_study

        shown, place = watcher().stage("utility"), work / "classifiers"
        return run_study(
            self.cohort, sets, self.preprocess, self.part.study, work=place, external=self.external, progress=shown
        )

    def _written(
        self, quality: QualityReport, study: StudyReport | None, made: Cohort, maker: GeneratorBundle, out: Path
    ) -> AugmentReport:
        """Answer, pages and table."""
        from medphantom.quality.report.study_table import study_table
        from medphantom.quality.report.write import RunFacts, UseFound, write_report
        from medphantom.quality.results.augment_report import answer

        found = answer(self.plan, quality, study)
        settings = self.part.model_dump(mode="json", exclude={"generator": {"init_from"}})
        facts = RunFacts(
            name=f"{self.plan.label} to {self.plan.to}",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe={"augment": self.plan.model_dump(mode="json"), **settings},
            digests={"ingest": self.cohort.digest, "train": maker.digest, "generate": made.digest},
            versions=versions(),
            machine=machine(),
            curves=training_curves(maker.training),
            intended_use=maker.facts.intended_use,
            **formal_facts(maker.facts.privacy),
        )
        write_report(
            quality,
            real=self.cohort,
            synthetic=made,
            preprocess=self.preprocess,
            facts=facts,
            out=out,
            use=UseFound(study=study, answer=found),
        )
        if study is not None:
            study.save(out / STUDY_FILE)
            (out / TABLE_FILE).write_text(study_table(study), encoding="utf-8")
        found.save(out / ANSWER_FILE)
        return found
