"""The stages of a run as plain functions: each takes a job and artifacts, and gives back an artifact.

A stage whose artifact is current is not made again and loads nothing; torch is imported only where a stage needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.progress import Progress
from medphantom.flows.process.facts import machine, usable_cores, versions
from medphantom.flows.process.failure import reported
from medphantom.flows.process.progress import clock, watcher
from medphantom.flows.runs.artifact import REPORT_JSON, WORK_FOLDER, ArtifactRef, Stage
from medphantom.flows.runs.control import control_facts
from medphantom.flows.runs.formal import formal_facts
from medphantom.flows.runs.job import Job, Refs
from medphantom.flows.runs.provenance import check_provenance

if TYPE_CHECKING:
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.cohorts.store import Cohort
    from medphantom.generators.config import GeneratorConfig

RUN_FILE = "run.json"
QUALITY_FILE = "work/quality.json"

Build = Callable[[Path, Path], dict[str, Any] | None]


def run_stage(stage: Stage, job: Job, refs: Refs, also: Progress | None = None) -> ArtifactRef:
    """Make one stage, or take it as it is.

    Args:
        stage: which.
        job: the run.
        refs: artifacts of the stages before it.
        also: told of the progress beside the console.

    Returns:
        The artifact.

    Raises:
        MedphantomError: whatever is wrong with recipe, data or machine.
        UnexpectedFailure: a fault of ours.
    """
    folder, key = job.folder_of(stage), job.key(stage, refs)
    current = folder.current(stage, key)
    if current is not None:
        watcher().note(f"{stage}: reused {current.path}")
        return current
    build, output, beside = _BUILDERS[stage]
    console = watcher().stage(stage)

    def shown(done: int, total: int, what: str = "") -> None:
        console(done, total, what)
        if also is not None:
            also(done, total, what)

    with reported(stage, folder.path / WORK_FOLDER):
        made = folder.make(stage, key, output, lambda out, work: build(job, refs, out, work, shown), beside=beside)
    watcher().note(f"{stage}: {made.path} in {clock(folder.records()[stage].seconds)}")
    return made


def run_job(job: Job) -> Refs:
    """All stages of a job in order, without Prefect.

    Raises:
        MedphantomError: whatever is wrong with recipe, data or machine.
    """
    refs: Refs = {}
    with job.locked():
        for stage in job.stages():
            refs[stage] = run_stage(stage, job, refs)
        write_run_facts(job, refs)
    return refs


def write_run_facts(job: Job, refs: Refs) -> Path:
    """Write ``run.json``: the recipe as resolved, digests, versions, timings per stage, machine.

    A run that made nothing new leaves it as it is.
    """
    file = job.run.path / RUN_FILE
    stages = {stage: job.folder_of(stage).records()[stage].model_dump(mode="json", exclude={"marks"}) for stage in refs}
    if file.is_file():
        old = None
        with suppress(ArtifactError):
            old = read_json(file)
        if isinstance(old, dict) and (old.get("stages"), old.get("recipe")) == (stages, job.loaded.written):
            return file
    write_json(
        file,
        {
            "format_version": 1,
            "name": job.recipe.name,
            "recipe": job.loaded.written,
            "settings": list(job.loaded.settings),
            "fresh": job.fresh,
            "base": None if job.base is job.run else f"../{job.base.name}",
            "digests": {stage: ref.digest for stage, ref in refs.items()},
            "timings_s": {stage: record["seconds"] for stage, record in stages.items()},
            "stages": stages,
            "versions": versions(),
            "machine": machine(),
        },
    )
    return file


def _simulate(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    del refs, work
    from medphantom.phantoms.write import write_phantoms

    simulation = job.recipe.cohort.simulate
    assert simulation is not None  # noqa: S101 - the stage exists only then
    options = {name: getattr(simulation, name) for name in type(simulation).model_fields}
    summary = write_phantoms(out, **options, workers=usable_cores(), progress=progress)
    return {"patients": summary.total_patients, "images": summary.total_images}


def _ingest(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    del work
    from medphantom.cohorts.ingest import ingest

    choice = job.recipe.cohort
    source = choice.source or Path(refs["phantom"].path)
    result = ingest(source, out, choice.reading, choice.identity_key(), progress)
    for line in result.understood:
        watcher().note(f"ingest: {line}")
    for warning in result.warnings:
        watcher().note(f"ingest: warning: {warning}")
    return {
        "images": len(result.cohort),
        "per_split": dict(Counter(result.cohort.manifest["split"].to_list())),
        "rejected": {str(reason): count for reason, count in result.rejected.items()},
        "understood": list(result.understood),
        "warnings": list(result.warnings),
    }


def _train(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    from medphantom.cohorts.store import Cohort
    from medphantom.generators.train import train_generator

    cohort = Cohort.open(refs["ingest"].path)
    preprocess = job.recipe.preprocess.for_cohort(cohort)
    facts = base_facts(cohort, preprocess, job.recipe.generator, work, progress)
    bundle = train_generator(cohort, preprocess, job.recipe.generator, out, work=work, progress=progress)
    curves = training_curves(bundle.training)
    note_memorization(curves)
    note_failures(curves)
    return {"training_images": bundle.facts.training_images, **facts}


def note_memorization(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say of each stage of a training where it began to tell its training images from others."""
    for stage in dict.fromkeys(row["stage"] for row in rows if row.get("memorized")):
        row = next(row for row in rows if row["stage"] == stage and row.get("memorized"))
        watcher().note(
            f"warning: the {stage} tells its training images from others from step {row['step']} on (smaller error in "
            f"{row['membership']:.2f} of pairs): train it for fewer steps, or on more patients"
        )


