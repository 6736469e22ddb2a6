"""The one exception tree of the project.

Every error that a user can cause derives from :class:`MedphantomError`; the command line prints its one line and exits
with status 2, a notebook sees the same line::

    MedphantomError
    ├── InputError            what was given is unusable: a path, an option, a table, a column
    │   ├── RecipeError       a recipe (or --set) with a wrong field
    │   └── PromptError       a prompt outside the conditioning schema of a bundle
    ├── UnreadableImage       one source file cannot be taken (typed reason; ingestion records it and goes on)
    ├── ArtifactError         a folder of ours is truncated, altered, or of another format version
    │   ├── CohortError
    │   └── BundleError
    ├── UnsupportedClaim      n or the data cannot support the number that was asked for
    └── ResourceError         disk, memory or a server does not suffice
"""

from __future__ import annotations

from enum import StrEnum

from medphantom.core.plain import error_line


class MedphantomWarning(UserWarning):
    """Something that the result should not be used without knowing; a Python warning where no console shows it."""


class MedphantomError(Exception):
    """Base of all errors that a user can cause and mend.

    Args:
        what: what was wrong and where, without any content of a source image.
        remedy: what to do about it.

    Its text is one line that a terminal, a log and a web page may show: plain, and of limited length, since names in it
    come from data.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(error_line(what, remedy))


class InputError(MedphantomError):
    """A path, option, table or column that cannot be used."""


class RecipeError(InputError):
    """A recipe field that breaks a rule; the message names field, rule and value."""


class PromptError(InputError):
    """A prompt that the conditioning schema does not know; the message names the nearest known term."""


class ArtifactError(MedphantomError):
    """A folder written by this project that is truncated, altered or of another format version."""


class CohortError(ArtifactError):
    """A cohort folder that cannot be trusted."""


class BundleError(ArtifactError):
    """A generator bundle that cannot be trusted."""


class UnsupportedClaim(MedphantomError):
    """The number of patients or images cannot support the requested score."""


class ResourceError(MedphantomError):
    """Disk, memory or a server does not suffice."""


class Reason(StrEnum):
    """Why a source file was not taken into a cohort; the values are stable and appear in rejection tables."""

    NOT_AN_IMAGE = "not_an_image"  # a file of no known image format (text, archive, DICOMDIR)
    NO_PIXELS = "no_pixels"  # a DICOM object without an image: plan, structure set, report
    UNDECODABLE = "undecodable"  # pixel data is broken or its codec is not installed
    TRUNCATED = "truncated"  # the file ends before its pixels do: it was cut off while it was written or copied
    UNSUPPORTED_PIXELS = "unsupported_pixels"  # a pixel format outside the declared support
    COLOR = "color"  # a colour image while color="reject"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"  # more memory than allowed: a decompression bomb, or raise max_image_mib
    NOT_FINITE = "not_finite"  # NaN or infinity among the pixels
    CONSTANT = "constant"  # every pixel equal: nothing to learn
    DUPLICATE = "duplicate"  # the same pixels as an image taken before
    NO_TABLE_ROW = "no_table_row"  # the label table has no row for it
    AMBIGUOUS_TABLE_ROW = "ambiguous_table_row"
    BAD_TABLE_ROW = "bad_table_row"  # its rows name different patients or masks
    NO_MASK = "no_mask"
    MASK_MISMATCH = "mask_mismatch"  # mask of another shape or with non-integer values
    ORPHAN_MASK = "orphan_mask"  # a mask that belongs to no image
    SPLIT_CONFLICT = "split_conflict"  # its patient lies on several sides of the source's own division
    GEOMETRY = "geometry"  # slices that do not form one regular volume
    OUTSIDE_SOURCE = "outside_source"  # a path or link that leaves the source folder
    PICKLE = "pickle"  # a file that would have to be unpickled
    CHANGED = "changed"  # somebody wrote to the file between the first look at it and the end of reading it
    CRASHED = "crashed"  # its decoder killed the worker process, or took too long
    BROKEN = "broken"  # anything else that the reader could not parse


class UnreadableImage(MedphantomError):
    """One source file that cannot be taken.

    Args:
        reason: the typed reason.
        detail: a short explanation that names no path, header value or pixel.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")
