"""Medphantom for notebooks: ``import medphantom as mp`` gives the verbs of the command line as functions.

Example:
    >>> import medphantom as mp  # doctest: +SKIP
    >>> cohort = mp.ingest("images", "cohort", public_phrase="my public data")  # doctest: +SKIP
    >>> bundle = mp.train(cohort, "bundle", size=64)  # doctest: +SKIP
    >>> synthetic = mp.generate(bundle, mp.plan(bundle, counts={"effusion": 100}), "synthetic")  # doctest: +SKIP
    >>> report = mp.assess(cohort, synthetic, "report", bundle=bundle)  # doctest: +SKIP

Settings that have no argument of their own are given as in a recipe: ``generator={"denoiser_fit": {"steps": 500}}``.
Long functions continue after an interruption when they are called again.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from medphantom import metrics
    from medphantom.phantoms.write import PhantomSummary
    from medphantom.core.progress import Progress
    from medphantom.cohorts.preprocess import Preprocess, network_images
    from medphantom.cohorts.store import Cohort
    from medphantom.conditioning.plan import SamplingPlan
    from medphantom.generation import GeneratedImages, Generator
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.quality.report.compare import Comparison
    from medphantom.quality.results.counterfactual_report import CounterfactualReport
    from medphantom.quality.results.quality_report import QualityReport
    from medphantom.quality.counterfactual.ranking import Ranking
    from medphantom.quality.results.augment_report import AugmentReport
    from medphantom.quality.results.study_report import StudyReport

__all__ = [
    "Cohort",
    "GeneratedImages",
    "Generator",
    "Preprocess",
    "assess",
    "assess_counterfactuals",
    "augment",
    "compare",
    "contact_sheet",
    "counterfactual",
    "export",
    "generate",
    "ingest",
    "metrics",
    "network_images",
    "open_bundle",
    "open_cohort",
    "plan",
    "rank",
    "run",
    "search",
    "simulate",
    "train",
    "utility",
    "watching",
]

Folder = str | Path

_LAZY = {
    "Cohort": "medphantom.cohorts.store",
    "GeneratedImages": "medphantom.generation",
    "Generator": "medphantom.generation",
    "Preprocess": "medphantom.cohorts.preprocess",
    "metrics": "medphantom.metrics",
    "network_images": "medphantom.cohorts.preprocess",
}
"""Names that are loaded when they are first used, and where they live: ``import medphantom`` itself stays light."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    found = globals()[name] = module if _LAZY[name] == f"{__name__}.{name}" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def watching() -> AbstractContextManager[object]:
    """Show the progress of whatever runs in the block: ``with mp.watching(): …``."""
    from medphantom.flows.process.progress import watching as watch

    return watch()


def simulate(out: Folder, patients: int = 100, *, progress: Progress | None = None, **options: Any) -> PhantomSummary:
    """Write simulated patients as files.

    Args:
        out: folder to make.
        patients: how many; most have one image, some up to four.
        progress: told how far it is.
        options: ``format`` (``dicom``, ``png``, ``nifti``), ``spatial_dims``, ``size``, ``seed``, ``masks``…, as of
            :func:`medphantom.phantoms.write.write_phantoms`.
    """
    from medphantom.flows.operations import verbs

    return verbs.simulate(Path(out), patients=patients, progress=progress, **options)


