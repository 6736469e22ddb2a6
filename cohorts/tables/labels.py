"""Labels from a table: one column of names, lists or numbers, or a column per label. Missing is not absent.

An empty cell states nothing about any label; a *no finding* value states that none is present. A cell that cannot be
read is missing and is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.records import LABEL_PREFIX
from medphantom.cohorts.tables.age_names import says_age, says_birth
from medphantom.cohorts.tables.cells import (
    CLEAR_SHARE,
    NEUTRAL,
    STATED,
    WORDS,
    YES_OR_NO,
    flag,
    folded,
    is_broken_list,
    is_uncertain,
    listed,
    no_name,
    number_of,
    observed_text,
    one_spelling,
    yes_and_no,
)
from medphantom.cohorts.tables.columns import NEVER_LABELS, USUAL_NAMES, Columns
from medphantom.cohorts.tables.label_forms import CellLabels, ColumnLabels, Form, Labels, NoLabels
from medphantom.cohorts.tables.separators import Separators, list_separators, total_unparted
from medphantom.core.errors import InputError
from medphantom.core.naming import plain_id, plain_name

MANY_LABELS, MANY_NUMBERED = 512, 64
YES_OR_NO_SHARE = 0.5  # a column of yes and no stays one when fewer cells than these say something else
SURE_OF_NOTHING = {plain_name(name) for name in ("No Finding", "No Findings")}
NO_FINDINGS = {plain_name(name) for name in ("Support Devices", "Support Device")}
"""What may be present with *no finding*: in CheXpert, devices are not pathologies (Irvin et al. 2019)."""
_INTEGER = re.compile(r"-?[0-9]+")
_UNREADABLE_LIST = "hold a list that cannot be read"


def find_labels(columns: Columns, taken: Collection[str], options: IngestOptions, remarks: list[str]) -> Labels:
    """The labels of a table: of the columns that were named, of those that start with ``label:``, of a usual name, or
    of two or more columns that hold 1, 0, -1 and nothing.

    Args:
        columns: Columns of the table.
        taken: Columns that have another role.
        options: Ingestion options with label columns and the meaning of their cells.
        remarks: List to which remarks on unused cells are added, without their content.

    Raises:
        InputError: If a named column contains no labels.
    """
    if options.label_columns:
        names = list(dict.fromkeys(str(columns.find("labels", name, ())) for name in options.label_columns))
        for name in names:
            _refuse(columns, name, options)
        if len(names) == 1 and len(options.label_columns) == 1 and not names[0].startswith(LABEL_PREFIX):
            return _of_one_column(columns, names[0], options, remarks, named=True)
        return _of_columns(columns, names, options, remarks)
    prefixed = [name for name in columns.frame.columns if name.startswith(LABEL_PREFIX)]
    if prefixed:
        for name in prefixed:
            _refuse(columns, name, options)
        return _of_columns(columns, prefixed, options, remarks)
    for usual in USUAL_NAMES["labels"]:
        found = columns.find("labels", "", (usual,))
        if found is None or found in taken or not columns.counts(found):
            continue
        labels = _of_one_column(columns, found, options, remarks, named=False)
        if labels.names:
            return labels
    return _one_hot(columns, taken, options, remarks)


def _refuse(columns: Columns, column: str, options: IngestOptions) -> None:
    """Refuse identifiers as labels and, if ages are capped, ages."""
    columns.refuse_if_identifying(column, "name another column with label_columns")
    if options.max_age is not None and _tells_age(column):
        what = f"column {column!r} of {columns.path} says ages, which max_age caps, and they are no labels"
        raise InputError(what, "ask for it as a continuous attribute, or leave max_age out")


def _tells_age(column: str) -> bool:
    return says_age(column) or says_birth(column)


def states_nothing(options: IngestOptions, *, of_classes: bool = False) -> Callable[[str], bool]:
    """Return a function that tells whether a name denotes the absence of every label.

    Among classes, of which each image has one, and among columns, *normal* is a label like others unless the options
    differ from their defaults; *no finding* never is.
    """
    names = {plain_name(name) for name in options.no_finding}
    if of_classes and options.no_finding == IngestOptions.model_fields["no_finding"].default:
        names &= SURE_OF_NOTHING
    return lambda name: plain_name(name) in names


def _of_one_column(columns: Columns, column: str, options: IngestOptions, remarks: list[str], *, named: bool) -> Labels:
    counts = columns.counts(column)
    total = sum(counts.values())
    flags = sum(n for cell, n in counts.items() if flag(cell) is not None or is_uncertain(cell))
    if total and (flags >= CLEAR_SHARE * total or _says_yes_and_no(counts, named=named)):
        return _of_columns(columns, [column], options, remarks)
    try:
        numbers = sum(n for cell, n in counts.items() if _INTEGER.fullmatch(plain_id(cell)))
        if total and numbers >= CLEAR_SHARE * total:
            return _of_numbers(columns, column, counts, remarks, named=named)
        return _of_names(columns, column, counts, options, remarks)
    except _NoLabels as problem:
        if named:
            raise InputError(
                f"column {column!r} of {columns.path} {problem}",
                "name another column with label_columns, or the separator with label_separator",
            ) from None
        remarks.append(f"column {column!r} {problem}: it is not used as labels; label_columns names others")
        return NoLabels()


def _says_yes_and_no(counts: Counter[str], *, named: bool) -> bool:
    """Return whether a column has yes in some cells and no in others, in words of one language, and little else.

    The label is then its name instead of its words.

    Args:
        counts: Number of cells by text.
        named: Whether this column was requested, so that *positive* and *negative* are not classes.
    """
    spoken = yes_and_no(counts)
    words = {**spoken, **(WORDS if named else {})}
    every = {**(NEUTRAL if spoken else STATED), **words}
    other = sum(n for cell, n in counts.items() if flag(cell, every) is None and not is_uncertain(cell))
    said = {flag(cell, words) for cell in counts}
    return {True, False} <= said and other < YES_OR_NO_SHARE * sum(counts.values())


def _words_of(columns: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, bool]]:
    """Return the words of each column that state its label: those of one language, its own or that of the others.

    If no column has both yes and no, a word for yes counts if its column contains nothing else.

    Args:
        columns: Number of cells by text, for each label column.
    """
    own = {name: yes_and_no(counts) for name, counts in columns.items()}
    everywhere: Counter[str] = Counter()
    for name, counts in columns.items():
        everywhere.update({} if own[name] else counts)
    others = next((words for words in own.values() if words), {}) or yes_and_no(everywhere)
    found = {}
    for name, counts in columns.items():
        spoken = own[name] or others
        stated = {**WORDS, **(NEUTRAL if own[name] else STATED), **spoken}
        alone = {plain_id(cell).casefold() for cell in counts}
        if not spoken and alone and all(YES_OR_NO.get(word) for word in alone):
            stated.update(dict.fromkeys(alone, True))
        found[name] = stated
    return found


class _NoLabels(Exception):
    """Raised with the reason why a column contains no labels."""


def _of_numbers(columns: Columns, column: str, counts: Counter[str], remarks: list[str], *, named: bool) -> Labels:
    """Return numbered classes: ``grade 0``, ``grade 1``, …."""
    number = {cell: int(plain_id(cell)) for cell in counts if _INTEGER.fullmatch(plain_id(cell))}
    classes = sorted({value for value in number.values() if value != -1})
    gapless = bool(classes) and classes[0] in {0, 1} and classes[-1] - classes[0] + 1 == len(classes)
    if len(classes) > MANY_NUMBERED or (not named and not gapless):
        raise _NoLabels("holds numbers that are not those of a few classes")
    strange = sum(n for cell, n in counts.items() if number.get(cell, -1) == -1)
    _count(remarks, column, strange, "hold no number of a class")
    present = {cell: {f"{column} {value}"} for cell, value in number.items() if value != -1}
    return CellLabels(column, columns.cells(column), present, [f"{column} {value}" for value in classes], "numbers")


def _of_names(
    columns: Columns, column: str, counts: Counter[str], options: IngestOptions, remarks: list[str]
) -> Labels:
    separators = _separators(column, counts, options, remarks)
    parts, unreadable = _parts(counts, separators)
    _count(remarks, column, unreadable, _UNREADABLE_LIST)
    if separators.mixed:
        used = " and ".join(map(repr, separators.signs))
        remarks.append(f"column {column!r}: lists are split at {used}, the latter in {separators.mixed} cells")
    form: Form = "lists" if any(len(entries) != 1 for entries in parts.values()) else "names"
    nothing = states_nothing(options, of_classes=form == "names")
    torn = [cell for cell, entries in parts.items() if _contradict(entries, nothing)]
    for cell in torn:
        del parts[cell]
    _count(remarks, column, sum(counts[cell] for cell in torn), "name a finding beside 'no finding'")
    often: Counter[str] = Counter()
    for cell, entries in parts.items():
        for entry in entries:
            often[entry] += 0 if nothing(entry) else counts[cell]
    often = +often
    if _all_numbers(often):
        raise _NoLabels("holds measurements or lists of numbers, no names")
    if len(often) > MANY_LABELS:
        raise _NoLabels(f"holds {len(often)} different labels, at most {MANY_LABELS} are taken")
    problems = [problem for name in often if (problem := no_name(name))]
    if problems:
        raise _NoLabels(f"holds {len(problems)} different names {problems[0]}, which no label has")
    _refuse_doubtful(columns, column, counts, separators)
    spelling = one_spelling(often)
    merged = len(spelling) - len(set(spelling.values()))
    if merged:
        remarks.append(f"column {column!r}: {merged} names differ from another one only in case or spaces")
    present = {cell: {spelling[entry] for entry in entries if entry in spelling} for cell, entries in parts.items()}
    return CellLabels(column, columns.cells(column), present, sorted(set(spelling.values())), form)


def _contradict(entries: Sequence[str], nothing: Callable[[str], bool]) -> bool:
    return any(map(nothing, entries)) and not all(
        nothing(entry) or plain_name(entry) in NO_FINDINGS for entry in entries
    )


def _all_numbers(names: Collection[str]) -> bool:
    for name in names:
        try:
            number_of(name)
        except ValueError:
            return False
    return bool(names)


def _separators(column: str, counts: Counter[str], options: IngestOptions, remarks: list[str]) -> Separators:
    """Return what separates the labels of the cells that are not lists in brackets."""
    plain = {cell: total for cell, total in counts.items() if listed(cell) is None and not is_broken_list(cell)}
    if options.label_separator not in {"", "auto"}:
        unparted = total_unparted(plain, options.label_separator)
        if unparted:
            remarks.append(
                f"column {column!r}: {unparted} cells hold known labels by another separator than label_separator, "
                "and are taken as names"
            )
        return Separators((options.label_separator,))
    return list_separators(plain, chain.from_iterable(listed(cell) or () for cell in counts if cell not in plain))


def _refuse_doubtful(columns: Columns, column: str, counts: Counter[str], separators: Separators) -> None:
    """Stop if each interpretation of a column would change the labels of other cells.

    Raises:
        InputError: If the column is ambiguous.
    """
    if separators.doubtful:
        total = {sign: sum(n for cell, n in counts.items() if sign in cell) for sign in separators.doubtful}
        held = " and ".join(f"{n} with {sign!r}" for sign, n in total.items())
        raise InputError(
            f"column {column!r} of {columns.path} has cells that may be lists or single names: {held}",
            "write one separator in all cells, or name with label_separator the only one that parts labels",
        )


def _parts(counts: Counter[str], separators: Separators) -> tuple[dict[str, list[str]], int]:
    """Return the entries of each cell that names any, and the number of cells with an unreadable list."""
    parts: dict[str, list[str]] = {}
    unreadable = 0
    for cell in counts:
        entries = listed(cell)
        if entries is None and is_broken_list(cell):
            unreadable += counts[cell]
            continue
        given = entries if entries is not None else separators.split(cell)
        named = [" ".join(text.split(" ")) for text in map(observed_text, given) if text]
        if named:
            parts[cell] = named
    return parts, unreadable


def _of_columns(columns: Columns, names: Sequence[str], options: IngestOptions, remarks: list[str]) -> Labels:
    policy = {"missing": None, "present": True, "absent": False}[options.uncertain]
    words_of = _words_of({name: columns.counts(name) for name in names})
    cells = {}
    for name in names:
        counts, words = columns.counts(name), words_of[name]
        strange = sum(n for cell, n in counts.items() if flag(cell, words) is None and not is_uncertain(cell))
        if counts and strange == sum(counts.values()):
            raise InputError(
                f"column {name!r} of {columns.path} holds neither 1, 0, -1 nor nothing in any cell",
                "give label_columns one column that lists labels, or several of one label each",
            )
        if problem := _no_label_name(name):
            raise InputError(f"column {name!r} of {columns.path} has a name {problem}, which no label has", "rename it")
        _count(remarks, name, strange, "hold neither 1, 0, -1 nor nothing")
        cells[name] = columns.cells(name)
    nothing = states_nothing(options, of_classes=True)
    without = [name for name in names if len(names) > 1 and nothing(name.removeprefix(LABEL_PREFIX))]
    labels = ColumnLabels(
        cells,
        without,
        lambda name, cell: policy if is_uncertain(cell) else flag(cell, words_of[name]),
        "columns" if len(names) > 1 else "flag",
        {name for name in names if plain_name(name.removeprefix(LABEL_PREFIX)) in NO_FINDINGS},
    )
    if torn := labels.total_contradicting():
        named = " and ".join(map(repr, without))
        remarks.append(f"{torn} rows state a finding beside {named}: none of their labels is stated")
    return labels


def _no_label_name(column: str) -> str:
    problem = no_name(column.removeprefix(LABEL_PREFIX))
    return "" if problem == "of digits alone" else problem


def _one_hot(columns: Columns, taken: Collection[str], options: IngestOptions, remarks: list[str]) -> Labels:
    """Return the labels of unnamed columns with 1, 0, -1 and empty cells, of which at least one has a 1."""
    found = []
    for name in columns.frame.columns:
        if name in taken or plain_name(name) in NEVER_LABELS or _no_label_name(name) or name.startswith("(unnamed"):
            continue
        if options.max_age is not None and _tells_age(name):
            continue  # it may be of the oldest
        if plain_name(name) in {plain_name(usual) for role in USUAL_NAMES.values() for usual in role}:
            continue
        counts = columns.counts(name)
        numbers = {cell for cell in counts if is_uncertain(cell) or plain_id(cell).casefold() in STATED}
        if not counts or len(numbers) < len(counts) or any(folded(cell) in {"yes", "no"} for cell in counts):
            continue
        same = {flag(cell) for cell in counts} == {True} and sum(counts.values()) == columns.frame.height
        if not same:  # 1 in every row tells nothing apart
            found.append(name)
    shown = any(flag(cell) is True for name in found for cell in columns.counts(name))
    if len(found) < 2 or not shown:
        return NoLabels()
    return _of_columns(columns, found, options, remarks)


def _count(remarks: list[str], column: str, total: int, why: str) -> None:
    if total:
        remarks.append(f"column {column!r}: {total} cells {why} and are not stated")
