"""What an age may be: years in the range of people's lives, capped and rounded where the options say so."""

from __future__ import annotations

import math
import re

from cohorts.options import IngestOptions
from cohorts.readers.dicom_header import years

OLDEST_YEARS = 120
ROUNDED_BELOW_YEARS = 2
_AT_LEAST = re.compile(r"(?:>=|≥)\s*([0-9]{1,3})|([0-9]{1,3})\s*\+")
_ABOVE = re.compile(r">\s*([0-9]{1,3})")
_SHORT_DICOM_AGE = re.compile(r"[0-9]{1,2}[DWMY]", re.IGNORECASE)


def settled_age(value: float | None, options: IngestOptions) -> float | None:
    """An age as a cohort may hold it, for tables and headers alike; ``None`` when it is none.

    With ``max_age`` every completed year of age above it becomes ``max_age + 1`` (89: the *90 or older* of HIPAA's safe
    harbour, 45 CFR 164.514(b)(2)(i)(C)), and ages below two years become completed years, since days and months of age
    tell infants apart.

    Args:
        value: years.
        options: of which ``max_age`` counts.

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
    """A DICOM age string (``041Y``, ``6M``; VR AS, PS3.5 6.2) in years, ``None`` when it is none.

    Example:
        >>> age_of_text("041Y"), age_of_text("6M"), age_of_text("41")
        (41.0, 0.5, None)
    """
    return years(text.strip().zfill(4)) if _SHORT_DICOM_AGE.fullmatch(text.strip()) else years(text)


def youngest_of_open_age(text: str) -> int | None:
    """The youngest age in years that an open statement allows, ``None`` when the text is none.

    Example:
        >>> youngest_of_open_age("90+"), youngest_of_open_age(">89"), youngest_of_open_age("90")
        (90, 90, None)
    """
    if match := _AT_LEAST.fullmatch(text):
        return int(match[1] or match[2])
    match = _ABOVE.fullmatch(text)
    return None if match is None else int(match[1]) + 1
