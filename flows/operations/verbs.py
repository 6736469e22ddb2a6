"""The verbs on explicit folders, without recipe or Prefect: shared by the command line and ``import medphantom``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medphantom.core.access import private_files
from medphantom.core.errors import InputError
from medphantom.core.folders import work_folder
from medphantom.core.guard import folder_path
from medphantom.core.progress import Progress
from medphantom.flows.process.facts import machine, versions
from medphantom.flows.process.progress import watcher
from medphantom.flows.runs.formal import formal_facts
from medphantom.flows.runs.provenance import check_provenance

if TYPE_CHECKING:
    from medphantom.cohorts.ingest import IngestResult
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.cohorts.store import Cohort
    from medphantom.conditioning.plan import SamplingPlan
    from medphantom.flows.recipes.recipe import CohortChoice
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import CounterfactualConfig, GeneratorConfig, SamplerConfig
    from medphantom.phantoms.write import PhantomSummary
    from medphantom.quality.config import AssessConfig
    from medphantom.quality.results.quality_report import QualityReport

Result = TypeVar("Result")


def work_beside(out: Path) -> Path:
    """Where a verb keeps checkpoints until its result is there: ``<out>.work``."""
    return out.with_name(f"{out.name}.work")


def load_bundle(bundle: GeneratorBundle | Path | str) -> GeneratorBundle:
    """A bundle as it is, or read from its folder."""
    from medphantom.generators.bundle import GeneratorBundle as Bundle

    return bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)


def refuse_existing(out: Path) -> None:
    """Stop before any work when the result would have no place.

    Raises:
        InputError: ``out`` exists and is not an empty folder.
    """
    if folder_path(out).exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")


def ingest(choice: CohortChoice, out: Path, progress: Progress | None = None) -> IngestResult:
    """Read a source into a cohort; see :func:`medphantom.cohorts.ingest.ingest`.

    Raises:
        InputError: nothing can be read, or ``out`` exists.
    """
    from medphantom.cohorts.ingest import ingest as read_source

    refuse_existing(out)
    if choice.source is None:
        raise InputError("no source was given", "give the folder of the images")
    shown = progress or watcher().stage("ingest")
    return read_source(choice.source, out, choice.options, choice.identity_key(), shown)


def simulate(out: Path, *, patients: int, progress: Progress | None = None, **options: Any) -> PhantomSummary:
    """Simulated patients as files; ``options`` as of :func:`medphantom.phantoms.write.write_phantoms`.

    Raises:
        InputError: an option out of bounds, or ``out`` exists.
    """
    from medphantom.phantoms.write import write_phantoms

    refuse_existing(out)
    return write_phantoms(out, patients, progress=progress or watcher().stage("phantom"), **options)


def train(
    cohort: Cohort, preprocess: Preprocess, config: GeneratorConfig, out: Path, progress: Progress | None = None
) -> GeneratorBundle:
    """Fit a generator; the same call continues after an interruption.

    Raises:
        InputError: the cohort cannot be learned from, or ``out`` exists.
    """
    from medphantom.flows.runs.steps import base_facts
    from medphantom.generators.train import train_generator

    refuse_existing(out)
    shown = progress or watcher().stage("train")

    def run(work: Path) -> GeneratorBundle:
        base_facts(cohort, preprocess, config, work, shown)
        return train_generator(cohort, preprocess, config, out, work=work, progress=shown)

    return resumable(out, run)


def generate(
    bundle: GeneratorBundle | Path | str,
    plan: SamplingPlan,
    sampler: SamplerConfig,
    out: Path,
    progress: Progress | None = None,
) -> Cohort:
    """Draw a plan; the same call continues after an interruption.

    Raises:
        InputError: the plan asks for something unknown, or ``out`` exists.
    """
    from medphantom.generators.generate import generate as draw

    refuse_existing(out)
    shown = progress or watcher().stage("generate")
    loaded = load_bundle(bundle)
    return resumable(out, lambda work: draw(loaded, plan, out, work=work, sampler=sampler, progress=shown))


def counterfactual(
    bundle: GeneratorBundle | Path | str,
    cohort: Cohort,
    settings: Sequence[str],
    config: CounterfactualConfig,
    out: Path,
    *,
    split: str = "test",
    limit: int | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Counterfactuals of the images of a split that an intervention changes; at most ``limit``, in stored order.

    Args:
        bundle: the generator.
        cohort: real images.
        settings: ``name=value`` of the intervention.
        config: the method.
        out: cohort to make.
        split: whose images.
        limit: most images.
        progress: told the number of images.

    Raises:
        InputError: ``out`` exists, or the intervention changes nothing.
        PromptError: an intervention on what the generator never saw.
    """
    from medphantom.conditioning.prompt import Intervention
    from medphantom.generators.counterfactual_cohort import changed_rows, publish_counterfactuals

    refuse_existing(out)
    loaded = load_bundle(bundle)
    intervention = Intervention.parse(settings, loaded.facts.conditions)
    rows = changed_rows(loaded, cohort, cohort.rows(split), intervention)[:limit]
    shown = progress or watcher().stage("counterfactual")
    return publish_counterfactuals(loaded, cohort, rows, intervention, config, out=out, progress=shown)


def assess(
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    config: AssessConfig,
    out: Path,
    *,
    bundle: GeneratorBundle | Path | str | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Score a synthetic cohort and write ``report.html``, ``report.public.html`` and ``report.json`` into ``out``.

    Args:
        real: the real cohort.
        synthetic: the synthetic one, ours or anyone's.
        preprocess: what the scoring networks see.
        config: how it is scored.
        out: folder for the reports.
        bundle: the generator, for the control of the copy search and the curves.
        progress: told about each step.

    Raises:
        InputError: the cohorts cannot be compared, the bundle learned from others or drew other images, or ``out``
            exists.
    """
    from medphantom.flows.runs.hooks import hooks_of
    from medphantom.flows.runs.steps import training_curves
    from medphantom.quality.assessment.assess import assess as score
    from medphantom.quality.report.write import RunFacts, write_report

    refuse_existing(out)
    shown = progress or watcher().stage("assess")
    loaded = None if bundle is None else load_bundle(bundle)
    if loaded is not None:
        check_provenance(real, synthetic, loaded)
    hooks = None if loaded is None else hooks_of(loaded)
    digests = {"ingest": real.digest, "generate": synthetic.digest}

    def run(work: Path) -> QualityReport:
        report = score(real, synthetic, preprocess, config, work=work, hooks=hooks, progress=shown)
        facts = RunFacts(
            name=out.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            recipe={"assess": config.model_dump(mode="json"), "preprocess": preprocess.model_dump(mode="json")},
            digests=digests if loaded is None else {**digests, "train": loaded.digest},
            versions=versions(),
            machine=machine(),
            curves=() if loaded is None else training_curves(loaded.training),
            intended_use="" if loaded is None else loaded.facts.intended_use,
            **({"privacy": "not known"} if loaded is None else formal_facts(loaded.facts.privacy)),
        )
        write_report(report, real=real, synthetic=synthetic, preprocess=preprocess, facts=facts, out=out)
        return report

    return resumable(out, run)


def resumable(out: Path, run: Callable[[Path], Result]) -> Result:
    """Run something that keeps its checkpoints in ``<out>.work``, readable by its owner only, until it is done."""
    work = work_beside(out)
    with private_files():
        result = run(work_folder(work))
    shutil.rmtree(work, ignore_errors=True)
    return result
