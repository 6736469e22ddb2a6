"""The typed values that everything else uses: one image, and the meaning of a cohort's columns."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from medphantom.cohorts.origin import Origin
from medphantom.core.records import Array, Frozen

Split = Literal["train", "val", "holdout", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT_FIRST: tuple[Split, ...] = ("test", "holdout", "val", "train")
"""Order of splits by which a patient in several splits of the source is assigned: to the most held-out one."""
SYNTHETIC_SPLIT = "synthetic"
LEFT_OUT_SPLIT = "left_out"
"""Split of real images that nearly repeat a training image: nothing learns from them or is scored on them."""

FORMAT_VERSION: Literal[2] = 2
"""Format version of newly written cohorts. In version 1 the split ``holdout`` is called ``gate``."""
OLD_SPLIT_NAMES = {"gate": "holdout"}

LABEL_PREFIX = "label:"
ATTRIBUTE_PREFIX = "attr:"
NAME_PATTERN = re.compile(r"[^\x00-\x1f:]{1,80}")


class AttributeSpec(Frozen):
    """One attribute of an image or patient, such as age (continuous, years) or view (categorical).

    Attributes:
        name: Column name without prefix.
        kind: Kind of the values: ``continuous`` (float) or ``categorical`` (string from ``categories``).
        unit: Unit of a continuous attribute, e.g. ``years``.
        categories: Sorted known values of a categorical attribute.
        low: Smallest value in the training split (continuous).
        high: Largest value in the training split (continuous).
    """

    name: str
    kind: Literal["continuous", "categorical"]
    unit: str = ""
    categories: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


class PlanFacts(Frozen):
    """The sampling plan of which a synthetic cohort holds all images or some.

    Attributes:
        digest: Digest of the whole plan.
        images: Number of images of the whole plan.
    """

    digest: str
    images: Annotated[int, Field(ge=1)]


class CohortSchema(Frozen):
    """Meaning of a cohort's columns; stored as ``cohort.json``.

    Attributes:
        format_version: Version of the files; older ones are read, and keep their digest.
        kind: Kind of the cohort: ``real`` source images, ``synthetic`` ones with bundle digest, prompt and seed, or
            ``counterfactual`` ones, which are edits of real patients' images and as private as those.
        spatial_dims: Number of spatial dimensions, 2 (images) or 3 (volumes); a cohort has one of them.
        labels: Label names in a fixed order; each has a nullable boolean column ``label:<name>``
            (true: present, false: absent, null: missing).
        exclusive: Whether exactly one label is present per image (a class), as with one folder per class.
        attributes: Attributes in the ``attr:<name>`` columns.
        has_text: Whether any row has text.
        mask_values: Name of each integer in the masks, e.g. ``{0: "background", 1: "anterior"}``; empty without masks.
        patients: Whether patients are ``known`` from the source, or each image represents one (``per_image``), so that
            patient-disjoint splits cannot be claimed.
        generation: Sampler settings that all rows of a synthetic cohort share; together with a row's bundle digest,
            prompt and seed they reproduce it.
        plan: Sampling plan of a synthetic cohort; null if it was not recorded.
        origin: Identity key of the cohort; null if unknown. It is not part of any digest, since pseudonyms depend on
            the key.
    """

    format_version: Literal[1, 2] = FORMAT_VERSION
    kind: Literal["real", "synthetic", "counterfactual"] = "real"
    spatial_dims: Literal[2, 3] = 2
    labels: tuple[str, ...] = ()
    exclusive: bool = False
    attributes: tuple[AttributeSpec, ...] = ()
    has_text: bool = False
    mask_values: dict[int, str] = Field(default_factory=dict)
    patients: Literal["known", "per_image"] = "known"
    generation: dict[str, Any] = Field(default_factory=dict)
    plan: PlanFacts | None = None
    origin: Origin | None = None

    @field_validator("labels")
    @classmethod
    def _labels_are_names(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for name in labels:
            if not NAME_PATTERN.fullmatch(name):
                raise ValueError(f"a label name must be 1 to 80 printable characters without ':', got {name!r}")
        if len(set(labels)) != len(labels):
            raise ValueError("label names must differ")
        return labels

    def attribute(self, name: str) -> AttributeSpec:
        """Return the spec of one attribute; raise ``KeyError`` if there is none of that name."""
        for spec in self.attributes:
            if spec.name == name:
                return spec
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Voi:
    """A linear VOI window (PS3.3 C.11.2.1.2), in output units of the modality LUT; others are converted to one."""

    center: float
    width: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Origin of a synthetic row, so that it can be generated again independently."""

    bundle_digest: str
    prompt_json: str
    seed: int


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image at the edge of a cohort (on its way in or out); inside, a cohort is columnar.

    Attributes:
        image_id: Opaque id, unique in the cohort; never a path or a UID of the source.
        patient: Pseudonym of the patient.
        pixels: Source values (after the modality LUT), ``(H, W)``, ``(H, W, 3)`` in colour, or ``(D, H, W)``.
        study: Pseudonym of the study, if known.
        channels: Number of channels, 1 (grey) or 3 (colour, channel last).
        inverted: Whether small values are bright (DICOM MONOCHROME1, PS3.3 C.7.6.3.1.2; TIFF MinIsWhite). ``pixels``
            keep the source's values; :class:`~medphantom.cohorts.preprocess.Preprocess` and export invert them.
        spacing_mm: Distance between pixel centres along each spatial axis of ``pixels``, in its order.
        affine: Row-major 4x4 voxel-to-world matrix (RAS+, mm) over the spatial axes of ``pixels``; for volumes only.
        modality: DICOM modality code (``CT``, ``MR``, ``DX``…), if known.
        labels: Whether each label is present, absent or missing; a name that is not listed is *missing*.
        attributes: Value of each attribute; one that is not listed or ``None`` is *missing*.
        text: Report or caption, if there is one.
        mask: Integer segmentation of the spatial shape of ``pixels``.
        voi: Window for display, kept as metadata and never applied here.
        split: Split of the image: one of :data:`SPLITS`, ``left_out`` (repeats a training image), or ``synthetic``.
        near_duplicate_of: Id of an earlier image of which this one is a near duplicate.
        provenance: Origin of the image, for synthetic rows only.
    """

    image_id: str
    patient: str
    pixels: Array
    split: str
    study: str | None = None
    channels: int = 1
    inverted: bool = False
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[float, ...] | None = None
    modality: str | None = None
    labels: dict[str, bool | None] = field(default_factory=dict)
    attributes: dict[str, float | str | None] = field(default_factory=dict)
    text: str | None = None
    mask: Array | None = None
    voi: Voi | None = None
    near_duplicate_of: str | None = None
    provenance: Provenance | None = None

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Shape without the colour axis."""
        shape = np.shape(self.pixels)
        return tuple(shape[:-1] if self.channels == 3 else shape)
