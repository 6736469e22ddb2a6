"""The scale of values: their meaning is compared before a cohort is read through the window of another one.

A window belongs to the values for which it was chosen. Images of another origin may represent the same scene by other
numbers, and reading them through that window would show a black or white field without any error.
:func:`reading_of` is the only place where this is decided; undecidable cases are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from medphantom.cohorts.preprocess import Percentile, Preprocess, Window
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.records import Array, Frozen

UNSIGNED = {"uint8", "uint16"}
COMMON_BITS = (8, 10, 12, 14, 16)  # of DICOM BitsStored and of detectors; a file of 16 bits may use fewer
LOOKED_AT = 256  # images of the reference
PIXELS_LOOKED_AT = 65536  # of each image, for its percentiles
TYPICAL = (1, 99)  # percentiles between which an image's values are taken to lie
SHIFT = 0.25  # of the typical range: honest sets of one unit differ by less, and a forgotten offset of 1024 HU by more
TWICE = 2.0
ROUNDED_OFF = 0.05  # how far a network's output may lie beyond 0…1 or -1…1
OPTION = "say what the ends of their number format stand for: assess.synthetic_range (--synthetic-range LOW HIGH)"

Rule = Literal["window", "percentiles", "stored", "full range", "stated"]
SAID: dict[Rule, str] = {
    "window": "source values through the window of preprocess",
    "percentiles": "each image by its own percentiles",
    "stored": "as the generator stored them",
    "full range": "by the full range of their own number format",
    "stated": "by the range that was stated for them",
}


class Reading(Frozen):
    """How the values of a cohort are read.

    Attributes:
        rule: Rule by which values are read: ``window`` for source values in the unit of the window; ``percentiles`` for
            every image by its own; ``stored`` for values stored by a generator of this project; ``full range`` for the
            range of their number format; ``stated`` for a range that was given for them.
        dtypes: Number formats in which the values are stored.
        intensity: Values that become black and white.
    """

    rule: Rule
    dtypes: tuple[str, ...]
    intensity: Annotated[Window | Percentile, Field(discriminator="kind")]

    def of(self, preprocess: Preprocess) -> Preprocess:
        """Return ``preprocess`` with this intensity."""
        return preprocess.model_copy(update={"intensity": self.intensity})

    @property
    def sentence(self) -> str:
        """The reading in words, e.g. ``by the full range of their own number format (uint16, 0…65535)``."""
        ends = f"{self.intensity.low:g}…{self.intensity.high:g}"
        return f"{SAID[self.rule]} ({', '.join(self.dtypes)}, {ends})"


def reading_of(
    cohort: Cohort,
    preprocess: Preprocess,
    *,
    reference: Cohort | None = None,
    stated: tuple[float, float] | None = None,
    called: str = "synthetic images",
    remedy: str = OPTION,
) -> Reading:
    """Return how a cohort is read beside the one for which ``preprocess`` was chosen.

    A window over a whole number format (0…255, 0…4095, 0…65535 of unsigned values) means *black to white*, and any
    cohort that declares its own black and white is read by those: 8 bits, 16 bits or the used bits of 16, floats in 0…1
    or -1…1. Any other window is in the unit of the source (such as Hounsfield units) and fits only values in that unit:
    their typical range must agree with that of the reference.

    Args:
        cohort: Other cohort, which is to be read.
        preprocess: Preprocessing chosen for the reference.
        reference: Cohort for which ``preprocess`` was chosen; ``None`` if only the window itself is known.
        stated: Source values of the reference that correspond to the ends of the cohort's number format: 0 and 255, 0
            and 65535, -32768 and 32767, for floats 0 and 1.
        called: Name of the images in messages.
        remedy: What to do about a refusal.

    Returns:
        The reading. A cohort from a generator of this project is read as it was stored.

    Raises:
        InputError: If the two cannot be brought to one scale, or a range was given that has no effect.
    """
    dtypes = stored_dtypes(cohort)
    window = preprocess.intensity
    ours = cohort.schema.kind == "synthetic" and dtypes == (preprocess.stored_dtype,)
    if isinstance(window, Percentile):
        if stated is not None:
            raise InputError(
                "a range was stated for the synthetic images, but every image is read by its own percentiles",
                "leave assess.synthetic_range out, or set a window as preprocess.intensity",
            )
        if ours:
            return Reading(rule="stored", dtypes=dtypes, intensity=stored_preprocess(preprocess).intensity)
        return Reading(rule="percentiles", dtypes=dtypes, intensity=window)
    comparison = _Comparison(cohort, dtypes, preprocess, window, reference, called, remedy)
    if ours and comparison.inside():
        if stated is not None:
            raise InputError(
                "a range was stated for synthetic images that a generator of ours stored, and that say it themselves",
                "leave assess.synthetic_range out",
            )
        return Reading(rule="stored", dtypes=dtypes, intensity=window)
    if stated is not None:
        return Reading(rule="stated", dtypes=dtypes, intensity=comparison.mapped(stated))
    intensity = comparison.intensity()
    return Reading(rule="window" if intensity == window else "full range", dtypes=dtypes, intensity=intensity)


def own_reading(cohort: Cohort, preprocess: Preprocess) -> Reading:
    """Return how the cohort for which ``preprocess`` was chosen is read, which is as configured."""
    rule: Rule = "percentiles" if isinstance(preprocess.intensity, Percentile) else "window"
    return Reading(rule=rule, dtypes=stored_dtypes(cohort), intensity=preprocess.intensity)


def check_same_scale(cohort: Cohort, preprocess: Preprocess, *, called: str, remedy: str) -> None:
    """Refuse a cohort whose values are not on the scale for which a preprocessing was chosen.

    Args:
        cohort: Cohort to be read by ``preprocess`` unchanged.
        preprocess: Preprocessing of a generator that may have been trained on another cohort.
        called: Name of the images in messages.
        remedy: What to do about a refusal.

    Raises:
        InputError: If it would show something else than what the generator was trained on.
    """
    found = reading_of(cohort, preprocess, called=called, remedy=remedy)
    if found.intensity != preprocess.intensity:
        ends = f"{preprocess.intensity.low:g}…{preprocess.intensity.high:g}"
        raise InputError(
            f"{called} span {found.intensity.low:g}…{found.intensity.high:g} ({', '.join(found.dtypes)}), the "
            f"generator was trained on values of {ends}",
            remedy,
        )


def stored_dtypes(cohort: Cohort) -> tuple[str, ...]:
    """Return the number formats in which a cohort stores its images, sorted."""
    return tuple(sorted({str(group).rsplit("_", 1)[-1] for group in cohort.manifest["group"].unique()}))


def stored_preprocess(preprocess: Preprocess) -> Preprocess:
    """Return how images are read that :meth:`~medphantom.cohorts.preprocess.Preprocess.undo` stored.

    If it spread them over the full range of their dtype, they are read from that range; percentiles of each image
    would stretch them once more.
    """
    if not isinstance(preprocess.intensity, Percentile):
        return preprocess
    low, high = _ends(preprocess.stored_dtype)
    return preprocess.model_copy(update={"intensity": Window(low=low, high=high)})


@dataclass(frozen=True)
class _Comparison:
    """One cohort beside the window through which another one is read."""

    cohort: Cohort
    dtypes: tuple[str, ...]
    preprocess: Preprocess
    window: Window
    reference: Cohort | None
    called: str
    remedy: str

    def mapped(self, stated: tuple[float, float]) -> Window:
        """Return the window in the cohort's own numbers, given the values that the ends of their format represent."""
        if len(self.dtypes) > 1:
            raise self.refusal(f"are stored in several number formats ({', '.join(self.dtypes)})")
        low, high = _ends(self.dtypes[0])
        slope = (high - low) / (stated[1] - stated[0])
        ends = sorted(low + (value - stated[0]) * slope for value in (self.window.low, self.window.high))
        return Window(low=ends[0], high=ends[1])

    def inside(self) -> bool:
        """Return whether no value is outside the window, as for values that a generator stored through it."""
        if self.dtypes == ("uint8",) and self.window == Window(low=0, high=255):
            return True
        seen = measured(self.cohort, self.cohort.rows())
        return self.window.low <= seen.low and seen.high <= self.window.high

    def intensity(self) -> Window:
        """Return the values of the cohort that are black and white."""
        if len(self.dtypes) > 1 and UNSIGNED & set(self.dtypes):
            raise self.refusal(f"are stored in several number formats ({', '.join(self.dtypes)})")
        if not self.black_to_white:
            return self.in_units()
        if self.dtypes == ("uint8",):
            return Window(low=0, high=255)
        seen = measured(self.cohort, self.cohort.rows())
        if self.dtypes == ("uint16",):
            return self.unsigned(seen)
        unit = seen.low >= -ROUNDED_OFF and 0.25 < seen.high <= 1 + ROUNDED_OFF
        signed = -1 - ROUNDED_OFF <= seen.low < -ROUNDED_OFF and seen.high <= 1 + ROUNDED_OFF
        if np.dtype(self.dtypes[0]).kind == "f" and (unit or signed):
            return Window(low=0.0 if unit else -1.0, high=1.0)
        middle = (self.window.low + self.window.high) / 2
        if self.window.low <= seen.low and middle < seen.high <= self.window.high:
            return self.window  # the same numbers in a wider format, as NIfTI often has them
        raise self.refusal(self.held(seen))

    @property
    def black_to_white(self) -> bool:
        """Return whether the window spans a whole unsigned number format, so that its ends mean black and white."""
        whole = self.window.low == 0 and self.window.high in {2**bits - 1 for bits in range(8, 17)}
        known = UNSIGNED if self.reference is None else set(stored_dtypes(self.reference))
        return whole and self.preprocess.stored_dtype in UNSIGNED and known <= UNSIGNED

    def unsigned(self, seen: Measured) -> Window:
        """Return the range of 16-bit files: all 16 bits, or the used ones.

        If the top bit is used, the range is certain. Otherwise the number of bits is chosen so that the images are as
        bright as those of the reference.
        """
        used = next(bits for bits in COMMON_BITS if seen.high < 2**bits)
        candidates = sorted({used, 16, (int(self.window.high) + 1).bit_length() - 1})
        tops = [2**bits - 1 for bits in candidates if 2**bits > seen.high]
        if self.reference is None or len(tops) == 1:
            return Window(low=0, high=tops[0])
        bright = measured(self.reference, _some_rows(self.reference)).typical[1] / self.window.high
        if seen.typical[1] <= 0 or bright <= 0:
            return Window(low=0, high=tops[0])
        top = min(tops, key=lambda one: abs(np.log(seen.typical[1] / one / bright)))
        if not 1 / TWICE < seen.typical[1] / top / bright < TWICE:
            raise self.refusal(f"use {int(seen.high).bit_length()} of 16 bits, with no sure white")
        return Window(low=0, high=top)

    def in_units(self) -> Window:
        """Return the window itself, if the values are in its unit."""
        wanted = self.window.low, self.window.high
        if self.dtypes == ("uint8",) and not (wanted[0] >= 0 and wanted[1] <= 255):
            raise self.refusal("have 8 bits, 0…255")
        seen = measured(self.cohort, self.cohort.rows())
        low, high = (float(np.clip(value, *wanted)) for value in seen.typical)
        if self.reference is None:
            if high - low <= (wanted[1] - wanted[0]) / 4:
                raise self.refusal(self.held(seen))
            return self.window
        theirs = measured(self.reference, _some_rows(self.reference)).typical
        ends = [float(np.clip(value, *wanted)) for value in theirs]
        width = (ends[1] - ends[0]) or wanted[1] - wanted[0]
        if abs(low - ends[0]) > SHIFT * width or abs(high - ends[1]) > SHIFT * width:
            raise self.refusal(self.held(seen))
        return self.window

    def held(self, seen: Measured) -> str:
        """Describe the values roughly, by medians over all images, so that no single value is revealed."""
        return f"hold values of about {seen.typical[0]:.2g}…{seen.typical[1]:.2g} ({', '.join(self.dtypes)})"

    def refusal(self, what: str) -> InputError:
        ends = f"{self.window.low:g}…{self.window.high:g}"
        return InputError(f"the {self.called} {what}, and the real ones are read from {ends}", self.remedy)


