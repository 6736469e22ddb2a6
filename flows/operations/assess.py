"""``assess``: synthetic images, or counterfactual pairs, are scored against real patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.flows.operations.foreign import open_synthetic
from medphantom.flows.operations.ingest import refuse_empty_paths
from medphantom.flows.operations.places import (
    Folder,
    loaded,
    opened,
    options_here,
    preprocess_flags,
    refuse_existing,
    resumable,
    work_beside,
)
from medphantom.flows.operations.train import training_curves
from medphantom.flows.process.facts import machine, versions
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.recipe import absolute_options
from medphantom.flows.recipes.settings import AssessPart, read_part
from medphantom.flows.runs.provenance import check_provenance, learned_from, not_its_patients

if TYPE_CHECKING:
    from medphantom.cohorts.options import IngestOptions
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.facts import BundleFacts
    from medphantom.quality.config import AssessConfig
    from medphantom.quality.report.write import ControlFacts
    from medphantom.quality.results.counterfactual_report import CounterfactualReport
    from medphantom.quality.results.quality_report import QualityReport


@checked
def assess(
    real: Cohort | Folder,
    synthetic: Cohort | Folder,
    out: Folder,
    *,
    bundle: GeneratorBundle | Folder | None = None,
    size: int | Sequence[int] | None = None,
    synthetic_range: tuple[float, float] | None = None,
    assess: Mapping[str, Any] | AssessConfig | None = None,
    foreign: Mapping[str, Any] | IngestOptions | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
    progress: Progress | None = None,
) -> QualityReport | CounterfactualReport:
    """Score synthetic images, anyone's, or counterfactual pairs, and write a report.

    Args:
        real: Real cohort.
        synthetic: Synthetic cohort, cohort of counterfactual pairs, or a folder of anyone's images.
        out: Folder for ``report.html`` (internal), ``report.json`` and, of synthetic images, ``report.public.html``.
        bundle: The generator, for the positive control of the copy search and the attacks on its weights.
        size: Side, or sides, of what the scoring networks see, in pixels, where no bundle says so.
        synthetic_range: Real values that the ends of the synthetic number format stand for.
        assess: The ``assess`` section.
        foreign: How a folder is read that is no cohort: fields of :class:`medphantom.cohorts.options.IngestOptions`.
        recipe: Recipe whose sections are taken.
        settings: ``field=value`` as of ``--set``.
        progress: Called about each step.

    Returns:
        All scores; of counterfactual pairs a :class:`CounterfactualReport`.

    Raises:
        InputError: The cohorts cannot be compared, the bundle learned from others or drew other images, pairs are
            scored with arguments that they contradict, or ``out`` exists.
    """
    actual, place = opened(real), Path(out)
    if isinstance(foreign, Mapping) and not isinstance(synthetic, Cohort):
        refuse_empty_paths(foreign)
        foreign = options_here(foreign, Path(synthetic))
    ranges = None if synthetic_range is None else {"synthetic_range": list(synthetic_range)}
    part = read_part(
        AssessPart,
        recipe,
        settings,
        {"assess": assess, "foreign": foreign},
        {"assess": ranges, "preprocess": preprocess_flags(actual, size)},
    )
    refuse_existing(place)
    maker = None if bundle is None else loaded(bundle)
    made = synthetic
    if not isinstance(made, Cohort):
        base = Path.cwd() if recipe is None else Path(recipe).resolve().parent
        reading = absolute_options(part.foreign, Path(made), base)
        made = open_synthetic(Path(made), work_beside(place), reading)
    if made.schema.kind == "counterfactual":
        if bundle is not None or size is not None:
            raise InputError(
                "counterfactual pairs are scored as their generator saw them", "leave --bundle, --size out"
            )
        return assess_pairs(actual, made, part.assess, place, progress=progress)
    preprocess = part.preprocess.for_cohort(actual) if maker is None else maker.facts.preprocess
    if maker is not None:
        check_provenance(actual, made, maker)  # before anything is written

    def run(work: Path) -> QualityReport:
        report = score(actual, made, preprocess, part.assess, work=work, bundle=maker, progress=progress)
        digests = {"ingest": actual.digest, "generate": made.digest}
        write_pages(
            report,
            real=actual,
            synthetic=made,
            preprocess=preprocess,
            out=place,
            name=place.name,
            recipe={"assess": part.assess.model_dump(mode="json"), "preprocess": preprocess.model_dump(mode="json")},
            digests=digests if maker is None else {**digests, "train": maker.digest},
            bundle=None if maker is None else maker.facts,
            training={} if maker is None else maker.training,
        )
        return report

    return resumable(place, run)


def score(
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    config: AssessConfig,
    *,
    work: Path,
    bundle: GeneratorBundle | None = None,
    others: bool = False,
    progress: Progress | None = None,
) -> QualityReport:
    """Score a synthetic cohort.

    Args:
        real: Real cohort.
        synthetic: Synthetic cohort.
        preprocess: What the scoring networks see of an image.
        config: How it is scored.
        work: Private folder for what is needed to continue after an interruption.
        bundle: The generator.
        others: Whether a bundle that learned from other patients is scored too; its images are never *screened* then.
        progress: Called about each step.

    Raises:
        InputError: The cohorts cannot be compared, or the bundle learned from others or drew other images.
    """
    from medphantom.flows.runs.hooks import hooks_of
    from medphantom.quality.assessment.assess import assess as scores

    its_patients = bundle is None or learned_from(bundle, real)
    if bundle is not None and (its_patients or not others):
        check_provenance(real, synthetic, bundle)
    hooks = None if bundle is None else hooks_of(bundle)
    shown = progress or watcher().stage("assess")
    found = scores(real, synthetic, preprocess, config, work=work, hooks=hooks, progress=shown)
    return found if its_patients else not_its_patients(found)


def write_pages(
    report: QualityReport,
    *,
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    out: Path,
    name: str,
    recipe: dict[str, Any],
    digests: dict[str, str],
    bundle: BundleFacts | None,
    training: Mapping[str, Any],
    seeds: dict[str, int] | None = None,
    timings_s: dict[str, float] | None = None,
    control: ControlFacts | None = None,
) -> None:
    """Write ``report.html``, ``report.public.html`` and ``report.json``.

    Args:
        report: The scores.
        real: Real cohort.
        synthetic: Synthetic cohort.
        preprocess: What the scoring networks saw.
        out: Folder for the pages.
        name: Name of the run.
        recipe: Settings as they were resolved.
        digests: Digest of each artifact by stage.
        bundle: Facts of the generator; ``None`` where it is not known.
        training: Content of its ``training.json``.
        seeds: Seeds by purpose.
        timings_s: Seconds per stage.
        control: What the overfitted control model of the run showed.
    """
    from medphantom.flows.runs.formal import formal_facts
    from medphantom.quality.report.write import RunFacts, write_report

    facts = RunFacts(
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=recipe,
        digests=digests,
        versions=versions(),
        machine=machine(),
        seeds=seeds or {},
        timings_s=timings_s or {},
        curves=training_curves(training),
        intended_use="" if bundle is None else bundle.intended_use,
        **({"privacy": "not known"} if bundle is None else formal_facts(bundle.privacy)),
        control=control,
    )
    write_report(report, real=real, synthetic=synthetic, preprocess=preprocess, facts=facts, out=out)


def assess_pairs(
    real: Cohort, pairs: Cohort, config: AssessConfig, out: Path, *, progress: Progress | None = None
) -> CounterfactualReport:
    """Score counterfactual pairs and write ``report.html``, which shows patients, and ``report.json``, which does not.

    Args:
        real: Cohort whose images were edited.
        pairs: Cohort of kind ``counterfactual``.
        config: How they are scored.
        out: Folder for the reports.
        progress: Called about the fits of the classifiers.

    Raises:
        InputError: Not a real cohort and its pairs, a range that pairs state themselves, or ``out`` exists.
    """
    from medphantom.quality.counterfactual.scores import assess_counterfactuals
    from medphantom.quality.report.counterfactual_page import write_counterfactual_report
    from medphantom.quality.report.write import RunFacts

    refuse_existing(out)
    if config.synthetic_range is not None:
        raise InputError("counterfactual pairs say themselves what their values stand for", "leave synthetic_range out")
    shown = progress or watcher().stage("assess")

    def run(work: Path) -> CounterfactualReport:
        report = assess_counterfactuals(real, pairs, config, work, shown)
        facts = RunFacts(
            name=out.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe={"assess": config.model_dump(mode="json")},
            versions=versions(),
            machine=machine(),
        )
        write_counterfactual_report(report, real=real, pairs=pairs, facts=facts, out=out)
        return report

    return resumable(out, run)
