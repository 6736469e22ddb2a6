"""Compare runs: their reports side by side, and images of the same prompts and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import PlannedImage, SamplingPlan
from medphantom.conditioning.prompt import Prompt
from medphantom.core.arguments import checked
from medphantom.core.errors import InputError
from medphantom.core.folders import publishing
from medphantom.core.guard import user_path
from medphantom.flows.operations.augment import BUNDLE_FOLDER, IMAGES_FOLDER
from medphantom.flows.operations.places import Folder, refuse_existing, resumable
from medphantom.flows.process.progress import watcher
from medphantom.flows.runs.artifact import REPORT_JSON, STAGES_FILE, RunFolder

if TYPE_CHECKING:
    from medphantom.quality.report.compare import Comparison
    from medphantom.quality.report.compare_page import PictureRow
    from medphantom.quality.report.pictures import Picture
    from medphantom.quality.report.write import PublishedReport

PAGE_FILE, JSON_FILE = "compare.html", "compare.json"
SYNTHETIC_FOLDER = "synthetic"
ROWS = 12
DRAWN_SIDE = 128


@dataclass(frozen=True)
class _Run:
    name: str
    folder: Path
    report: PublishedReport
    images: Cohort | None

    @property
    def bundle(self) -> Path | None:
        folder = self.folder / BUNDLE_FOLDER
        return folder if (folder / "bundle.json").is_file() else None


@checked
def compare(runs: Sequence[Folder], out: Folder, *, draw: bool = True) -> Comparison:
    """Write ``compare.html`` (internal) and ``compare.json`` into ``out``.

    Pictures are of prompts and seeds that every run drew. Where they have none in common, every run's generator draws
    those of the first run, if it lies beside the report.

    Args:
        runs: Folders of ``medphantom run``, ``assess`` or ``augment``, two or more: each holds a ``report.json``.
        out: Folder to make.
        draw: Whether generators may draw, where runs have no prompt and seed in common.

    Raises:
        InputError: fewer than two, one twice, or ``out`` exists.
        ArtifactError: a folder holds no report of this version.
    """
    from medphantom.quality.report.compare import compare as compared
    from medphantom.quality.report.compare_page import render_comparison

    place = Path(out)
    refuse_existing(place)
    given = list(_opened([Path(run) for run in runs]))
    found = compared({run.name: run.report for run in given})
    created = datetime.now(UTC).isoformat(timespec="seconds")

    def run(work: Path) -> Comparison:
        rows, drawn = _pictures(given, work, draw=draw)
        with publishing(place) as partial:
            page = render_comparison(found, rows, created=created, drawn=drawn)
            (partial / PAGE_FILE).write_text(page, encoding="utf-8")
            found.save(partial / JSON_FILE)
        return found

    return resumable(place, run)


def _opened(folders: Sequence[Path]) -> Iterator[_Run]:
    from medphantom.quality.report.write import PublishedReport

    places = [user_path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise InputError("a run is named twice", "name different ones")
    for place, given in zip(places, folders, strict=True):
        file = place / REPORT_JSON
        if not file.is_file():
            raise InputError(f"{given} holds no {REPORT_JSON}", "give folders of run, assess or augment")
        alike = sum(other.name == place.name for other in places) > 1
        name = f"{place.parent.name}/{place.name}" if alike else place.name
        if (place / STAGES_FILE).is_file():
            RunFolder(place).require_unaltered("report", REPORT_JSON)
        report = PublishedReport.load(file)
        yield _Run(name, place, report, _images(place, report.quality.synthetic_digest))


def _images(folder: Path, digest: str) -> Cohort | None:
    """The images that were scored, where they still lie beside their report."""
    for name in (SYNTHETIC_FOLDER, IMAGES_FOLDER):
        if (folder / name).is_dir():
            cohort = Cohort.open(folder / name)
            if cohort.digest == digest:
                return cohort
    return None


# ---- pictures ----


def _pictures(runs: Sequence[_Run], work: Path, *, draw: bool) -> tuple[list[PictureRow], str]:
    """One row per prompt and seed, and where the pictures come from."""
    from medphantom.quality.report.compare_page import PictureRow

    requested = [_requested_rows(run.images) for run in runs]
    shared = _varied([key for key in requested[0] if all(key in other for other in requested[1:])])
    if shared:
        columns = [
            list(_drawn(run, run.images, [rows[key] for key in shared]))
            for run, rows in zip(runs, requested, strict=True)
            if run.images is not None
        ]
        said = f"The first {len(shared)} prompts and seeds that every run drew, by label set; nobody chose them."
    else:
        shared = _varied([key for key in requested[0] if Prompt.from_json(key[0]).mask is None])
        if not draw or not shared or any(run.bundle is None for run in runs):
            return [], ""
        watcher().note("no prompt and seed is common to all runs: every generator draws those of the first run")
        columns = [
            list(_drawn(run, _anew(run, shared, work / str(place)), range(len(shared))))
            for place, run in enumerate(runs)
        ]
        said = f"The first {len(shared)} prompts and seeds of {runs[0].name}, drawn by every generator for this page."
    titles = [_words(Prompt.from_json(prompt)) for prompt, _ in shared]
    return [PictureRow(title, row) for title, row in zip(titles, zip(*columns, strict=True), strict=True)], said


def _varied(keys: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The first prompt and seed of every label set, then the second, …: at most :data:`ROWS`."""
    seen: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for place, key in enumerate(keys):
        labels = tuple(name for name, state in Prompt.from_json(key[0]).labels.items() if state)
        ranked.append((seen[labels], place, key))
        seen[labels] += 1
    return [key for _, _, key in sorted(ranked)[:ROWS]]