def note_failures(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say of each stage of a training where a loss was not finite, so that it went on at half the learning rate."""
    for row in rows:
        if "not_finite_at" in row:
            watcher().note(
                f"warning: a loss of the {row['stage']} was not finite at step {row['not_finite_at']}: it went back to "
                f"step {row['step']} and on at half the learning rate"
            )


def base_facts(
    cohort: Cohort, preprocess: Preprocess, config: GeneratorConfig, work: Path, progress: Progress
) -> dict[str, Any]:
    """What the copy search says of the base that is fine-tuned; nothing where none is.

    Raises:
        InputError: the base draws images of this cohort.
    """
    if config.init_from is None:
        return {}
    from medphantom.flows.runs.base_check import check_base

    summary = check_base(cohort, preprocess, config, work=work, progress=progress)
    return {} if summary is None else {"base": {"verdict": summary.verdict, "reasons": list(summary.reasons)}}


def _generate(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.recipes.plans import make_plan
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.generate import generate

    bundle = GeneratorBundle.load(Path(refs["train"].path))
    cohort = Cohort.open(refs["ingest"].path)
    facts = bundle.facts
    plan = make_plan(job.recipe.plan, cohort, facts.conditions, preprocess=facts.preprocess, fresh=job.fresh)
    synthetic = generate(bundle, plan, out, work=work, sampler=job.recipe.sampler, progress=progress)
    return {"images": len(synthetic), "plan": plan.digest}


def _assess(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    from medphantom.cohorts.store import Cohort
    from medphantom.flows.runs.hooks import hooks_of
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.quality.assessment.assess import assess

    bundle = GeneratorBundle.load(Path(refs["train"].path))
    real, synthetic = Cohort.open(refs["ingest"].path), Cohort.open(refs["generate"].path)
    check_provenance(real, synthetic, bundle)
    report = assess(
        real,
        synthetic,
        bundle.facts.preprocess,
        job.recipe.assess,
        work=work,
        hooks=hooks_of(bundle),
        progress=progress,
    )
    report.save(out)
    return {"verdict": report.verdict}


def _report(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    del work
    from medphantom.cohorts.store import Cohort
    from medphantom.generators.facts import read_facts
    from medphantom.quality.report.write import RunFacts, write_report
    from medphantom.quality.results.quality_report import QualityReport

    progress(0, 1, "report")
    bundle, _ = read_facts(refs["train"].path)
    facts = RunFacts(
        name=job.run.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=job.loaded.written,
        digests={stage: ref.digest for stage, ref in refs.items()},
        versions=versions(),
        machine=machine(),
        seeds={"generator": job.recipe.generator.seed, "plan": job.recipe.plan.seed},
        timings_s={stage: job.folder_of(stage).records()[stage].seconds for stage in refs},
        curves=training_curves(read_json(Path(refs["train"].path) / "training.json")),
        intended_use=bundle.intended_use,
        **formal_facts(bundle.privacy),
        control=control_facts(job.base.path),
    )
    write_report(
        QualityReport.load(Path(refs["assess"].path)),
        real=Cohort.open(refs["ingest"].path),
        synthetic=Cohort.open(refs["generate"].path),
        preprocess=bundle.preprocess,
        facts=facts,
        out=out.parent,
    )
    progress(1, 1, "report")
    return {}


def training_curves(training: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Rows of the training curves of a bundle's ``training.json``, each with its ``stage``."""
    rows: list[dict[str, Any]] = []
    for stage, curve in training.items():
        if isinstance(curve, dict) and "rows" in curve:
            rows += [{"stage": stage, **row} for row in curve["rows"]]
    return tuple(rows)


Builder = Callable[[Job, Refs, Path, Path, Progress], dict[str, Any]]
_BUILDERS: dict[Stage, tuple[Builder, str, tuple[str, ...]]] = {
    "phantom": (_simulate, "phantoms", ()),
    "ingest": (_ingest, "cohort", ()),
    "train": (_train, "bundle", ()),
    "generate": (_generate, "synthetic", ()),
    "assess": (_assess, QUALITY_FILE, ()),
    "report": (_report, "report.html", ("report.public.html", REPORT_JSON)),
}
