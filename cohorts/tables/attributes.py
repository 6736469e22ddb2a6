"""Attributes of images out of columns: numbers in their range, categories in one spelling; a bad cell is not stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from cohorts.errors import InputError
from cohorts.naming import plain_name
from cohorts.options import IngestOptions
from cohorts.records import ATTRIBUTE_PREFIX, AttributeSpec
from cohorts.tables.ages import OLDEST_YEARS, age_of_text, settled_age, youngest_of_open_age
from cohorts.tables.cells import CLEAR_SHARE, comma_is_decimal, no_name, number_of, one_spelling
from cohorts.tables.columns import USUAL_ATTRIBUTES, Columns
from cohorts.tables.file import clean_name

UNITS = {"age": "years"}
MANY_CATEGORIES = 256
UNKNOWN = {"unknown", "unk", "unspecified"}
OUT_OF_RANGE = f"lie outside 0 to {OLDEST_YEARS} years"
AGES_SHARE = 0.5  # a column of ages stays one when many cells are spoilt: the alternative is a category per age


@dataclass(slots=True)
class Attribute:
    """One attribute: where it is found and what each text of its cells means.

    Attributes:
        spec: its name and kind.
        column: its column.
        values: text of a cell → value; a text that is missing here states nothing.
        cells: text of each row.
    """

    spec: AttributeSpec
    column: str
    values: dict[str, float | str]
    cells: list[str]

    def of(self, row: int) -> float | str | None:
        """What a row states."""
        return self.values.get(self.cells[row])

    def keep(self, categories: Collection[str]) -> None:
        """Forget all other categories."""
        self.values = {cell: value for cell, value in self.values.items() if value in categories}


def find_attributes(columns: Columns, options: IngestOptions, remarks: list[str]) -> list[Attribute]:
    """The attributes that were asked for, else those of usual names.

    Args:
        columns: of the table.
        options: which attributes.
        remarks: takes what of the cells is not believed, in words that repeat none.

    Raises:
        InputError: a named column cannot be an attribute.
    """
    named = options.attribute_kinds is not None
    found = [_attribute(columns, options, entry, named, remarks) for entry in _wanted(columns, options)]
    return [attribute for attribute in found if attribute is not None]


def _wanted(columns: Columns, options: IngestOptions) -> list[tuple[str, str, str]]:
    """Column, name and kind of each attribute."""
    chosen: list[tuple[str, str, str]] = []
    if options.attribute_kinds is not None:
        for name, kind in options.attribute_kinds.items():
            exact = clean_name(name) in columns.frame.columns
            usual = (ATTRIBUTE_PREFIX + name, name, *USUAL_ATTRIBUTES.get(name, ()))
            column = columns.find("attributes", name if exact else "", usual)
            if column is not None:  # else the files' headers may know it
                chosen.append((column, name, kind))
        return chosen
    prefixed_columns = [name for name in columns.frame.columns if name.startswith(ATTRIBUTE_PREFIX)]
    chosen += [(name, name.removeprefix(ATTRIBUTE_PREFIX), "auto") for name in prefixed_columns]
    for name, usual in USUAL_ATTRIBUTES.items():
        column = columns.find("attributes", "", usual)
        if column is not None and name not in {taken for _, taken, _ in chosen}:
            chosen.append((column, name, "auto"))
    return chosen


def _attribute(
    columns: Columns, options: IngestOptions, entry: tuple[str, str, str], named: bool, remarks: list[str]
) -> Attribute | None:
    column, name, kind = entry
    cells = columns.cells(column)
    counts = columns.counts(column)
    if not counts and not named:
        return None  # the files' headers may know it
    decimal_comma = comma_is_decimal(counts)
    if kind == "auto" and name in USUAL_ATTRIBUTES and name != "age":
        kind = "categorical"  # whatever its codes are
    if kind != "categorical":
        values, wrong = _numbers(name, counts, decimal_comma, options)
        share = AGES_SHARE if name == "age" else CLEAR_SHARE
        fitting = sum(counts.values()) - wrong[0]
        if kind == "continuous" or ((counts or name == "age") and fitting >= share * sum(counts.values())):
            remarks += [f"column {column!r}: {count} cells {why} and are not stated" for why, count in wrong[1].items()]
            spec = AttributeSpec(name=name, kind="continuous", unit=UNITS.get(name, ""))
            return Attribute(spec, column, dict(values), cells)
    why = _no_categories(counts)
    if why and named:
        what = f"column {column!r} of {columns.path} {why}"
        raise InputError(what, f"leave {name} out, or ask for {name}:continuous")
    if why:
        remarks.append(f"column {column!r} {why}: it is not used")
        return None
    spelt = one_spelling({cell: count for cell, count in counts.items() if plain_name(cell) not in UNKNOWN})
    merged = len(spelt) - len(set(spelt.values()))
    if merged:
        remarks.append(f"column {column!r}: {merged} values differ from another one only in case or spaces")
    spec = AttributeSpec(name=name, kind="categorical")
    return Attribute(spec, column, dict(spelt), cells)


def _no_categories(counts: Counter[str]) -> str:
    """Why these cells are no categories; empty when they may be."""
    if len(counts) > MANY_CATEGORIES:
        return f"has {len(counts)} different values, at most {MANY_CATEGORIES} are categories"
    strange = [problem for cell in counts if (problem := no_name(cell)) and problem != "of digits alone"]
    return f"has {len(strange)} different values {strange[0]}" if strange else ""


def _numbers(
    name: str, counts: Counter[str], decimal_comma: bool, options: IngestOptions
) -> tuple[dict[str, float], tuple[int, Counter[str]]]:
    """Value of each text that is a number; how many cells hold none at all, and all that are not stated, by reason."""
    values: dict[str, float] = {}
    wrong: Counter[str] = Counter()
    total_strange = 0
    for cell, count in counts.items():
        try:
            values[cell] = _age(cell, decimal_comma, options) if name == "age" else _number(cell, decimal_comma)
        except ValueError as error:
            wrong[str(error)] += count
            is_age = name == "age" and (str(error) == OUT_OF_RANGE or youngest_of_open_age(cell) is not None)
            total_strange += 0 if is_age or plain_name(cell) in UNKNOWN else count
    return values, (total_strange, wrong)


def _number(cell: str, decimal_comma: bool) -> float:
    age = age_of_text(cell)
    return number_of(cell, decimal_comma) if age is None else age


def _age(cell: str, decimal_comma: bool, options: IngestOptions) -> float:
    youngest = youngest_of_open_age(cell)
    if youngest is not None:
        if options.max_age is None or not options.max_age < youngest <= OLDEST_YEARS:
            raise ValueError("hold an open age such as 90+, which max_age decides about,")
        return float(options.max_age + 1)
    settled = settled_age(_number(cell, decimal_comma), options)
    if settled is None:
        raise ValueError(OUT_OF_RANGE)
    return settled