def _requested_rows(images: Cohort | None) -> dict[tuple[str, int], int]:
    """Prompt and seed → row, of images that a generator of ours drew."""
    if images is None:
        return {}
    manifest = images.manifest
    known = zip(manifest["prompt_json"].to_list(), manifest["seed"].to_list(), strict=True)
    return {(prompt, seed): row for row, (prompt, seed) in enumerate(known) if prompt is not None and seed is not None}


def _anew(run: _Run, requested: Sequence[tuple[str, int]], folder: Path) -> Cohort:
    """The same prompts and seeds by this run's generator, as its own images were drawn."""
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import SamplerConfig
    from medphantom.generators.generate import generate

    images = [
        PlannedImage(image_id=f"{place:06d}", prompt=Prompt.from_json(prompt), seed=seed)
        for place, (prompt, seed) in enumerate(requested)
    ]
    made = {} if run.images is None else run.images.schema.generation
    settings = {name: made[name] for name in ("solver", "steps", "guidance", "guidance_interval") if name in made}
    return generate(
        GeneratorBundle.load(str(run.bundle)),
        SamplingPlan(images),
        folder / "images",
        work=folder / "work",
        sampler=SamplerConfig.model_validate(settings),
        progress=watcher().stage(run.name),
    )


def _drawn(run: _Run, images: Cohort, rows: Sequence[int]) -> Iterator[Picture]:
    """Pictures of rows as the run's networks saw them."""
    from medphantom.cohorts.preprocess import Preprocess
    from medphantom.cohorts.scale import reading_of
    from medphantom.generators.facts import read_facts
    from medphantom.quality.report.pictures import Drawer

    if run.bundle is not None:
        preprocess = read_facts(run.bundle)[0].preprocess
    else:
        shape = images.manifest["shape"].to_list()[0]
        preprocess = Preprocess.for_cohort(images, shape[: images.schema.spatial_dims])
    scored = None if images is not run.images else run.report.quality.readings.get("synthetic")
    drawer = Drawer(images, (scored or reading_of(images, preprocess)).of(preprocess))
    for row in rows:
        words = _words(Prompt.from_json(images.manifest["prompt_json"][row]))
        caption = f"{run.name}: row {row}, seed {images.manifest['seed'][row]}. {words}"
        yield drawer.picture(row, DRAWN_SIDE, f"Synthetic image of {run.name}: {words}", caption)


def _words(prompt: Prompt) -> str:
    """What a prompt asks for."""
    shown = [name for name, state in prompt.labels.items() if state]
    parts = [", ".join(shown) or ("no label present" if prompt.labels else "")]
    parts += [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in prompt.attributes.items()
    ]
    parts.append("a text" if prompt.text else "")
    return "; ".join(part for part in parts if part) or "nothing in particular"
