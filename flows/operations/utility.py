"""The utility study: generators of several seeds learn from exactly the patients that classifiers learn from.

For every fraction of the training patients and every generator seed a generator is trained and draws its images; then
:func:`medphantom.quality.utility.study.run_study` trains the downstream models and tests them. Whatever was finished is
found again in ``<out>.work``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.cohorts.thin import thin
from medphantom.core.arguments import checked
from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest, publishing, write_json
from medphantom.flows.operations.places import Folder, opened, preprocess_flags, refuse_existing, resumable
from medphantom.flows.process.facts import machine, versions
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.plans import MasksPlan, MatchPlan, PlanChoice, make_plan
from medphantom.flows.recipes.settings import UtilityPart, read_part
from medphantom.flows.runs.base_check import check_base
from medphantom.flows.runs.costs import Sections, tell_costs

if TYPE_CHECKING:
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.core.progress import Progress
    from medphantom.flows.recipes.recipe import PreprocessChoice
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import GeneratorConfig, SamplerConfig
    from medphantom.quality.config import StudyConfig
    from medphantom.quality.results.study_report import StudyReport

STUDY_FILE = "study.json"
PAGE_FILE = "study.html"
FACTS_FILE = "study_run.json"
TABLE_FILE = "study.md"


def fraction_folder(fraction: float) -> str:
    """Name of the folder of a fraction."""
    return f"fraction_{fraction:g}"


@checked
def utility(
    cohort: Cohort | Folder,
    out: Folder,
    *,
    fractions: Sequence[float] = (1.0,),
    generators: int = 2,
    external: Mapping[str, Cohort | Folder] | None = None,
    size: int | Sequence[int] | None = None,
    preprocess: Mapping[str, Any] | PreprocessChoice | None = None,
    generator: Mapping[str, Any] | GeneratorConfig | None = None,
    sampler: Mapping[str, Any] | SamplerConfig | None = None,
    study: Mapping[str, Any] | StudyConfig | None = None,
    recipe: Folder | None = None,
    settings: Sequence[str] = (),
) -> dict[float, StudyReport]:
    """Measure whether it helps to train on synthetic images: generators and classifiers learn from the same patients.

    The same call continues after an interruption.

    Args:
        cohort: Real cohort with labels.
        out: Folder to make: the page, and per fraction the table and its JSON.
        fractions: Fractions of the training patients, above 0 up to 1.
        generators: Number of seeds of the generator.
        external: Further real cohorts to test on, by name.
        size: Side, or sides, of what the networks see, in pixels.
        preprocess: The ``preprocess`` section.
        generator: The ``generator`` section.
        sampler: The ``sampler`` section.
        study: The ``study`` section.
        recipe: Recipe whose sections are taken.
        settings: ``field=value`` as of ``--set``.

    Returns:
        The report of each fraction.

    Raises:
        InputError: ``out`` exists, fractions are not different, or a generator cannot be trained so.
        RecipeError: A setting is unknown or out of bounds.
        UnsupportedClaim: No label has enough patients.
    """
    real = opened(cohort)
    sections = {"preprocess": preprocess, "generator": generator, "sampler": sampler, "study": study}
    part = read_part(UtilityPart, recipe, settings, sections, {"preprocess": preprocess_flags(real, size)})
    outside = {name: opened(one) for name, one in (external or {}).items()}
    return utility_study(real, part, Path(out), fractions=fractions, generators=generators, external=outside or None)


def utility_study(
    cohort: Cohort,
    part: UtilityPart,
    out: Path,
    *,
    fractions: Sequence[float] = (1.0,),
    generators: int = 2,
    external: dict[str, Cohort] | None = None,
) -> dict[float, StudyReport]:
    """Train generators and downstream models on every fraction and test the latter; the same call continues.

    Args:
        cohort: real cohort with labels.
        part: preprocess, generator, sampler, and how the study is done.
        out: folder to make: ``study.json`` and ``study.md`` per fraction.
        fractions: of the training patients.
        generators: seeds of the generator.
        external: further cohorts to test on, by name.

    Returns:
        The report of each fraction.

    Raises:
        InputError: ``out`` exists, fractions are not different, or a generator cannot be trained so.
        UnsupportedClaim: no label has enough patients.
    """
    from medphantom.quality.utility.study import check_study, run_study

    refuse_existing(out)
    wrong = not fractions or len(set(fractions)) != len(fractions) or any(not 0 < share <= 1 for share in fractions)
    if generators < 1 or wrong:
        raise InputError(
            f"fractions {list(fractions)} with {generators} generators make no study",
            "give different ones, above 0 up to 1",
        )
    check_study(cohort, part.study)
    preprocess = part.preprocess.for_cohort(cohort)
    shown = watcher().stage("utility")
    images = round(sum(fractions) * len(cohort.rows("train")))
    tell_costs(
        Sections(preprocess=preprocess, generator=part.generator, sampler=part.sampler),
        images,
        out,
        trainings=generators * len(fractions),
        drawn=generators * round(max(1.0, *part.study.ratios) * images),
        classifier_steps=len(fractions) * _downstream_steps(part.study, generators),
    )

    def run(work: Path) -> dict[float, StudyReport]:
        found = {}
        for fraction in fractions:
            place = work / fraction_folder(fraction)
            fewer = _thinned(cohort, fraction, place, part.study.seed)
            sets = [_drawn(fewer, preprocess, part, seed, place) for seed in range(generators)]
            found[fraction] = run_study(
                fewer, sets, preprocess, part.study, work=place / "classifiers", external=external, progress=shown
            )
            watcher().note(f"utility: {fraction:g} of the training patients: {found[fraction].advice[0].sentence}")
        _publish(found, part, out, generators)
        return found

    return resumable(out, run)


def _downstream_steps(study: StudyConfig, generators: int) -> int:
    """Return the number of steps of all downstream models of a study."""
    from medphantom.quality.utility.trainers import planned_trainings

    networks = planned_trainings(study.arms, len(study.ratios), generators) * study.classifier_seeds
    return networks * (study.segmenter.steps if study.task == "segmentation" else study.classifier.steps)


def _thinned(cohort: Cohort, fraction: float, place: Path, seed: int) -> Cohort:
    """The cohort with that fraction of its training patients; itself where that is all."""
    if fraction == 1:
        return cohort
    folder = place / "cohort"
    return Cohort.open(folder) if folder.is_dir() else thin(cohort, folder, fraction, seed)


def _drawn(cohort: Cohort, preprocess: Preprocess, part: UtilityPart, seed: int, place: Path) -> Cohort:
    """What a generator of one seed draws after it learned from a cohort: enough for the largest ratio."""
    from medphantom.generators.bundle import GeneratorBundle

    bundle = GeneratorBundle.load(trained_bundle(cohort, preprocess, part, seed, place))
    total = round(max(1.0, *part.study.ratios) * len(cohort.rows("train")))
    choice: PlanChoice = MatchPlan(total=total, seed=seed)
    if part.study.task == "segmentation":
        choice = MasksPlan(kind="masks", total=total, seed=seed)
    shown = watcher().stage(f"generator {seed + 1}")
    return drawn_by(bundle, cohort, choice, part.sampler, place, shown=shown)


def trained_bundle(cohort: Cohort, preprocess: Preprocess, part: UtilityPart, seed: int, place: Path) -> Path:
    """A generator of one seed that learned from a cohort; what was trained in ``place`` is found again.

    Args:
        cohort: real cohort.
        preprocess: what it sees.
        part: how it is trained; ``seed`` is added to its own.
        seed: 0, 1, ….
        place: private folder.
    """
    from medphantom.generators.train import train_generator

    config: GeneratorConfig = part.generator.model_copy(update={"seed": part.generator.seed + seed})
    key = json_digest([cohort.digest, preprocess.model_dump(mode="json"), config.model_dump(mode="json")])[:12]
    folder, shown = place / f"generator_{key}", watcher().stage(f"generator {seed + 1}")
    if not (folder / "bundle").is_dir():
        check_base(cohort, preprocess, config, work=folder / "work", progress=shown)
        train_generator(cohort, preprocess, config, folder / "bundle", work=folder / "work", progress=shown)
    return folder / "bundle"


def drawn_by(
    bundle: GeneratorBundle,
    cohort: Cohort,
    choice: PlanChoice,
    sampler: SamplerConfig,
    place: Path,
    *,
    shown: Progress,
) -> Cohort:
    """What a generator draws for a plan; what was drawn in ``place`` is found again.

    Args:
        bundle: the generator.
        cohort: real cohort, which the plan is made from.
        choice: the plan.
        sampler: how it is drawn.
        place: private folder.
        shown: told how far it is.
    """
    from medphantom.generators.generate import generate

    facts = bundle.facts
    parts = [bundle.digest, cohort.digest, choice.model_dump(mode="json"), sampler.model_dump(mode="json")]
    folder = place / f"images_{json_digest(parts)[:12]}"
    if folder.is_dir():
        return Cohort.open(folder)
    plan = make_plan(choice, cohort, facts.conditions, preprocess=facts.preprocess)
    return generate(bundle, plan, folder, work=folder.with_name(f"{folder.name}.work"), sampler=sampler, progress=shown)


def _publish(found: dict[float, StudyReport], part: UtilityPart, out: Path, generators: int) -> None:
    """Reports, tables and facts: all or none."""
    from medphantom.quality.report.page import render_study
    from medphantom.quality.report.study_table import study_table
    from medphantom.quality.report.write import without_paths

    settings = without_paths(part.model_dump(mode="json", exclude={"generator": {"init_from"}}))
    facts: dict[str, Any] = {
        "format_version": 1,
        "fractions": sorted(found),
        "generators": generators,
        "settings": settings,
        "machine": machine(),
        "versions": versions(),
    }
    with publishing(out) as partial:
        for fraction, report in found.items():
            folder = partial / fraction_folder(fraction)
            folder.mkdir()
            report.save(folder / STUDY_FILE)
            (folder / TABLE_FILE).write_text(study_table(report), encoding="utf-8")
        named = {share_words(share): report for share, report in sorted(found.items())}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        page = render_study(named, created=created, settings=settings, facts=facts)
        (partial / PAGE_FILE).write_text(page, encoding="utf-8")
        write_json(partial / FACTS_FILE, facts)


def share_words(fraction: float) -> str:
    """A share of the training patients for a reader."""
    return "All training patients" if fraction == 1 else f"{fraction:.3g} of the training patients"
