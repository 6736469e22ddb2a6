"""Attributes of images from columns: numbers in their range, categories in one spelling; an invalid cell is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import ATTRIBUTE_PREFIX, AttributeSpec
from medphantom.cohorts.tables.age_names import name_in_years, says_age, says_age_group, says_birth, unit_of_name
from medphantom.cohorts.tables.ages import (
    OLDEST_YEARS,
    age_of_text,
    is_range_of_ages,
    number_and_unit,
    settled_age,
    youngest_of_open_age,
)
from medphantom.cohorts.tables.cells import (
    CLEAR_SHARE,
    comma_is_decimal,
    dots_separate_thousands,
    no_name,
    number_of,
    one_spelling,
)
from medphantom.cohorts.tables.columns import USUAL_ATTRIBUTES, Columns
from medphantom.cohorts.tables.file import clean_name
from medphantom.core.errors import InputError
from medphantom.core.naming import plain_id, plain_name

UNITS = {"age": "years"}
MANY_CATEGORIES = 256
UNKNOWN = {"unknown", "unk", "unspecified"}
OUT_OF_RANGE = f"lie outside 0 to {OLDEST_YEARS} years"
SEXED = "hold a number with a letter for a sex, such as 45M beside 32F,"
_AGE_AND_SEX = re.compile(r"[0-9]{1,3}\s*([fm])", re.IGNORECASE)
RANGE = "hold a range of ages such as 90-100"
AGES_SHARE = 0.5  # a column of ages stays one when many cells are spoilt: the alternative is a category per age
IDENTIFYING_SHARE, IDENTIFYING_CELLS = 0.9, 20
_CODE = re.compile(r"[A-Za-z]{0,5}[-_/ .]?[+(]?[0-9][0-9 ()/-]*")  # a record number, a telephone number, a postcode


@dataclass(slots=True)
class Attribute:
    """One attribute: its column, and the meaning of each text of its cells.

    Attributes:
        spec: Name and kind of the attribute.
        column: Name of the column.
        values: Value of each text; a text that is not listed means missing.
        cells: Text of each row.
        requested: Requested name, if the attribute was renamed.
    """

    spec: AttributeSpec
    column: str
    values: dict[str, float | str]
    cells: list[str]
    requested: str = ""

    def of(self, row: int) -> float | str | None:
        """Return the value of a row."""
        return self.values.get(self.cells[row])

    def is_unread(self, row: int) -> bool:
        """Return whether a cell has text without a value."""
        return bool(self.cells[row]) and self.cells[row] not in self.values


def find_attributes(columns: Columns, options: IngestOptions, remarks: list[str]) -> list[Attribute]:
    """Return the requested attributes, else those with usual names.

    Args:
        columns: Columns of the table.
        options: Ingestion options with the requested attributes.
        remarks: List to which remarks on unused cells are added, without their content.

    Raises:
        InputError: If a named column cannot be an attribute, since it identifies people or files, or would reveal ages
            that ``max_age`` caps.
    """
    named = options.attribute_kinds is not None
    found = [_attribute(columns, options, entry, named, remarks) for entry in _wanted(columns, options)]
    attributes = [attribute for attribute in found if attribute is not None]
    _call_years_years(attributes, remarks)
    return attributes


def _call_years_years(attributes: Sequence[Attribute], remarks: list[str]) -> None:
    """Rename ages that a column gives in months, weeks or days, since a cohort stores years."""
    taken = {attribute.spec.name for attribute in attributes}
    for attribute in attributes:
        requested = attribute.spec.name
        if attribute.spec.unit != UNITS["age"] or unit_of_name(requested) is None:
            continue
        name = name_in_years(requested)
        name = f"{name}_years" if name in taken else name
        taken.add(name)
        attribute.requested, attribute.spec = requested, attribute.spec.model_copy(update={"name": name})
        remarks.append(f"column {attribute.column!r}: its ages are in years and called {name!r}")


def _wanted(columns: Columns, options: IngestOptions) -> list[tuple[str, str, str]]:
    """Return column, name and kind of each attribute."""
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
    columns.refuse_if_identifying(column, f"leave {name} out of attributes")
    counts = columns.counts(column)
    if not counts and not named:
        return None  # the files' headers may know it
    if problem := _uncapped(columns, entry, options):
        if named:
            raise InputError(*problem)
        remarks.append(f"{problem[0]}: it is not used")
        return None
    age = _age_unit(entry, counts, options)
    if named and age is None and _may_identify(counts):
        remarks.append(
            f"column {column!r}: nearly every row has a number or code of its own, which may identify patients"
        )
    if kind == "auto" and name in USUAL_ATTRIBUTES and age is None:
        kind = "categorical"  # whatever its codes are
    found = None if kind == "categorical" else _continuous(entry, counts, age, options, remarks)
    if found is not None:
        return Attribute(found[0], column, dict(found[1]), columns.cells(column))
    return _categorical(columns, entry, counts, named, remarks)


def _uncapped(columns: Columns, entry: tuple[str, str, str], options: IngestOptions) -> tuple[str, str] | None:
    """Return why an attribute would reveal ages above ``max_age``, and what to do; ``None`` if it would not."""
    column, name, kind = entry
    if options.max_age is None:
        return None
    where = f"column {column!r} of {columns.path}"
    if says_birth(name) or says_birth(column):
        return f"{where} says when people were born, and with it ages that max_age caps", f"leave {name} out"
    if says_age_group(name) or says_age_group(column):
        return f"{where} says ages in groups, which max_age cannot cap", f"leave {name} out, or max_age"
    if kind == "categorical" and (says_age(name) or says_age(column)):
        return f"{where} says ages, which max_age caps, and they are no categories", f"ask for {name}:continuous"
    return None


def _age_unit(entry: tuple[str, str, str], counts: Counter[str], options: IngestOptions) -> float | None:
    """Return the length in years of the unit of an age column; ``None`` if its cells are not ages.

    A name that only mentions age (the age of a stone, a bone age in months) counts as age if ages are capped, or if the
    column's name or cells contain a unit.
    """
    column, name, kind = entry
    unit = None if column.startswith(ATTRIBUTE_PREFIX) else unit_of_name(column)  # our own exports are in years
    if name == "age":
        return unit or 1.0
    if kind == "categorical" or says_age_group(column) or not (says_age(name) or says_age(column)):
        return None
    units = sum(total for cell, total in counts.items() if number_and_unit(cell))
    stated = unit_of_name(column) is not None or (units and units >= AGES_SHARE * sum(counts.values()))
    return (unit or 1.0) if stated or options.max_age is not None else None


def _continuous(
    entry: tuple[str, str, str], counts: Counter[str], age: float | None, options: IngestOptions, remarks: list[str]
) -> tuple[AttributeSpec, dict[str, float]] | None:
    """Return the numbers of a column; ``None`` if it has few and was not declared as numeric."""
    column, name, kind = entry
    values, total_strange, wrong = _numbers(counts, age, options)
    share = CLEAR_SHARE if age is None else AGES_SHARE
    fitting = sum(counts.values()) - total_strange
    capped = age is not None and options.max_age is not None  # a category per age would tell the oldest apart
    clear = (counts or age is not None) and fitting >= share * sum(counts.values())
    if not (kind == "continuous" or capped or clear):
        return None
    if age not in {None, 1.0}:
        remarks.append(f"column {column!r}: its unit is converted into years")
    remarks += [f"column {column!r}: {count} cells {why} and are not stated" for why, count in wrong.items()]
    spec = AttributeSpec(name=name, kind="continuous", unit=UNITS.get(name, "" if age is None else UNITS["age"]))
    return spec, values


def _categorical(
    columns: Columns, entry: tuple[str, str, str], counts: Counter[str], named: bool, remarks: list[str]
) -> Attribute | None:
    column, name, _ = entry
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
    return Attribute(AttributeSpec(name=name, kind="categorical"), column, dict(spelt), columns.cells(column))


def _may_identify(counts: Counter[str]) -> bool:
    """Return whether nearly every row has a number or digit code of its own, as record numbers are."""
    total = sum(counts.values())
    codes = sum(_CODE.fullmatch(plain_id(cell)) is not None for cell in counts)
    return total >= IDENTIFYING_CELLS and codes > IDENTIFYING_SHARE * total


def _no_categories(counts: Counter[str]) -> str:
    """Return why these cells are not categories; empty if they may be."""
    if len(counts) > MANY_CATEGORIES:
        return f"has {len(counts)} different values, at most {MANY_CATEGORIES} are categories"
    strange = [problem for cell in counts if (problem := no_name(cell)) and problem != "of digits alone"]
    return f"has {len(strange)} different values {strange[0]}" if strange else ""


def _numbers(
    counts: Counter[str], age: float | None, options: IngestOptions
) -> tuple[dict[str, float], int, Counter[str]]:
    """Return the value of each numeric text, the number of cells without any number, and missing ones by reason."""
    numbers = [(number_and_unit(cell) or (cell, 1.0))[0] if age is not None else cell for cell in counts]
    signs = _Signs(
        comma_is_decimal(numbers),
        dots_separate_thousands(numbers),
        any(match[1].casefold() == "f" for match in map(_AGE_AND_SEX.fullmatch, map(plain_id, counts)) if match),
    )
    values: dict[str, float] = {}
    wrong: Counter[str] = Counter()
    total_strange = 0
    for cell, count in counts.items():
        try:
            values[cell] = _number(cell, signs) if age is None else _age(cell, signs, age, options)
        except ValueError as error:
            wrong[str(error)] += count
            is_age = age is not None and (str(error) in {OUT_OF_RANGE, SEXED} or youngest_of_open_age(cell) is not None)
            total_strange += 0 if is_age or plain_name(cell) in UNKNOWN else count
    return values, total_strange, wrong


class _Signs(NamedTuple):
    """Properties of all numbers of a column.

    Attributes:
        decimal_comma: Whether commas are decimal commas.
        grouped: Whether points separate thousands.
        sexed: Whether a letter after an age is a sex (``32F``), so that ``45M`` is not in months.
    """

    decimal_comma: bool
    grouped: bool
    sexed: bool


def _number(cell: str, signs: _Signs) -> float:
    age = age_of_text(cell)
    return number_of(cell, signs.decimal_comma, signs.grouped) if age is None else age


def _age(cell: str, signs: _Signs, unit: float, options: IngestOptions) -> float:
    """Return an age in years.

    Args:
        cell: Text of the cell; a unit in it takes precedence.
        signs: Properties of the column's numbers.
        unit: Length in years of the column's unit.
        options: Ingestion options with ``max_age``.

    Raises:
        ValueError: If it is not an age; the message gives the reason without the content of the cell.
    """
    if signs.sexed and _AGE_AND_SEX.fullmatch(plain_id(cell)):
        raise ValueError(SEXED)
    youngest = youngest_of_open_age(cell)
    if youngest is not None:
        stated = number_and_unit(cell) is not None or unit == 1.0
        if not stated or options.max_age is None or not options.max_age < youngest <= OLDEST_YEARS:
            raise ValueError("hold an open age such as 90+, which max_age decides about,")
        return float(options.max_age + 1)
    if is_range_of_ages(cell):
        raise ValueError(RANGE)
    years = age_of_text(cell)
    if years is None:
        number, length = number_and_unit(cell) or (cell, unit)
        years = number_of(number, signs.decimal_comma, signs.grouped)
        years = years if length == 1.0 else round(years * length, 3)  # as DICOM ages are read
    settled = settled_age(years, options)
    if settled is None:
        raise ValueError(OUT_OF_RANGE)
    return settled
