"""The exception tree of the project.

Every error that a user can cause derives from :class:`MedphantomError`. The command line prints its single line and
exits with status 2; a notebook shows the same line::

    MedphantomError
    ├── InputError            an unusable input: a path, an option, a table or a column
    │   ├── RecipeError       a recipe (or --set) with an invalid field
    │   └── PromptError       a prompt outside the conditioning schema of a bundle
    ├── UnreadableImage       a source file that cannot be read (typed reason; ingestion records it and continues)
    ├── ArtifactError         a folder of this project that is truncated, altered or of another format version
    │   ├── CohortError
    │   └── BundleError
    ├── UnsupportedClaim      the sample size or the data cannot support the requested score
    └── ResourceError         not enough disk space or memory, or a server that does not respond
"""

from __future__ import annotations

from enum import StrEnum

from medphantom.core.plain import error_line


class MedphantomWarning(UserWarning):
    """Something that the result should not be used without knowing; a Python warning where no console shows it."""


class MedphantomError(Exception):
    """Base class of all errors that a user can cause and fix.

    Args:
        what: What is wrong and where, without any content of a source image.
        remedy: What to do about it.

    Its text is a single plain line of limited length, so that terminals, logs and web pages can show it although names
    from data occur in it.
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
    """Not enough disk space or memory, or a server that does not respond."""


class Reason(StrEnum):
    """Why a source file was not ingested; the values are stable and appear in rejection tables."""

    NOT_AN_IMAGE = "not_an_image"  # a file of no known image format (text, archive, DICOMDIR)
    NO_PIXELS = "no_pixels"  # a DICOM object without an image: plan, structure set, report
    UNDECODABLE = "undecodable"  # pixel data is broken or its codec is not installed
    TRUNCATED = "truncated"  # the file ends before its pixels do: it was cut off while it was written or copied
    UNSUPPORTED_PIXELS = "unsupported_pixels"  # a pixel format that is not supported
    COLOR = "color"  # a colour image while color="reject"
    TOO_SMALL = "too_small"
    TOO_LARGE = "too_large"  # needs more memory than max_image_mib allows, like a decompression bomb
    NOT_FINITE = "not_finite"  # NaN or infinity among the pixel values
    CONSTANT = "constant"  # all pixels are equal, so there is nothing to learn
    DUPLICATE = "duplicate"  # the same pixels as an image ingested before
    NO_TABLE_ROW = "no_table_row"  # the label table has no row for it
    AMBIGUOUS_TABLE_ROW = "ambiguous_table_row"
    BAD_TABLE_ROW = "bad_table_row"  # its rows name different patients or masks
    NO_MASK = "no_mask"
    MASK_MISMATCH = "mask_mismatch"  # mask of another shape or with non-integer values
    ORPHAN_MASK = "orphan_mask"  # a mask without an image
    SPLIT_CONFLICT = "split_conflict"  # its patient is in several splits of the source's own division
    GEOMETRY = "geometry"  # slices that do not form one regular volume
    OUTSIDE_SOURCE = "outside_source"  # a path or link that leaves the source folder
    PICKLE = "pickle"  # a file that would have to be unpickled
    CHANGED = "changed"  # the file was modified while it was being read
    CRASHED = "crashed"  # its decoder killed the worker process, or timed out
    BROKEN = "broken"  # anything else that the reader could not parse


class UnreadableImage(MedphantomError):
    """One source file that cannot be read.

    Args:
        reason: Typed reason of the rejection.
        detail: Short explanation that contains no path, header value or pixel.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")
