"""What a user may choose about ingestion: one complete, typed configuration and the defaults that most sources need."""

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
"""Words that state the absence of every label, compared without case, spaces and punctuation."""

FOLDER_MEANINGS = ("classes", "patients", "classes/patients", "patients/classes")
_FOLDERS = re.compile(r"ask|ignore|(-/)*(classes|patients|classes/(-/)*patients|patients/(-/)*classes)")
WITHOUT_EFFECT_ON_RESULT = ("workers", "strict", "seconds_per_file")


class IngestOptions(Frozen):
    """Everything that ingestion may be told; the defaults detect what they can.

    A column option that is empty is looked for under the usual names (``docs/formats/sources.md`` lists them); a column
    that is named must exist.

    Attributes:
        format: read only files of one kind; ``auto`` looks at their content.
        spatial_dims: 2 for images (frames of multi-frame files and slices of series become images), 3 for volumes
            (series and multi-frame files become volumes), ``auto``: 3 when most files belong to volumes.
        exclude: files that are not looked at, as patterns of their paths in the source, such as ``CXR/*``.
        table: CSV, TSV or Parquet file with one row per image, series or patient; ``auto`` takes the only table at the
            top of the source that fits, ``none`` reads no table. A relative path is looked for in the source first.
        join: how table rows find files: ``path`` (a whole path, its end, file name or stem), ``uid`` (SOPInstanceUID
            or SeriesInstanceUID), ``patient``; ``auto`` takes the first of path, uid, patient that matches.
        path_column: column of paths or file names.
        patient_column: column of patient ids.
        study_column: column of study ids.
        uid_column: column of SOPInstanceUIDs or SeriesInstanceUIDs.
        label_columns: one column whose cells list findings, or several columns (one per label) of 1 / 0 / -1 / empty.
        label_names: names of the numbered labels of a ``.npz``, in order.
        label_separator: separates the findings of a cell; ``auto``: ``|`` or ``;``, else a comma where half of the
            parts recur; several of them where every part is a label elsewhere. Where none of that tells lists from
            names, ingestion stops and asks for it.
        no_finding: cell values (or column names) that state the absence of every label. Among classes, and
            as names of columns, the defaults count only as far as they say *no finding*: *normal* is a class there.
        uncertain: what -1 in a label column means: ``missing`` (not stated), ``present`` or ``absent``.
        exclusive: exactly one label is present per image (a class); ``auto``: when every labelled image has one.
        text_column: column of reports or captions; never detected, since text may name a patient.
        mask_column: column of paths of masks, relative to the source.
        attributes: columns of attributes, each ``name`` or ``name:continuous`` or ``name:categorical``; ``None``
            detects age, sex and view.
        folders: what the folders of the images are, from the source downwards: ``classes`` (public labels),
            ``patients``, both, one inside the other, as ``classes/patients`` or ``patients/classes``, with ``-`` for a
            level that means nothing (``-/classes``), or ``ignore``; ``ask`` stops where nothing else names the
            patients of images that lie in several folders. Folders that name a split (``train``, ``test`` …) are not
            counted, and ``sub-<label>`` is a patient as in BIDS.
        patient_pattern: regular expression whose first group, searched in the relative path, is the patient id.
        masks: folder of masks, paired with the images by relative path or file name; ``auto`` takes a folder
            ``labels`` or ``masks`` beside ``images``, ``none`` takes none. A relative path is looked for in the source
            first.
        mask_required: reject an image without a mask when a mask folder or column is used.
        mask_values: name of each integer of the masks; values without a name are named by their number.
        modality: DICOM modality code (``CT``, ``MR``, ``DX`` …) of images whose files do not say it.
        color: what becomes of colour images: ``grey`` (ITU-R BT.601 luminance), ``keep`` or ``reject``; ``auto``:
            ``keep`` in an export of ours, else ``grey``.
        frames: multi-frame and multi-page files among images, and the fourth axis of NIfTI files: ``split`` into
            images, or ``reject``.
        duplicates: ``reject`` later images with the same pixels, or ``keep`` them.
        near_duplicates: images that nearly repeat others: where patients are unknown, ``together`` puts connected ones
            into one split; ``drop`` leaves the later ones out; ``mark`` only notes them; ``off`` does not look. In any
            case but ``off``, images outside ``train`` that repeat a training image of another patient are kept apart
            in the split ``left_out``, which nothing learns from or is scored on.
        min_side: smallest side of an image, in pixels; of a volume, its smallest in-plane side.
        min_slices: smallest number of slices of a volume.
        max_image_mib: largest decoded size of one file (or series) in MiB; a larger one is rejected, whatever its size
            on disk; nor may it need more than a quarter of the memory for decoding.
        max_expansion: how many times its bytes on disk a file that decodes to more than 32 MiB may decode to; beyond it
            is a decompression bomb, or nearly blank. Masks are held to the size of their image instead.
        memory_mib: memory for decoding in MiB, all processes together; ``None``: half of what the machine or the
            container has, and no more than three quarters of what is free.
        split: expected share of patients per split.
        source_splits: whether a division that the source has itself (folders ``train`` / ``val`` / ``test``, a column
            ``split``, the parts of an archive) is kept: ``use``, ``ignore``, or ``auto``: where it is unmistakable.
            What it lacks of our four splits is carved from its training patients by keyed hash.
        split_conflicts: patients that the source puts on several sides: ``move`` takes them to the most held-out of
            these (test, holdout, val), ``refuse`` leaves their images out.
        min_patients: a label or category that fewer patients share enters no vocabulary, since it could point to one
            of them, unless ``labels`` or ``categories`` name it; 1: all enter.
        labels: labels that enter the vocabulary however few patients share them.
        categories: attribute → categories that enter the vocabulary however few patients share them.
        follow_links: read links that leave the source folder, as into a cache of downloads.
        strict: stop at the first rejected file.
        workers: processes that decode; ``None``: one per usable core; 0: decode in this process.
        seconds_per_file: time after which a decoder is taken to hang.
        table_encoding: encoding of a CSV or TSV file, as Python names it (``cp1252``, ``gb18030``, ``cp932`` …);
            ``auto``: by its byte order mark, else UTF-8, and refused otherwise.
        split_column: column of the split that each image has already; ``""``: looked for.
        max_age: ages above it become ``max_age + 1`` years, and ages below two years become completed years (89 is
            what HIPAA's safe harbour asks for); ``None``: ages are kept.
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
        """Which folder level has this meaning, from 0; ``None``: none has."""
        levels = self.folders.split("/")
        return levels.index(meaning) if meaning in levels else None

    @property
    def attribute_kinds(self) -> dict[str, AttributeKind] | None:
        """Name → kind of the attributes that were asked for; ``None`` when they are to be detected."""
        if self.attributes is None:
            return None
        kinds: dict[str, Any] = {}
        for entry in self.attributes:
            name, _, kind = entry.partition(":")
            kinds[name] = kind or "auto"
        return kinds

    def identity(self) -> dict[str, Any]:
        """The options that decide what the cohort holds, as JSON values: what a cache key is made of."""
        return self.model_dump(mode="json", exclude=set(WITHOUT_EFFECT_ON_RESULT))
