"""The report of a run: an internal page, a public page without patient data, and the same scores as JSON."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.core.access import private_files, private_folder, share
from medphantom.core.errors import ArtifactError, InputError
from medphantom.core.folders import no_space_becomes_one_line, read_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.core.staging import staging
from medphantom.learning.guarantee import PublishedGuarantee
from medphantom.quality.report.page import Edition, render_page
from medphantom.quality.report.pictures import Grids, draw_grids, draw_pairs
from medphantom.quality.results.augment_report import AugmentReport
from medphantom.quality.results.quality_report import QualityReport, Verdict
from medphantom.quality.results.study_report import StudyReport
from medphantom.quality.stats.estimate import Estimate

INTERNAL_PAGE = "report.html"
PUBLIC_PAGE = "report.public.html"
JSON_FILE = "report.json"

HIDDEN = "(hidden)"
PRIVATE_FIELDS = frozenset(
    {"source", "table", "masks", "out", "work", "folder", "path", "file", "key", "key_file", "phrase", "public_phrase"}
)
LOCAL_PATH = re.compile(r"^(/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\|file:)")


class ControlAttack(Frozen):
    """The result of one attack on a control model.

    Attributes:
        attack: name of the attack.
        auroc: area under its ROC curve, by patient.
        flagged: whether its interval lies above 0.5.
    """

    attack: str
    auroc: Estimate
    flagged: bool


class ControlFacts(Frozen):
    """The results of the privacy checks on a control model that memorises training images.

    Attributes:
        kind: ``memorised`` for a model overfitted to few images, ``noiseless`` for private steps without noise.
        training_images: number of its training images.
        verdict: verdict of the copy search on its images.
        reasons: reasons for the verdict.
        attacks: results of membership inference attacks on its patients.
    """

    kind: Literal["memorised", "noiseless"]
    training_images: int
    verdict: Verdict
    reasons: tuple[str, ...]
    attacks: tuple[ControlAttack, ...]


class RunFacts(Frozen):
    """Facts of a run for the page, without image content.

    Attributes:
        name: name of the run.
        created: time of the report, ISO 8601.
        recipe: resolved recipe of the run.
        digests: digest of each artifact that was read or created, by name.
        versions: version of each package, by name.
        machine: hardware of the run, e.g. ``{"cpu": "…", "cores": 2}``, without host or user name.
        seeds: seed of each purpose.
        timings_s: time per stage in seconds.
        curves: the rows of ``metrics.jsonl``, each with its ``stage``: ``step`` and any of ``loss``, ``train_loss``,
            ``val_loss``, ``gap``; further numbers stay in the JSON. Values that are not finite become ``None``.
        intended_use: intended use in the words of the set's author.
        privacy: formal guarantee of the generator in words, or that there is none.
        guarantee: formal guarantee, if there is one; JSON has it in the form of published reports.
        outside: steps that used the private images and are not covered by the guarantee.
        assumptions: assumptions of the guarantee.
        control: results of the same checks on a control model that memorises, if there is one.
    """

    name: str
    created: str
    recipe: dict[str, Any] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, str | int | float] = Field(default_factory=dict)
    seeds: dict[str, int] = Field(default_factory=dict)
    timings_s: dict[str, float] = Field(default_factory=dict)
    curves: tuple[dict[str, str | int | float | None], ...] = ()
    intended_use: str = ""
    privacy: str = "no formal guarantee"
    guarantee: PublishedGuarantee | None = None
    outside: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    control: ControlFacts | None = None

    @field_validator("curves", mode="before")
    @classmethod
    def _finite_curves(cls, rows: Any) -> Any:
        if not isinstance(rows, list | tuple):
            return rows
        for row in rows:
            if not isinstance(row, Mapping) or "stage" not in row or "step" not in row:
                raise ValueError("each row of curves needs stage and step")
        return tuple(
            {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
            for row in rows
        )


class UseFound(Frozen):
    """Results on the utility of the set for training, beyond the utility check.

    Attributes:
        study: report of the utility study.
        answer: recommendation on the images of a rare label.
    """

    study: StudyReport | None = None
    answer: AugmentReport | None = None


class PublishedReport(Frozen):
    """The content of ``report.json``: the content of the public page in machine-readable form.

    Attributes:
        edition: always ``public``: no pixel, id or row of a real image, and no path.
        facts: facts of the run, without paths.
        quality: all scores, without the nearest pairs and without the rows of flagged images.
        use: results of a utility study, if one was done.
    """

    format_version: Literal[2] = 2
    edition: Literal["public"] = "public"
    facts: RunFacts
    quality: QualityReport
    use: UseFound | None = None

    @classmethod
    def load(cls, path: Path) -> PublishedReport:
        """Read ``report.json``.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        return parse_model(
            cls, read_json(path), path, ArtifactError, "is not a report of this version; create the report again"
        )


