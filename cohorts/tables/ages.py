"""Valid ages: years in the range of human lives, capped and rounded as the options require."""

from __future__ import annotations

import math
import re

from medphantom.cohorts.options import IngestOptions
from medphantom.cohorts.readers.dicom_header import years
from medphantom.cohorts.tables.age_names import UNIT_WORDS
from medphantom.core.naming import plain_id

OLDEST_YEARS = 120
ROUNDED_BELOW_YEARS = 2
_AT_LEAST = re.compile(
    r"(?:(?:>=|≥|=>|at least|from|ab|mindestens)\s*([0-9]{1,3})"
    r"|([0-9]{1,3})\s*(?:\+|(?:and|or|und|oder|&)\s*(?:older|over|above|more|up|älter|mehr|darüber)))"
)
_ABOVE = re.compile(r"(?:>|over|above|older than|more than|über|älter als|mehr als)\s*([0-9]{1,3})")
_RANGE = re.compile(r"[\[(]?\s*[0-9]{1,3}(\.[0-9]+)?\s*(?:-|–|—|~|,|to|bis|until|à|a)\s*[0-9]{1,3}(\.[0-9]+)?\s*[\])]")
_BARE_RANGE = re.compile(r"[0-9]{1,3}\s*(?:-|–|—|‐|‑|−|~|/|\.\.+|to|bis|until|à)\s*[0-9]{1,3}")
_YEARS_IN = {word: length for length, words in UNIT_WORDS.items() for word in words}
_UNIT = re.compile(
    rf"(?P<number>.*?[0-9+)\]])\s*-?(?P<unit>{'|'.join(sorted(map(re.escape, _YEARS_IN), key=len, reverse=True))})"
    r"\.?\s*(?P<rest>old|alt|of age|and older|or older|and over|or over|und älter|oder älter)?"
)
_SHORT_DICOM_AGE = re.compile(r"[0-9]{1,2}[DWMY]", re.IGNORECASE)


def settled_age(value: float | None, options: IngestOptions) -> float | None:
    """Return an age as a cohort may contain it, for tables and headers alike; ``None`` if it is not valid.

    With ``max_age`` every completed year of age above it becomes ``max_age + 1`` (89: the *90 or older* of HIPAA's safe
    harbour, 45 CFR 164.514(b)(2)(i)(C)), and ages below two years become completed years, since days and months of age
    could identify infants.

    Args:
        value: Age of the patient in years.
        options: Ingestion options with ``max_age``.

    Example:
        >>> settled_age(97.0, IngestOptions(max_age=89)), settled_age(411.0, IngestOptions())
        (90.0, None)
    """
    if value is None or not math.isfinite(value) or not 0 <= value <= OLDEST_YEARS:
        return None
    if options.max_age is None:
        return value
    if math.floor(value) > options.max_age:
        return float(options.max_age + 1)
    return float(math.floor(value)) if value < ROUNDED_BELOW_YEARS else value


def age_of_text(text: str) -> float | None:
    """Convert a DICOM age string (``041Y``, ``6M``; VR AS, PS3.5 6.2) to years; ``None`` if it is not one.

    Example:
        >>> age_of_text("041Y"), age_of_text("6M"), age_of_text("41")
        (41.0, 0.5, None)
    """
    return years(text.strip().zfill(4)) if _SHORT_DICOM_AGE.fullmatch(text.strip()) else years(text)


def number_and_unit(text: str) -> tuple[str, float] | None:
    """Return the number of an age written with its unit, and the unit's length in years; ``None`` without a unit.

    Example:
        >>> number_and_unit("45 years"), number_and_unit("97,5 J."), number_and_unit("45")
        (('45', 1.0), ('97,5', 1.0), None)
    """
    match = _UNIT.fullmatch(plain_id(text).casefold())
    if match is None:
        return None
    rest = match["rest"] or ""
    older = f" {rest}" if rest.endswith(("older", "over", "älter")) else ""
    return match["number"].strip() + older, _YEARS_IN[match["unit"]]


def is_range_of_ages(text: str) -> bool:
    """Return whether a text is a range of ages, which is not an age.

    Example:
        >>> is_range_of_ages("90-100"), is_range_of_ages("[80, 90)"), is_range_of_ages("90")
        (True, True, False)
    """
    number, _ = number_and_unit(text) or (plain_id(text).casefold(), 1.0)
    return _RANGE.fullmatch(number) is not None or _BARE_RANGE.fullmatch(number) is not None


def youngest_of_open_age(text: str) -> int | None:
    """Return the youngest age in years of an open range, ``None`` if the text is not one.

    Example:
        >>> youngest_of_open_age("90+"), youngest_of_open_age(">89 years"), youngest_of_open_age("90")
        (90, 90, None)
    """
    number, length = number_and_unit(text) or (plain_id(text).casefold(), 1.0)
    if length != 1.0:
        return None
    if match := _AT_LEAST.fullmatch(number):
        return int(match[1] or match[2])
    match = _ABOVE.fullmatch(number)
    return None if match is None else int(match[1]) + 1
