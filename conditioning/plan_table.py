"""Prompts from a table written by hand: a column per label and attribute, text, mask files, and number of images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from medphantom.cohorts.exported import original_texts
from medphantom.cohorts.readers import nifti, picture
from medphantom.cohorts.readers.common import ReadOptions
from medphantom.conditioning.plan import SamplingPlan, plan_prompts
from medphantom.conditioning.prompt import ConditionSchema, Prompt, nearest
from medphantom.core.errors import InputError, PromptError, UnreadableImage
from medphantom.core.folders import inside, pixel_digest
from medphantom.core.guard import reading, user_path
from medphantom.core.records import Array

TEXT, MASK, COUNT = "text", "mask", "count"
MOST_IMAGES = 10_000_000  # largest plan, which takes years to generate
NO_TABLE = "cannot be read as a table of prompts"
MASK_READING = ReadOptions(
    spatial_dims=3,
    color="grey",
    split_frames=False,
    min_side=1,
    min_slices=1,
    max_bytes=2**31,
    near_duplicates=False,
)
PRESENT, ABSENT = {"1", "true", "yes", "present"}, {"0", "false", "no", "absent"}


def plan_table(path: Path, schema: ConditionSchema, seed: int, *, fresh: str = "") -> SamplingPlan:
    """Return a plan of the prompts in a table.

    Columns are named like the generator's labels (1, 0 or empty: present, absent, not specified) and attributes;
    ``text``, ``mask`` (a NIfTI file or picture, relative to the table and inside its folder, on the generator's grid)
    and ``count`` (number of images of the row, 1 by default) are optional.

    Args:
        path: CSV (comma-separated, UTF-8) or Parquet file.
        schema: Vocabulary of the generator.
        seed: Seed of the run.
        fresh: Tag of all seeds, as in :func:`medphantom.conditioning.plan.plan_prompts`.

    Raises:
        InputError: If the table cannot be read, has no row, or names a mask that cannot be read.
        PromptError: If a column or value is outside the vocabulary; the message names row and column.
    """
    frame = _read(path)
    known = {*schema.labels, *(spec.name for spec in schema.attributes), TEXT, MASK, COUNT}
    for column in frame.columns:
        if column not in known:
            raise PromptError(f"{path.name}: column {column!r} is unknown to this generator", nearest(column, known))
    prompts: list[Prompt] = []
    masks: dict[str, Array] = {}
    with reading(path, InputError, NO_TABLE, "give a CSV or Parquet file"):
        rows = frame.rows(named=True)  # a date outside the calendar raises here
    for place, row in enumerate(rows, 1):
        where = f"{path.name} row {place}"
        given = {name: value for name, value in row.items() if value is not None and str(value).strip()}
        count = _count(given.pop(COUNT, 1), where)
        prompt = _prompt(schema, given, where)
        if MASK in given:
            mask = _mask(path.parent, str(given[MASK]), where)
            masks[pixel_digest(mask)] = mask
            prompt = prompt.model_copy(update={"mask": pixel_digest(mask)})
        try:
            schema.check(prompt)
        except PromptError as error:
            raise PromptError(f"{where}: {error.what}", error.remedy) from None
        if len(prompts) + count > MOST_IMAGES:
            raise PromptError(
                f"{where}: the table requests more than {MOST_IMAGES:,} images", "split them into several plans"
            )
        prompts += [prompt] * count
    if not prompts:
        raise InputError(f"{path.name} requests no images", "give it at least one row")
    return plan_prompts(prompts, seed, fresh=fresh, masks=masks)


def files_of(path: Path) -> list[Path]:
    """Return the table and the masks that it names, so that changes of any of them can be detected.

    Raises:
        InputError: If the table cannot be read.
    """
    frame = _read(path)
    named = sorted({str(name) for name in frame[MASK].drop_nulls().to_list()}) if MASK in frame.columns else []
    return [path, *(inside(path.parent, name) for name in named if name.strip())]


def _read(path: Path) -> pl.DataFrame:
    with reading(path, InputError, NO_TABLE, "give a CSV or Parquet file"):
        if not user_path(path).is_file():
            raise InputError(f"{path} {NO_TABLE}", "give a CSV or Parquet file")
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path, glob=False)
        return original_texts(path, pl.read_csv(path, infer_schema=False, glob=False))


def _prompt(schema: ConditionSchema, given: dict[str, Any], where: str) -> Prompt:
    labels = {name: _state(given[name], f"{where}, {name}") for name in schema.labels if name in given}
    attributes: dict[str, float | str] = {}
    for spec in schema.attributes:
        if spec.name in given:
            value = given[spec.name]
            attributes[spec.name] = (
                str(value) if spec.kind == "categorical" else _number(value, f"{where}, {spec.name}")
            )
    text = given.get(TEXT)
    return Prompt(labels=labels, attributes=attributes, text=None if text is None else str(text))


def _state(value: Any, where: str) -> bool:
    word = str(value).strip().lower().removesuffix(".0")
    if word in PRESENT | ABSENT:
        return word in PRESENT
    raise PromptError(f"{where}: {value!r} is neither present nor absent", "write 1, 0, or leave it empty")


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise PromptError(f"{where}: {value!r} is not a number", "write a number, or leave it empty")
    return number


def _count(value: Any, where: str) -> int:
    number = _number(value, f"{where}, {COUNT}")
    if number < 0 or number != int(number):
        raise PromptError(f"{where}, {COUNT}: {value!r} is not a count", "write an integer ≥ 0")
    return int(number)


def _mask(folder: Path, name: str, where: str) -> Array:
    try:
        path = inside(folder, name)
    except InputError:
        raise InputError(
            f"{where}: its mask is outside the folder of the table, or is not a path", "put masks beside the table"
        ) from None
    with reading(f"{where}: its mask", InputError, "cannot be read", "give a NIfTI file or a grey picture"):
        mask = _read_mask(path, where)
    whole = np.rint(mask)
    if mask.dtype.kind == "f" and not np.array_equal(whole, mask):
        raise InputError(f"{where}: its mask contains values that are not integers", "store class numbers")
    if float(whole.min()) < 0 or float(whole.max()) > 65535:
        raise InputError(f"{where}: its mask contains values outside 0 to 65535", "store class numbers")
    return np.ascontiguousarray(whole.astype(np.uint8 if float(whole.max()) < 256 else np.uint16))


def _read_mask(path: Path, where: str) -> Array:
    try:
        lower = path.name.lower()
        if lower.endswith((".nii", ".nii.gz")):
            return nifti.read_mask(path, MASK_READING)[0]
        return picture.read_mask(path, MASK_READING)[0]
    except UnreadableImage:
        raise InputError(f"{where}: its mask cannot be read", "give a NIfTI file or a grey picture") from None
