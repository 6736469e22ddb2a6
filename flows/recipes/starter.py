"""The recipe that ``medphantom init`` writes: it inspects the source, and asks what only its owner can know."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from medphantom.cohorts.ingestion.look import Findings
from medphantom.cohorts.ingestion.look import look as look_at
from medphantom.cohorts.options import FOLDER_MEANINGS, IngestOptions
from medphantom.core.access import share
from medphantom.core.errors import InputError, RecipeError
from medphantom.core.folders import no_space_becomes_one_line
from medphantom.core.guard import user_path
from medphantom.core.progress import Progress
from medphantom.flows.recipes.recipe import Recipe
from medphantom.flows.recipes.recipe_file import validate

TEMPLATE = Path(__file__).parent / "templates" / "recipe.yaml"
DEMO_RECIPE = TEMPLATE.with_name("demo.yaml")
VOLUME_SIZE = [32, 64, 64]
FROM_BASE = """\
  init_from: base:generic         # ships with this program and learned from no patient (medphantom bases lists others);
                                  # base:radiograph suits chest radiographs; null trains from nothing
  denoiser_fit: {steps: @FIT@, batch_size: 64, grid_every: 100}     # shows images every so many steps
"""
FROM_NOTHING = """\
  autoencoder_fit: {steps: @FIT@, batch_size: 16}
  denoiser_fit: {steps: @FIT@, batch_size: 64, grid_every: 100}     # shows images every so many steps
"""
THOROUGH = {"@FIT@": "2000", "@TOTAL@": "500", "@STEPS@": "20"}
QUICK = {"@FIT@": "300", "@TOTAL@": "100", "@STEPS@": "12"}

Ask = Callable[[str, Sequence[str]], str]
"""A question and its possible answers; gives one of them, or an empty text where nobody can be asked."""


def starter(
    source: str,
    name: str,
    findings: Findings | None = None,
    options: dict[str, Any] | None = None,
    *,
    quick: bool = False,
) -> str:
    """Return a commented recipe.

    Args:
        source: The folder of the images, as the recipe names it.
        name: The name of the run.
        findings: The detected properties of the source, if it was inspected.
        options: The fields of ``cohort.options`` that were decided.
        quick: Whether it is to show pictures within minutes instead of the best ones.

    Raises:
        RecipeError: The name or source cannot stand in a recipe.
    """
    template = TEMPLATE.read_text(encoding="utf-8")
    chosen = options or {}
    table = str(chosen.get("table", "auto"))
    volumes = findings is not None and findings.spatial_dims > 2
    marks = {
        "@GENERATOR@": FROM_NOTHING if volumes else FROM_BASE,
        **(QUICK if quick else THOROUGH),
        "@NAME@": json.dumps(name),
        "@SOURCE@": json.dumps(source, ensure_ascii=False),
        "@TABLE@": table if table in {"auto", "none"} else json.dumps(table, ensure_ascii=False),
        "@FOLDERS@": str(chosen.get("folders", "ask")),
        "@SIZE@": json.dumps(VOLUME_SIZE if volumes else [64, 64]),
        "@FOUND@": "".join(f"    # {line}\n" for line in _lines(findings, chosen)),
    }
    text = template
    for mark, value in marks.items():
        text = text.replace(mark, value)
    validate(Recipe, yaml.safe_load(text), "recipe")
    return text


def write_starter(
    file: Path,
    *,
    source: str,
    name: str,
    options: dict[str, Any] | None = None,
    ask: Ask | None = None,
    quick: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write the recipe of :func:`starter`, filled in with what the source holds.

    Args:
        file: The recipe to write; ``source`` is relative to its folder.
        source: The folder of the images.
        name: The name of the run.
        options: The fields of ``cohort.options`` that were decided already, such as ``folders``.
        ask: The function that asks for what the source does not tell; without it, such a line is left to be confirmed.
        quick: Whether the recipe is to show pictures within minutes instead of the best ones.
        progress: The function that receives the number of inspected files.

    Returns:
        The lines that have to be confirmed in the recipe before it runs.

    Raises:
        InputError: The file exists.
        RecipeError: The name or source cannot stand in a recipe.
    """
    if user_path(file).exists():
        raise InputError(f"{file} exists already", "choose another name, or remove it first")
    starter(source, name, None, options, quick=quick)
    if not file.parent.is_dir():
        raise RecipeError(f"{file.parent} is no folder", "make it first")
    chosen = dict(options or {})
    place = user_path(source, base=file.parent)
    findings, problems = None, []
    try:
        findings = _looked(place, chosen, ask, progress)
    except InputError as error:  # the images may come later
        problems = [f"cohort.source was not looked at: {error}"]
    text = starter(source, name, findings, chosen, quick=quick)
    with no_space_becomes_one_line(file):
        file.write_text(text, encoding="utf-8")
        share(file)
    return problems if findings is None else _open_questions(findings, chosen)


def _looked(place: Path, chosen: dict[str, Any], ask: Ask | None, progress: Progress | None) -> Findings:
    """Inspect the source, ask the open questions, and inspect it again with the answers."""
    findings = look_at(place, validate(IngestOptions, chosen, "init"), progress)
    if ask is not None and len(findings.tables) > 1:
        table = ask("Several tables fit the images. Which one holds the labels?", findings.tables)
        if table:
            chosen["table"] = table
            findings = look_at(place, validate(IngestOptions, chosen, "init"), progress)
    if ask is not None and findings.folders:
        answers = [*(findings.above + meaning for meaning in FOLDER_MEANINGS), "ignore"]
        meaning = ask(f"The images lie in {findings.folders} folders. What are these?", answers)
        if meaning:
            chosen["folders"] = meaning
            findings = look_at(place, validate(IngestOptions, chosen, "init"), progress)
    return findings


def _open_questions(findings: Findings, chosen: dict[str, Any]) -> list[str]:
    questions = []
    if len(findings.tables) > 1:
        questions.append(f"cohort.options.table: {len(findings.tables)} tables fit: {', '.join(findings.tables)}")
    if findings.folders and chosen.get("folders", "ask") == "ask":
        questions.append(
            f"cohort.options.folders: {findings.folders} folders are {findings.above}classes "
            f"({findings.folders} public labels), or {findings.above}patients ({findings.folders} patients, no labels)?"
        )
    return questions


def _lines(findings: Findings | None, chosen: dict[str, Any]) -> list[str]:
    """Return what was found as comments, without the name of any folder, label or patient."""
    if findings is None:
        return []
    what = "volumes" if findings.spatial_dims > 2 else "images"
    lines = [f"found: {findings.total_images} {what}"]
    lines += [f"found: {total} have their patient by {source}" for source, total in _named(findings)]
    if unknown := findings.patients_by.get(""):
        lines.append(f"found: {unknown} name no patient; study, series or file will stand for the patient")
    if findings.labels:
        lines.append(f"found: {findings.labels} labels")
    if findings.masks:
        lines.append(f"found: {findings.masks} masks")
    if findings.splits:
        lines.append(
            f"found: divided into {', '.join(findings.splits)}, which is kept (source_splits: ignore discards it)"
        )
    lines += [f"not read: {problem}" for problem in findings.table_problems]
    return lines + [f"CONFIRM {question}" for question in _open_questions(findings, chosen)]


def _named(findings: Findings) -> list[tuple[str, int]]:
    return sorted((source, total) for source, total in findings.patients_by.items() if source)
