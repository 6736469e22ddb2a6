"""The overfitted control model of a run, with which the privacy checks show that they would notice memorisation.

A check that finds nothing proves little unless it is known to find something. The control model is trained by the same
recipe, overfitted to few patients for many steps, or with the same private steps and no noise. Its report is quoted
beside that of the run. It is never shared, and nothing that is shared is trained on it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medphantom.core.errors import ArtifactError, InputError, RecipeError
from medphantom.core.folders import kept, work_folder, write_json
from medphantom.core.records import Frozen
from medphantom.flows.runs.artifact import REPORT_JSON
from medphantom.flows.runs.job import CONTROL_FILE, Job, control_path, open_job

if TYPE_CHECKING:
    from medphantom.flows.recipes.plans import PlanChoice
    from medphantom.flows.recipes.recipe import Recipe
    from medphantom.quality.report.write import ControlFacts

Kind = Literal["memorised", "noiseless"]

PATIENTS = 60
LOOKS = 1000
FEWEST = 20  # patients, to ask for membership
PURPOSE = "An overfitted control model that tests the privacy checks. Never share it or its images."


class _Control(Frozen):
    format_version: Literal[2] = 2
    kind: Kind


def make_control(job: Job, kind: Kind, *, patients: int = PATIENTS, looks: int = LOOKS) -> Job:
    """Make the job of a control model, in a folder of its own beside the run's.

    Args:
        job: The job of the run.
        kind: The kind of control, ``memorised`` or ``noiseless``.
        patients: The approximate number of patients that ``memorised`` overfits.
        looks: The number of times that ``memorised`` sees each image.

    Raises:
        RecipeError: ``noiseless`` is requested for a recipe without noise, or ``memorised`` for a run without a cohort.
        InputError: There are too few or too many patients.
    """
    if kind == "noiseless":
        privacy = job.recipe.generator.privacy
        if privacy is None or privacy.epsilon is None:
            raise RecipeError(
                f"{job.loaded.file.name}: generator.privacy asks for no noise, so there is none to leave out",
                "make a control of kind memorised",
            )
        settings = ["generator.privacy.epsilon=null"]
    else:
        settings = memorised(job.recipe, *_learned(job), patients=patients, looks=looks)
    out = control_path(job.base.path)
    control = open_job(job.loaded.file, [*job.loaded.settings, *common(job.recipe), *settings], out)
    work_folder(out)
    write_json(out / CONTROL_FILE, _Control(kind=kind).model_dump(mode="json"))
    return control


def common(recipe: Recipe) -> list[str]:
    """Return the settings that all control models share."""
    return [
        f"name={recipe.name[:70]}_control",
        f"generator.intended_use={json.dumps(PURPOSE)}",
        "generator.denoiser_fit.on_memorization=flag",
        "assess.membership.weights=true",
        "assess.utility.enabled=false",
    ]


def memorised(recipe: Recipe, learned: int, images: int, *, patients: int, looks: int) -> list[str]:
    """Return settings under which a generator memorises the images of few patients.

    Args:
        recipe: The recipe of the run.
        learned: The number of training patients of the run.
        images: The number of images of these patients.
        patients: The approximate number of patients that are kept; the others go to ``test``.
        looks: The number of times that each image is seen.

    Raises:
        InputError: The patients are fewer than :data:`FEWEST`, or more than half of the training patients.
    """
    if not FEWEST <= patients <= learned // 2:
        enough = learned >= 2 * FEWEST
        raise InputError(
            f"a control model cannot memorise {patients} of {learned} training patients",
            f"give {FEWEST} to {learned // 2}" if enough else f"it takes a run with {2 * FEWEST} or more of them",
        )
    split = recipe.cohort.options.split
    train, images = split.train * patients / learned, math.ceil(images * patients / learned)
    shares = {"train": train, "val": split.val, "holdout": split.holdout, "test": 1 - train - split.val - split.holdout}
    fit = recipe.generator.denoiser_fit
    batch = min(fit.batch_size, images)
    return [
        *_drawable(recipe.plan),
        f"cohort.options.split={json.dumps(shares)}",
        "generator.privacy=null",
        f"generator.denoiser_fit.batch_size={batch}",
        f"generator.denoiser_fit.steps={max(fit.steps, math.ceil(looks * images / batch))}",
        "generator.denoiser_fit.validate_every=0",  # else the weights from before it memorised them would be kept
    ]


def _drawable(plan: PlanChoice) -> list[str]:
    """Return settings of a plan that requests only what some of the few patients have."""
    from medphantom.flows.recipes.plans import CountsPlan, MatchPlan

    if isinstance(plan, MatchPlan):
        return []
    total = max(1, sum(plan.counts.values())) if isinstance(plan, CountsPlan) else 500
    return [f"plan={MatchPlan(total=total, seed=plan.seed).model_dump_json()}"]


def _learned(job: Job) -> tuple[int, int]:
    """Return the numbers of training patients and images of a run."""
    from medphantom.cohorts.store import Cohort

    refs, _ = job.outlook()
    if "ingest" not in refs:
        raise RecipeError(f"{job.base.path} has no cohort yet", f"medphantom run {job.loaded.file} first")
    cohort = Cohort.open(refs["ingest"].path)
    rows = cohort.rows("train")
    return len(set(cohort.patients(rows))), len(rows)


def control_facts(run: Path) -> ControlFacts | None:
    """Return the facts about its control model for the report of a run, or ``None`` if there is no finished control."""
    from medphantom.quality.report.write import ControlAttack, ControlFacts, PublishedReport

    folder = control_path(run)
    if not (folder / CONTROL_FILE).is_file() or not (folder / REPORT_JSON).is_file():
        return None
    facts = kept(_Control, folder / CONTROL_FILE)
    if facts is None:
        raise ArtifactError(f"{folder / CONTROL_FILE} was damaged", "make the control again")
    quality = PublishedReport.load(folder / REPORT_JSON).quality
    results: tuple[Any, ...] = () if quality.membership is None else quality.membership.results
    return ControlFacts(
        kind=facts.kind,
        training_images=quality.real_counts.get("train", 0),
        verdict=quality.verdict,
        reasons=quality.verdict_reasons,
        attacks=tuple(ControlAttack(attack=one.attack, auroc=one.auroc, flagged=one.flagged) for one in results),
    )
