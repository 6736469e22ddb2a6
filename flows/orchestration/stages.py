"""The stages of a run as a table over the operations; each takes a job and artifacts, and returns an artifact.

A stage whose artifact is current is not made again and loads nothing; torch is imported only where a stage needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import ArtifactError
from medphantom.core.folders import read_json, write_json
from medphantom.core.progress import Progress
from medphantom.flows.operations.assess import score, write_pages
from medphantom.flows.operations.generate import generate
from medphantom.flows.operations.ingest import ingest_cohort
from medphantom.flows.operations.phantom import phantom
from medphantom.flows.operations.places import loaded
from medphantom.flows.operations.train import trained
from medphantom.flows.process.facts import machine, usable_cores, versions
from medphantom.flows.process.failure import reported
from medphantom.flows.process.progress import clock, watcher
from medphantom.flows.recipes.plans import make_plan
from medphantom.flows.runs.artifact import QUALITY_FILE, REPORT_JSON, WORK_FOLDER, ArtifactRef, Stage
from medphantom.flows.runs.control import control_facts
from medphantom.flows.runs.costs import tell_left
from medphantom.flows.runs.job import Job, Refs

RUN_FILE = "run.json"

Build = Callable[[Path, Path], dict[str, Any] | None]


def run_stage(stage: Stage, job: Job, refs: Refs, also: Progress | None = None) -> ArtifactRef:
    """Make the artifact of one stage, or return the current one.

    Args:
        stage: The name of the stage.
        job: The job of the run.
        refs: The artifacts of the stages before it.
        also: A function that receives the progress in addition to the console.

    Returns:
        The artifact of the stage.

    Raises:
        MedphantomError: There is a problem with the recipe, the data or the machine.
        UnexpectedFailure: There is a fault in this program.
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
    spent = folder.records()[stage].seconds
    watcher().note(f"{stage}: {made.path} in {clock(spent)}")
    tell_left(stage, spent)
    return made


def run_job(job: Job) -> Refs:
    """Run all stages of a job in order, without Prefect.

    Raises:
        MedphantomError: There is a problem with the recipe, the data or the machine.
    """
    refs: Refs = {}
    with job.locked():
        for stage in job.stages():
            refs[stage] = run_stage(stage, job, refs)
        write_run_facts(job, refs)
    return refs


def write_run_facts(job: Job, refs: Refs) -> Path:
    """Write ``run.json``: the recipe as resolved, digests, versions, timings per stage, and the machine.

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


def _phantom(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    del refs, work
    simulation = job.recipe.cohort.simulate
    assert simulation is not None  # noqa: S101 - the stage exists only then
    options = {name: getattr(simulation, name) for name in type(simulation).model_fields}
    summary = phantom(out, **options, workers=usable_cores(), progress=progress)
    return {"patients": summary.total_patients, "images": summary.total_images}


def _ingest(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    del work
    source = None if job.recipe.cohort.source is not None else Path(refs["phantom"].path)
    result = ingest_cohort(job.recipe.cohort, out, source=source, progress=progress)
    for line in result.understood:
        watcher().note(f"ingest: {line}")
    return {
        "images": len(result.cohort),
        "per_split": dict(Counter(result.cohort.manifest["split"].to_list())),
        "rejected": {str(reason): count for reason, count in result.rejected.items()},
        "understood": list(result.understood),
        "warnings": list(result.warnings),
    }


def _train(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    cohort = Cohort.open(refs["ingest"].path)
    preprocess = job.recipe.preprocess.for_cohort(cohort)
    made = trained(cohort, preprocess, job.recipe.generator, out, work=work, progress=progress)
    base = {} if made.base is None else {"base": {"verdict": made.base.verdict, "reasons": list(made.base.reasons)}}
    return {"training_images": made.bundle.facts.training_images, **base}


def _generate(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    bundle, cohort = loaded(refs["train"].path), Cohort.open(refs["ingest"].path)
    facts = bundle.facts
    plan = make_plan(job.recipe.plan, cohort, facts.conditions, preprocess=facts.preprocess, fresh=job.fresh)
    synthetic = generate(bundle, plan, out, sampler=job.recipe.sampler, work=work, progress=progress)
    return {"images": len(synthetic), "plan": plan.digest}


def _assess(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    bundle = loaded(refs["train"].path)
    real, synthetic = Cohort.open(refs["ingest"].path), Cohort.open(refs["generate"].path)
    seen, config = bundle.facts.preprocess, job.recipe.assess
    report = score(real, synthetic, seen, config, work=work, bundle=bundle, progress=progress)
    report.save(out)
    return {"verdict": report.verdict}


def _report(job: Job, refs: Refs, out: Path, work: Path, progress: Progress) -> dict[str, Any]:
    del work
    from medphantom.generators.facts import read_description
    from medphantom.quality.results.quality_report import QualityReport

    progress(0, 1, "report")
    bundle = read_description(refs["train"].path)
    write_pages(
        QualityReport.load(Path(refs["assess"].path)),
        real=Cohort.open(refs["ingest"].path),
        synthetic=Cohort.open(refs["generate"].path),
        preprocess=bundle.facts.preprocess,
        out=out.parent,
        name=job.run.name,
        recipe=job.loaded.written,
        digests={stage: ref.digest for stage, ref in refs.items()},
        bundle=bundle.facts,
        training=bundle.training,
        seeds={"generator": job.recipe.generator.seed, "plan": job.recipe.plan.seed},
        timings_s={stage: job.folder_of(stage).records()[stage].seconds for stage in refs},
        control=control_facts(job.base.path),
    )
    progress(1, 1, "report")
    return {}


Builder = Callable[[Job, Refs, Path, Path, Progress], dict[str, Any]]
_BUILDERS: dict[Stage, tuple[Builder, str, tuple[str, ...]]] = {
    "phantom": (_phantom, "phantoms", ()),
    "ingest": (_ingest, "cohort", ()),
    "train": (_train, "bundle", ()),
    "generate": (_generate, "synthetic", ()),
    "assess": (_assess, QUALITY_FILE, ()),
    "report": (_report, "report.html", ("report.public.html", REPORT_JSON)),
}