def write_report(
    report: QualityReport,
    *,
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    facts: RunFacts,
    out: Path,
    use: UseFound | None = None,
) -> None:
    """Write ``report.html`` (internal), ``report.public.html`` and ``report.json`` into ``out``: all three or none.

    The internal page shows real test images and the real images that are most similar to synthetic images, so it must
    not leave the institution. The public page and the JSON file contain no pixel, id or pseudonym of a real image, no
    local path, and no reference to a flagged synthetic image. The public page shows pictures only of screened synthetic
    images, and none whose pixels equal those of a real image of any split. Equal arguments give equal bytes.

    Args:
        report: scores of the synthetic set.
        real: real cohort of the assessment.
        synthetic: synthetic cohort that was scored.
        preprocess: preprocessing of images for the scoring networks and for pictures.
        facts: facts of the run.
        out: folder of the run; older reports in it are replaced.
        use: results on the utility of the set, shown in both editions.

    Raises:
        InputError: the cohorts are not the ones that were scored.
        ResourceError: the disk is full or the folder cannot be written.
    """
    for cohort, digest, what in ((real, report.real_digest, "real"), (synthetic, report.synthetic_digest, "synthetic")):
        if cohort.digest != digest:
            raise InputError(f"the {what} cohort at {cohort.path} is not the one that was scored", "assess it again")
    published = PublishedReport(facts=public_facts(facts), quality=public_quality(report), use=use)
    volumes = real.schema.spatial_dims == 3
    reading = report.readings.get("synthetic")
    useful = use or UseFound()
    grids, reason = public_grids(report, real, synthetic, preprocess)
    pages = {
        INTERNAL_PAGE: render_page(
            report,
            facts.model_dump(mode="json"),
            Edition(
                internal=True,
                grids=draw_grids(real, synthetic, preprocess, with_real=True, reading=reading),
                pairs=draw_pairs(report.nearest, real, synthetic, preprocess, reading),
                volumes=volumes,
            ),
            guarantee=facts.guarantee,
            study=useful.study,
            answer=useful.answer,
        ),
        PUBLIC_PAGE: render_page(
            published.quality,
            published.facts.model_dump(mode="json"),
            Edition(internal=False, grids=grids, no_pictures=reason, volumes=volumes),
            guarantee=facts.guarantee,
            study=useful.study,
            answer=useful.answer,
        ),
        JSON_FILE: json.dumps(
            published.model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False
        )
        + "\n",
    }
    write_together(out, pages, shared=(PUBLIC_PAGE, JSON_FILE))


def public_facts(facts: RunFacts) -> RunFacts:
    """The facts without local paths, which may contain names of people, projects and servers."""
    return facts.model_copy(update={"recipe": without_paths(facts.recipe), "machine": without_paths(facts.machine)})


def without_paths(value: Any, name: str = "") -> Any:
    """Nested settings with hidden local paths, which may contain names of people, projects and servers."""
    if isinstance(value, Mapping):
        return {key: without_paths(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item, name) for item in value]
    if isinstance(value, str) and (name in PRIVATE_FIELDS or LOCAL_PATH.match(value)):
        return HIDDEN
    return value


def public_quality(report: QualityReport) -> QualityReport:
    """The scores without references to real images or to synthetic images that may be copies."""
    copies = report.copies and report.copies.model_copy(update={"flagged_rows": ()})
    return report.model_copy(update={"nearest": (), "copies": copies})


def public_grids(
    report: QualityReport, real: Cohort, synthetic: Cohort, preprocess: Preprocess
) -> tuple[Grids | None, str]:
    """Pictures for the public page, or the reason why there are none.

    A synthetic image may be a copy, so images of a set that was not screened are treated as real images. Of a screened
    set, no flagged image is shown, and none that equals a real image of any split, either as stored or as drawn.
    """
    if report.verdict == "fail":
        return None, "The set failed the privacy gate: any synthetic image may be a copy, so none is shown."
    if report.verdict != "screened" or report.copies is None:
        return None, "The set was not screened: its images are treated as real images and are not shown."
    if report.copies.total_flagged > len(report.copies.flagged_rows):
        return None, "Not all rows of flagged images are known, so no image is shown."
    real_digests = set(real.manifest["digest"].to_list())
    repeated = {row for row, digest in enumerate(synthetic.manifest["digest"].to_list()) if digest in real_digests}
    near = {pair.synthetic_row for pair in report.nearest if pair.flagged}
    hidden = frozenset(repeated | near | set(report.copies.flagged_rows))
    reading = report.readings.get("synthetic")
    return draw_grids(real, synthetic, preprocess, with_real=False, hidden=hidden, reading=reading), ""


def write_together(folder: Path, files: Mapping[str, str], *, shared: Collection[str] = ()) -> None:
    """Write several files into one folder, either all or none.

    Args:
        folder: output folder, accessible to its owner only.
        files: text of each file, by name.
        shared: names of files that may be shared: readable as the umask allows, the others by the owner only.

    Raises:
        ResourceError: the disk is full or the folder cannot be written.
    """
    with no_space_becomes_one_line(folder / next(iter(files))):
        private_folder(folder)
        with private_files(), staging(folder / "report") as partial:
            for name, text in files.items():
                (partial / name).write_text(text, encoding="utf-8")
                if name in shared:
                    share(partial / name)
            _replace_together(folder, partial, list(files))


def _replace_together(folder: Path, partial: Path, names: list[str]) -> None:
    """Move files into place; if one cannot be moved, restore the previous files."""
    for name in names:
        if (folder / name).is_file():
            shutil.copy2(folder / name, partial / f"{name}.before")
    placed: list[str] = []
    try:
        for name in names:
            (partial / name).replace(folder / name)
            placed.append(name)
    except OSError:
        for name in placed:
            before = partial / f"{name}.before"
            if before.exists():
                before.replace(folder / name)
            else:
                (folder / name).unlink()
        raise