@dataclass(frozen=True)
class Measured:
    """Range of the values of images.

    Attributes:
        low: Smallest value of all images.
        high: Largest value of all images.
        typical: Medians over the images of their 1st and 99th percentiles.
    """

    low: float
    high: float
    typical: tuple[float, float]


def measured(cohort: Cohort, rows: Sequence[int]) -> Measured:
    """Return the range of values of some rows, read in batches."""
    lows, highs, inner = [], [], []
    for start in range(0, len(rows), 64):
        for pixels in cohort.pixels(list(rows[start : start + 64])):
            lows.append(float(pixels.min()))
            highs.append(float(pixels.max()))
            inner.append(np.percentile(_thinned(pixels), TYPICAL))
    low, high = np.median(inner, axis=0)
    return Measured(min(lows), max(highs), (float(low), float(high)))


def _thinned(pixels: Array) -> Array:
    flat = pixels.reshape(-1)
    return flat[:: max(1, flat.size // PIXELS_LOOKED_AT)]


def _some_rows(cohort: Cohort) -> list[int]:
    """Return rows of ``train`` (of all splits if it is empty), evenly spaced."""
    rows = cohort.rows("train") or cohort.rows()
    return rows[:: max(1, len(rows) // LOOKED_AT)]


def _ends(dtype: str) -> tuple[float, float]:
    """Return the smallest and largest value of a number format; for floats 0 and 1."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return 0.0, 1.0
    limits = np.iinfo(kind)
    return float(limits.min), float(limits.max)