def ingest(
    source: Folder,
    out: Folder,
    *,
    public_phrase: str = "",
    key_file: Folder | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Cohort:
    """Read images into a cohort: checked, de-identified, split by patient.

    Args:
        source: folder of DICOM, NIfTI, PNG, JPEG or TIFF files, or a ``.npz``.
        out: cohort to make.
        public_phrase: for public data only: splits that anyone can make again.
        key_file: secret key of pseudonyms and splits; by default the user's own.
        progress: told how far it is.
        options: as of :class:`medphantom.cohorts.options.IngestOptions`.
    """
    from medphantom.flows.operations import verbs
    from medphantom.flows.recipes.settings import IngestPart, read_part

    cohort = {"source": str(Path.cwd() / source), "public_phrase": public_phrase, "options": options}
    if key_file is not None:
        cohort["key_file"] = str(Path.cwd() / key_file)
    part = read_part(IngestPart, None, [], {"cohort": cohort})
    return verbs.ingest(part.cohort, Path(out), progress).cohort


def open_cohort(path: Folder) -> Cohort:
    """Open a cohort, real or synthetic."""
    from medphantom.cohorts.store import Cohort

    return Cohort.open(path)


def open_bundle(path: Folder) -> GeneratorBundle:
    """Load a trained generator, checked against its digest."""
    from medphantom.generators.bundle import GeneratorBundle

    return GeneratorBundle.load(path)


def contact_sheet(cohort: Cohort | Folder, images: int = 24, *, seed: int = 0, size: int | None = None) -> Image:
    """Some images of a cohort; with ``size``, each beside what a network will see of it.

    Args:
        cohort: real or synthetic.
        images: how many.
        seed: which.
        size: side of what a network will see.
    """
    import numpy as np

    from medphantom.cohorts.overview import contact_sheet as draw
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.core.randomness import derive_seed

    opened = _opened(cohort)
    rng = np.random.default_rng(derive_seed(seed, "contact sheet"))
    rows = sorted(rng.choice(len(opened), size=min(images, len(opened)), replace=False).tolist())
    dims = opened.schema.spatial_dims
    return draw(opened, rows, None if size is None else Preprocess.for_cohort(opened, (size,) * dims))


def train(
    cohort: Cohort | Folder,
    out: Folder,
    *,
    size: int | Sequence[int] = 64,
    preprocess: Mapping[str, Any] | None = None,
    generator: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> GeneratorBundle:
    """Fit a generator to a cohort.

    Args:
        cohort: real cohort.
        out: bundle to make.
        size: side, or sides, of what the networks see.
        preprocess: further settings of the ``preprocess`` section.
        generator: settings of the ``generator`` section.
        progress: told how far it is.
    """
    from medphantom.flows.operations import verbs
    from medphantom.flows.recipes.settings import TrainPart, read_part

    opened = _opened(cohort)
    flags = {"preprocess": {"size": _sides(opened, size), **(preprocess or {})}, "generator": dict(generator or {})}
    part = read_part(TrainPart, None, [], flags)
    return verbs.train(opened, part.preprocess.for_cohort(opened), part.generator, Path(out), progress)


def search(
    cohort: Cohort | Folder,
    tries: Mapping[str, Sequence[Any]],
    out: Folder,
    *,
    images: int = 400,
    size: int | Sequence[int] = 64,
    preprocess: Mapping[str, Any] | None = None,
    generator: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train and sample with every combination of settings, and choose on ``val``.

    Args:
        cohort: real cohort.
        tries: dotted fields of ``generator`` and ``sampler``, and the values to try of each:
            ``{"sampler.guidance": [1.0, 2.0]}``.
        out: folder to make: the best ``bundle``, and ``search.json`` with all trials.
        images: drawn to judge each, distributed as ``train``.
        size: side, or sides, of what the networks see.
        preprocess: further settings of the ``preprocess`` section.
        generator: settings of the ``generator`` section that all trials share.
        sampler: settings of the ``sampler`` section that all trials share.

    Returns:
        What ``search.json`` holds.
    """
    from medphantom.flows.operations.search import combinations, trials_of
    from medphantom.flows.operations.search import search as searched
    from medphantom.flows.recipes.settings import SearchPart, read_part

    opened = _opened(cohort)
    flags = {
        "preprocess": {"size": _sides(opened, size), **(preprocess or {})},
        "plan": {"kind": "match", "total": images},
    }
    sections = {"generator": generator or {}, "sampler": sampler or {}}
    shared = [f"{name}={json.dumps(dict(given))}" for name, given in sections.items()]
    part = read_part(SearchPart, None, shared, flags)
    tried = combinations([f"{name}={json.dumps(list(values))}" for name, values in tries.items()])
    return searched(opened, part, trials_of(None, shared, tried, flags), Path(out))


def plan(
    bundle: GeneratorBundle | Folder,
    *,
    counts: Mapping[str, int] | None = None,
    match: int | None = None,
    balance: int | None = None,
    masks: int | None = None,
    prompts: Folder | None = None,
    cohort: Cohort | Folder | None = None,
    seed: int = 0,
    fresh: str = "",
) -> SamplingPlan:
    """What to generate: exactly one of ``counts``, ``match``, ``balance``, ``masks`` and ``prompts``.

    Args:
        bundle: the generator, whose vocabulary it must be.
        counts: label → images.
        match: so many images, distributed as the real training split.
        balance: top up every label to so many images.
        masks: so many images for bent masks of the training split.
        prompts: a table of prompts, CSV or Parquet.
        cohort: the real cohort, for ``match``, ``balance`` and ``masks``.
        seed: another seed gives other images.
        fresh: a tag that enters every seed.
    """
    from medphantom.core.errors import InputError
    from medphantom.flows.recipes.plans import make_plan
    from medphantom.flows.recipes.settings import GeneratePart, read_part

    kinds: dict[str, tuple[object, dict[str, Any]]] = {
        "counts": (counts, {"counts": dict(counts or {})}),
        "match": (match, {"total": match}),
        "balance": (balance, {"per_label": balance}),
        "masks": (masks, {"total": masks}),
        "table": (prompts, {"path": str(prompts)}),
    }
    chosen = [{"kind": kind, "seed": seed, **fields} for kind, (given, fields) in kinds.items() if given is not None]
    if len(chosen) != 1:
        raise InputError(
            "a plan needs exactly one of counts, match, balance, masks and prompts", "e.g. counts={'effusion': 100}"
        )
    choice = read_part(GeneratePart, None, [], {"plan": chosen[0]}).plan
    facts = _loaded(bundle).facts
    real = None if cohort is None else _opened(cohort)
    return make_plan(choice, real, facts.conditions, preprocess=facts.preprocess, fresh=fresh)


def generate(
    bundle: GeneratorBundle | Folder,
    images: SamplingPlan,
    out: Folder,
    *,
    sampler: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Draw the images of a plan.

    Args:
        bundle: the generator.
        images: from :func:`plan`.
        out: synthetic cohort to make.
        sampler: settings of the ``sampler`` section.
        progress: told how far it is.
    """
    from medphantom.flows.operations import verbs
    from medphantom.flows.recipes.settings import GeneratePart, read_part

    part = read_part(GeneratePart, None, [], {"sampler": dict(sampler or {})})
    return verbs.generate(_loaded(bundle), images, part.sampler, Path(out), progress)


def counterfactual(
    bundle: GeneratorBundle | Folder,
    cohort: Cohort | Folder,
    changes: Sequence[str],
    out: Folder,
    *,
    split: str = "test",
    limit: int | None = None,
    method: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Images as they would be, had a finding or an attribute been another: edits of real patients, to keep private.

    Args:
        bundle: the generator.
        cohort: real cohort.
        changes: ``name=value``, e.g. ``["effusion=absent"]``, ``["age=70"]``, ``["age=20:80"]``.
        out: cohort of pairs to make.
        split: whose images.
        limit: at most so many.
        method: fields of :class:`medphantom.generators.config.CounterfactualConfig`, e.g. ``{"guidance": 3.0}``.
        progress: told how far it is.
    """
    from medphantom.flows.operations import verbs
    from medphantom.flows.recipes.recipe_file import validate
    from medphantom.generators.config import CounterfactualConfig

    config = validate(CounterfactualConfig, dict(method or {}), "counterfactual")
    return verbs.counterfactual(
        _loaded(bundle), _opened(cohort), changes, config, Path(out), split=split, limit=limit, progress=progress
    )


def assess_counterfactuals(
    real: Cohort | Folder,
    pairs: Cohort | Folder,
    out: Folder,
    *,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> CounterfactualReport:
    """Score counterfactual pairs and write ``report.html``, which shows patients, and ``report.json``, which does not.

    Args:
        real: the cohort that was edited.
        pairs: from :func:`counterfactual`.
        out: folder for the reports.
        settings: settings of the ``assess`` section.
        progress: told how far it is.
    """
    from medphantom.flows.operations.pair_verbs import assess_pairs
    from medphantom.flows.recipes.settings import AssessPart, read_part

    part = read_part(AssessPart, None, [], {"assess": dict(settings or {})})
    return assess_pairs(_opened(real), _opened(pairs), part.assess, Path(out), progress=progress)


def rank(
    classifier: Folder | Callable[[Any], Any],
    pairs: Sequence[Cohort | Folder],
    output: str | int,
    *,
    cohort: Cohort | Folder | None = None,
    names: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    out: Folder | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank interventions by how much a classifier of yours changes its mind between factual and counterfactual images.

    Args:
        classifier: TorchScript or ONNX file, or a function of images ``(N, C, H, W)`` float32 that returns ``(N,)`` or
            ``(N, K)``.
        pairs: cohorts from :func:`counterfactual`, one per intervention.
        output: name or index.
        cohort: the real cohort, for what the method does to the output by itself.
        names: of the outputs.
        settings: fields of :class:`medphantom.quality.counterfactual.ranking.RankConfig`, e.g. ``{"takes": {"size": [224, 224]}}``.
        out: JSON file to write.
        progress: told how far it is.
    """
    from medphantom.flows.operations.pair_verbs import rank as rank_pairs
    from medphantom.flows.recipes.recipe_file import validate
    from medphantom.quality.counterfactual.ranking import RankConfig

    config = validate(RankConfig, dict(settings or {}), "rank")
    judge = Path(classifier) if isinstance(classifier, str | Path) else classifier
    real = None if cohort is None else _opened(cohort)
    given = [_opened(one) for one in pairs]
    file = None if out is None else Path(out)
    return rank_pairs(judge, given, str(output), config, real=real, names=names, out=file, progress=progress)


def assess(
    real: Cohort | Folder,
    synthetic: Cohort | Folder,
    out: Folder,
    *,
    bundle: GeneratorBundle | Folder | None = None,
    size: int = 64,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> QualityReport:
    """Score a synthetic cohort against real patients and write the report pages.

    Args:
        real: real cohort.
        synthetic: synthetic cohort, ours or anyone's.
        out: folder for ``report.html``, ``report.public.html`` and ``report.json``.
        bundle: the generator, for the control of the copy search.
        size: side of what the scoring networks see, where no bundle says so.
        settings: settings of the ``assess`` section.
        progress: told how far it is.
    """
    from medphantom.flows.operations import verbs
    from medphantom.flows.recipes.settings import AssessPart, read_part

    actual = _opened(real)
    sides = [size] * actual.schema.spatial_dims
    part = read_part(AssessPart, None, [], {"preprocess": {"size": sides}, "assess": dict(settings or {})})
    loaded = None if bundle is None else _loaded(bundle)
    preprocess = part.preprocess.for_cohort(actual) if loaded is None else loaded.facts.preprocess
    return verbs.assess(
        actual, _opened(synthetic), preprocess, part.assess, Path(out), bundle=loaded, progress=progress
    )


def utility(
    cohort: Cohort | Folder,
    out: Folder,
    *,
    size: int | Sequence[int] = 64,
    fractions: Sequence[float] = (1.0,),
    generators: int = 2,
    external: Mapping[str, Cohort | Folder] | None = None,
    generator: Mapping[str, Any] | None = None,
    sampler: Mapping[str, Any] | None = None,
    study: Mapping[str, Any] | None = None,
) -> dict[float, StudyReport]:
    """Does it help to train on synthetic images? Generators and classifiers learn from the same patients.

    Args:
        cohort: real cohort with labels.
        out: folder to make: the page, and per fraction the table and its JSON.
        size: side of what the networks see, in pixels.
        fractions: of the training patients.
        generators: seeds of the generator.
        external: further real cohorts to test on, by name.
        generator: settings of the ``generator`` section.
        sampler: settings of the ``sampler`` section.
        study: settings of the ``study`` section.

    Returns:
        The study of each fraction.
    """
    from medphantom.flows.recipes.settings import UtilityPart, read_part
    from medphantom.flows.operations.utility import utility_study

    real = _opened(cohort)
    sections = {"generator": dict(generator or {}), "sampler": dict(sampler or {}), "study": dict(study or {})}
    part = read_part(UtilityPart, None, [], {"preprocess": {"size": _sides(real, size)}, **sections})
    outside = {name: _opened(one) for name, one in (external or {}).items()}
    return utility_study(real, part, Path(out), fractions=fractions, generators=generators, external=outside or None)


def augment(
    cohort: Cohort | Folder,
    label: str,
    to: int,
    out: Folder,
    *,
    bundles: Sequence[Folder] = (),
    size: int | Sequence[int] = 64,
    generators: int = 2,
    shares: Sequence[float] = (0.5, 1.0),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> AugmentReport:
    """Top up a scarce label, and say whether that helps on real patients.

    Args:
        cohort: real cohort with labels.
        label: the scarce one.
        to: training images of it that are wanted, real and synthetic together.
        out: folder to make: answer, report, table of the study, images.
        bundles: generators of different seeds that learned from exactly this cohort; empty: they are trained.
        size: side of what the networks see, where no bundle says so.
        generators: seeds of the generator, where they are trained.
        shares: shares of the planned images that classifiers learn from.
        settings: sections ``generator``, ``sampler``, ``assess``, ``study`` as in a recipe.
    """
    from medphantom.flows.operations.augment import augment as augmented
    from medphantom.flows.operations.augment import propose
    from medphantom.flows.recipes.settings import AugmentPart, read_part

    real, paths = _opened(cohort), [Path(bundle) for bundle in bundles]
    sections = {name: dict(section) for name, section in (settings or {}).items()}
    part = read_part(AugmentPart, None, [], {"preprocess": {"size": _sides(real, size)}, **sections})
    total = len(paths) or generators
    planned = propose(real, label, to, part.study, shares=shares, generators=total, trained=not paths)
    return augmented(real, part, planned, Path(out), bundles=paths)


def compare(runs: Sequence[Folder], out: Folder, *, draw: bool = True) -> Comparison:
    """Put runs side by side: scores with intervals, and images of the same prompts and seeds.

    Args:
        runs: folders of run, assess or augment.
        out: folder to make: ``compare.html`` (internal) and ``compare.json``.
        draw: whether generators may draw, where runs have no prompt and seed in common.
    """
    from medphantom.flows.operations.compare import compare_runs

    return compare_runs([Path(run) for run in runs], Path(out), draw=draw)


def export(
    cohort: Cohort | Folder,
    out: Folder,
    *,
    format: Literal["png", "nifti"] = "png",  # noqa: A002 - the command line's own word
    layout: Literal["auto", "labels", "table"] = "auto",
    progress: Progress | None = None,
) -> Path:
    """Write a cohort as files that other tools load, with a warning where values were rounded.

    Args:
        cohort: usually synthetic.
        out: folder to make.
        format: ``png`` or ``nifti``.
        layout: ``labels``: a folder per label; ``table``: ``metadata.csv``; ``auto``: as fits.
        progress: told how far it is.
    """
    from medphantom.cohorts.export import export_cohort
    from medphantom.cohorts.exported import rounding

    made = export_cohort(_opened(cohort), Path(out), format=format, layout=layout, progress=progress)
    if said := rounding(made):
        warnings.warn(said, stacklevel=2)
    return made


def run(recipe: Folder, settings: Sequence[str] = (), *, out: Folder | None = None) -> dict[str, Path]:
    """The whole job of a recipe, without Prefect; what is current is reused.

    Args:
        recipe: YAML file.
        settings: ``field.field=value``.
        out: run folder; by default ``runs/<name>``.

    Returns:
        Path of the artifact of each stage.
    """
    from medphantom.flows.runs.job import open_job
    from medphantom.flows.runs.steps import run_job

    return {stage: Path(ref.path) for stage, ref in run_job(open_job(recipe, settings, out)).items()}


def _sides(cohort: Cohort, size: int | Sequence[int]) -> list[int]:
    return [size] * cohort.schema.spatial_dims if isinstance(size, int) else list(size)


def _opened(cohort: Cohort | Folder) -> Cohort:
    return open_cohort(cohort) if isinstance(cohort, str | Path) else cohort


def _loaded(bundle: GeneratorBundle | Folder) -> GeneratorBundle:
    return open_bundle(bundle) if isinstance(bundle, str | Path) else bundle

