"""Ingestion options: one complete, typed configuration with defaults that suit most sources."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from medphantom.cohorts.identity import SplitFractions
from medphantom.cohorts.records import NAME_PATTERN
from medphantom.core.records import Frozen

Format = Literal["auto", "dicom", "nifti", "picture", "npz"]
AttributeKind = Literal["auto", "continuous", "categorical"]
NearDuplicatePolicy = Literal["together", "drop", "mark", "off"]
_KINDS = {"auto", "continuous", "categorical"}
NO_FINDING = (
    "No Finding", "No Findings", "No abnormality", "Normal", "Norm", "Unremarkable",
    "Normalbefund", "Unauffällig", "Ohne Befund",
    "Normale", "Sans anomalie", "Sin hallazgos", "Sem achados",
    "норма", "без патологии",
    "φυσιολογικό",
    "正常", "未见异常", "無異常", "異常なし", "所見なし",
    "정상",
)  # fmt: skip
"""Words that denote the absence of every label, compared without case, spaces and punctuation."""

FOLDER_MEANINGS = ("classes", "patients", "classes/patients", "patients/classes")
_FOLDERS = re.compile(r"ask|ignore|(-/)*(classes|patients|classes/(-/)*patients|patients/(-/)*classes)")
WITHOUT_EFFECT_ON_RESULT = ("workers", "strict", "seconds_per_file")


class IngestOptions(Frozen):
    """All options of ingestion; by default everything possible is detected.

    An empty column option means that the usual names are searched (``docs/formats/sources.md`` lists them); a column
    that is named must exist.

    Attributes:
        format: Kind of files to read; ``auto`` detects it from their content.
        spatial_dims: Number of spatial dimensions: 2 for images (frames of multi-frame files and slices of series
            become images), 3 for volumes (series and multi-frame files become volumes), ``auto`` for 3 if most files
            belong to volumes.
        exclude: Files to ignore, as patterns of their paths in the source, such as ``CXR/*``.
        table: CSV, TSV or Parquet file with one row per image, series or patient; ``auto`` uses the only table at the
            top of the source that fits, ``none`` reads no table. A relative path is searched in the source first.
        join: How table rows are matched with files: ``path`` (a whole path, its end, file name or stem), ``uid``
            (SOPInstanceUID or SeriesInstanceUID), ``patient``; ``auto`` uses the first of path, uid, patient that
            matches.
        path_column: Column of paths or file names.
        patient_column: Column of patient ids.
        study_column: Column of study ids.
        uid_column: Column of SOPInstanceUIDs or SeriesInstanceUIDs.
        label_columns: One column whose cells list findings, or several columns (one per label) of 1 / 0 / -1 / empty.
        label_names: Names of the numbered labels of a ``.npz`` archive, in order.
        label_separator: Separator of the findings in a cell; ``auto`` uses ``|`` or ``;``, else a comma if half of the
            parts recur; several of them if every part is a label elsewhere. If lists cannot be distinguished from
            names, ingestion stops and asks for it.
        no_finding: Cell values (or column names) that denote the absence of every label. Among classes, and as names of
            columns, the defaults only apply to forms of *no finding*: *normal* is a class there.
        uncertain: Meaning of -1 in a label column: ``missing``, ``present`` or ``absent``.
        exclusive: Whether exactly one label is present per image (a class); ``auto`` means if every labelled image has
            one.
        text_column: Column of reports or captions; never detected, since text may name a patient.
        mask_column: Column of mask paths, relative to the source.
        attributes: Columns of attributes, each ``name`` or ``name:continuous`` or ``name:categorical``; ``None``
            detects age, sex and view.
        folders: Meaning of the folders of the images, from the source downwards: ``classes`` (public labels),
            ``patients``, both nested as ``classes/patients`` or ``patients/classes``, with ``-`` for a level without
            meaning (``-/classes``), or ``ignore``; ``ask`` stops if images are in several folders and nothing else
            names their patients. Folders that name a split (``train``, ``test`` …) are not counted, and ``sub-<label>``
            is a patient as in BIDS.
        patient_pattern: Regular expression that is searched in the relative path; its first group is the patient id.
        masks: Folder of masks, paired with the images by relative path or file name; ``auto`` uses a folder ``labels``
            or ``masks`` beside ``images``, ``none`` uses none. A relative path is searched in the source first.
        mask_required: Whether to reject an image without a mask if a mask folder or column is used.
        mask_values: Name of each integer of the masks; values without a name are named by their number.
        modality: DICOM modality code (``CT``, ``MR``, ``DX`` …) of images whose files do not declare it.
        color: Handling of colour images: ``grey`` (ITU-R BT.601 luminance), ``keep`` or ``reject``; ``auto`` is
            ``keep`` for an export of this project, else ``grey``.
        frames: Handling of multi-frame and multi-page files among images, and of the fourth axis of NIfTI files:
            ``split`` into images, or ``reject``.
        duplicates: Handling of later images with the same pixels: ``reject`` or ``keep``.
        near_duplicates: Handling of near duplicates: if patients are unknown, ``together`` puts connected ones into one
            split; ``drop`` leaves out the later ones; ``mark`` only marks them; ``off`` does not search for them.
            Except with ``off``, images outside ``train`` that repeat a training image of another patient are moved to
            the split ``left_out``, which is used for neither training nor scores.
        min_side: Smallest side of an image in pixels; of a volume, its smallest in-plane side.
        min_slices: Smallest number of slices of a volume.
        max_image_mib: Largest decoded size of one file (or series) in MiB; a larger one is rejected, whatever its size
            on disk. It may not need more than a quarter of the memory for decoding either.
        max_expansion: Largest ratio of decoded size to size on disk for a file that decodes to more than 32 MiB; a
            larger ratio indicates a decompression bomb, or a nearly blank image. Masks are limited by the size of their
            image instead.
        memory_mib: Memory for decoding in MiB, for all processes together; ``None`` is half of that of the machine or
            container, and at most three quarters of the free memory.
        split: Expected share of patients per split.
        source_splits: Whether to keep a division of the source (folders ``train`` / ``val`` / ``test``, a column
            ``split``, the parts of an archive): ``use``, ``ignore``, or ``auto`` if it is unambiguous. Missing splits
            are taken from its training patients by keyed hash.
        split_conflicts: Handling of patients whom the source assigns to several splits: ``move`` assigns them to the
            most held-out of these (test, holdout, val), ``refuse`` leaves out their images.
        min_patients: Smallest number of patients that must share a label or category for it to enter the vocabulary,
            since a rarer one could identify a patient, unless ``labels`` or ``categories`` name it; with 1 all enter.
        labels: Labels that enter the vocabulary however few patients share them.
        categories: Categories, by attribute, that enter the vocabulary however few patients share them.
        follow_links: Whether to read links that leave the source folder, as into a cache of downloads.
        strict: Whether to stop at the first rejected file.
        workers: Number of decoding processes; ``None`` is one per usable core; 0 decodes in this process.
        seconds_per_file: Time in seconds after which a decoder is considered hung.
        table_encoding: Encoding of a CSV or TSV file by its Python name (``cp1252``, ``gb18030``, ``cp932`` …);
            ``auto`` uses the byte order mark, else UTF-8, and refuses anything else.
        split_column: Column of an existing split of each image; with ``""`` it is detected.
        max_age: Largest exact age: higher ages become ``max_age + 1`` years, and ages below two years become completed
            years (HIPAA's safe harbour requires 89); ``None`` keeps all ages.
    """

    format: Format = "auto"
    spatial_dims: Literal["auto", 2, 3] = "auto"
    exclude: tuple[str, ...] = ()
    table: Path | Literal["auto", "none"] = "auto"
    join: Literal["auto", "path", "patient", "uid"] = "auto"
    path_column: str = ""
    patient_column: str = ""
    study_column: str = ""
    uid_column: str = ""
    label_columns: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    label_separator: str = "auto"
    no_finding: tuple[str, ...] = NO_FINDING
    uncertain: Literal["missing", "present", "absent"] = "missing"
    exclusive: bool | Literal["auto"] = "auto"
    text_column: str = ""
    mask_column: str = ""
    attributes: tuple[str, ...] | None = None
    folders: str = "ask"
    patient_pattern: str = ""
    masks: Path | Literal["auto", "none"] = "auto"
    mask_required: bool = True
    mask_values: dict[int, str] = Field(default_factory=dict)
    modality: Annotated[str, Field(pattern=r"^[A-Z]{0,16}$")] = ""
    color: Literal["auto", "grey", "keep", "reject"] = "auto"
    frames: Literal["split", "reject"] = "split"
    duplicates: Literal["reject", "keep"] = "reject"
    near_duplicates: NearDuplicatePolicy = "together"
    min_side: Annotated[int, Field(ge=1)] = 8
    min_slices: Annotated[int, Field(ge=2)] = 4
    max_image_mib: Annotated[int, Field(ge=1)] = 2048
    max_expansion: Annotated[int, Field(ge=2)] = 200
    memory_mib: Annotated[int, Field(ge=64)] | None = None
    split: SplitFractions = SplitFractions()
    source_splits: Literal["auto", "use", "ignore"] = "auto"
    split_conflicts: Literal["move", "refuse"] = "move"
    min_patients: Annotated[int, Field(ge=1)] = 5
    labels: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    follow_links: bool = False
    strict: bool = False
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    seconds_per_file: Annotated[int, Field(ge=1)] = 600
    table_encoding: str = "auto"
    split_column: str = ""
    max_age: Annotated[int, Field(ge=2, lt=120)] | None = None

    @field_validator("table_encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            if encoding != "auto":
                "".encode(encoding)
        except (LookupError, UnicodeError):
            raise ValueError(f"table_encoding must be auto or a text encoding of Python, got {encoding!r}") from None
        return encoding

    @field_validator("attributes")
    @classmethod
    def _attributes_are_names(cls, attributes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for entry in attributes or ():
            name, _, kind = entry.partition(":")
            if not NAME_PATTERN.fullmatch(name) or (kind or "auto") not in _KINDS:
                raise ValueError(f"an attribute must be name, name:continuous or name:categorical, got {entry!r}")
        return attributes

    @field_validator("label_columns", "labels", "label_names")
    @classmethod
    def _names_are_not_empty(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.strip() for name in names):
            raise ValueError("a name of a label or column must not be empty")
        return names

    @field_validator("near_duplicates", mode="before")
    @classmethod
    def _off_is_a_word(cls, policy: Any) -> Any:
        return {False: "off", True: "together"}[policy] if isinstance(policy, bool) else policy  # YAML 1.1 reads off

    @field_validator("folders")
    @classmethod
    def _folders_have_a_meaning(cls, folders: str) -> str:
        if not _FOLDERS.fullmatch(folders):
            known = ", ".join(FOLDER_MEANINGS)
            raise ValueError(f"folders must be ask, ignore, or {known}, with -/ for each level above, got {folders!r}")
        return folders

    @field_validator("patient_pattern")
    @classmethod
    def _pattern_has_a_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"patient_pattern must be a regular expression: {error}") from None
        if pattern and groups < 1:
            raise ValueError("patient_pattern must have a group for the patient id, e.g. (patient[0-9]+)/")
        return pattern

    def folder_level(self, meaning: Literal["classes", "patients"]) -> int | None:
        """Return the folder level with this meaning, from 0; ``None`` if there is none."""
        levels = self.folders.split("/")
        return levels.index(meaning) if meaning in levels else None

    @property
    def attribute_kinds(self) -> dict[str, AttributeKind] | None:
        """Kind of each requested attribute; ``None`` if attributes are to be detected."""
        if self.attributes is None:
            return None
        kinds: dict[str, Any] = {}
        for entry in self.attributes:
            name, _, kind = entry.partition(":")
            kinds[name] = kind or "auto"
        return kinds

    def identity(self) -> dict[str, Any]:
        """Return the options that determine the content of the cohort as JSON values, for a cache key."""
        return self.model_dump(mode="json", exclude=set(WITHOUT_EFFECT_ON_RESULT))
