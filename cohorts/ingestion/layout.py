"""Classification of a source's files as images, masks or tables, by location and name alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medphantom.cohorts.ingestion.mask_places import beside_images, in_mask_folders, is_image_name, loose_bids_masks
from medphantom.cohorts.ingestion.source import Refused, find_path, table_candidates
from medphantom.cohorts.options import IngestOptions
from medphantom.core.errors import InputError
from medphantom.core.guard import read_json_file, reading

DATASET_FILE = "dataset.json"
LARGEST_DATASET_FILE = 2**20
MODALITY_OF_CHANNEL = {"ct": "CT", "mri": "MR", "mr": "MR", "pet": "PT"}


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Content of nnU-Net's ``dataset.json`` (nnU-Net v2, "dataset format"; v1 maps numbers to names instead).

    Attributes:
        mask_values: Name of each integer of the masks.
        modality: DICOM modality code, if the channels name one.
    """

    mask_values: dict[int, str] = field(default_factory=dict)
    modality: str | None = None


@dataclass(slots=True)
class Layout:
    """Classification of the source's files.

    Attributes:
        root: Folder of the source.
        images: Relative paths of possible images.
        mask_root: Folder to which mask paths are relative.
        masks: Paths of masks in mask folders.
        mask_keys: For each of these masks, the path that pairs it with an image.
        beside: Path of the mask beside each image, by image path.
        loose_masks: Files that are named like masks and belong to no single image.
        refused: Files that are not opened.
        tables: Candidate tables at the top of the source.
        total_files: Number of files found.
        dataset: Content of ``dataset.json``, if there is one.
    """

    root: Path
    images: list[str]
    mask_root: Path
    refused: list[Refused]
    tables: list[str]
    total_files: int
    masks: list[str] = field(default_factory=list)
    mask_keys: list[str] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    loose_masks: set[str] = field(default_factory=set)
    dataset: DatasetFacts | None = None

    @property
    def masks_inside(self) -> bool:
        """Whether the masks are inside the source."""
        return self.mask_root.is_relative_to(self.root)

    def in_source(self, mask: str) -> str:
        """Return the path of a mask relative to the source."""
        return (self.mask_root.relative_to(self.root) / mask).as_posix()


def lay_out(root: Path, files: Sequence[str], refused: Sequence[Refused], options: IngestOptions) -> Layout:
    """Separate images from masks and tables.

    Raises:
        InputError: If a mask folder that was named does not exist.
    """
    tables = table_candidates(files) if options.table == "auto" else []
    layout = Layout(root, list(files), root, list(refused), tables, len(files) + len(refused))
    layout.dataset = _dataset_facts(root, files)
    if options.masks == "auto":
        _find_masks(layout, files)
    elif options.masks != "none":
        _take_mask_folder(layout, Path(options.masks), files)
    named = {layout.in_source(mask) for mask in layout.masks} if layout.masks_inside else set()
    aside = named | set(layout.beside.values()) | layout.loose_masks
    if layout.dataset is not None:
        aside.add(DATASET_FILE)
    layout.images = [path for path in files if path not in aside]
    return layout


def _find_masks(layout: Layout, files: Sequence[str]) -> None:
    places = in_mask_folders(files)
    layout.masks, layout.mask_keys = list(places), list(places.values())
    others = [path for path in files if path not in places]
    layout.beside = {image: mask for mask, image in beside_images(others).items()}
    layout.loose_masks = loose_bids_masks(others) - set(layout.beside.values())


def _take_mask_folder(layout: Layout, given: Path, files: Sequence[str]) -> None:
    layout.mask_root = find_path(given, layout.root).resolve()
    if not layout.mask_root.is_dir():
        raise InputError(f"{given} is not a folder of masks", "check --masks")
    if layout.masks_inside:
        prefix = layout.mask_root.relative_to(layout.root).as_posix()
        layout.masks = [path.removeprefix(f"{prefix}/") for path in files if path.startswith(f"{prefix}/")]
    else:
        found = layout.mask_root.rglob("*")
        layout.masks = sorted(path.relative_to(layout.mask_root).as_posix() for path in found if path.is_file())
    layout.mask_keys = list(layout.masks)


def _dataset_facts(root: Path, files: Sequence[str]) -> DatasetFacts | None:
    """Return facts of an nnU-Net data set; ``None`` if there is none, or its file does not describe one."""
    in_its_folders = any(path.startswith("imagesTr/") and is_image_name(path) for path in files)
    if DATASET_FILE not in files or not in_its_folders:
        return None
    file = root / DATASET_FILE
    try:
        with reading(file, InputError):
            if file.stat().st_size > LARGEST_DATASET_FILE:
                return None
            said = read_json_file(file)
    except InputError:
        return None  # it may be anybody's
    if not isinstance(said, dict):
        return None
    return DatasetFacts(_mask_values(said.get("labels")), _modality(said.get("channel_names", said.get("modality"))))


def _mask_values(labels: Any) -> dict[int, str]:
    found: dict[int, str] = {}
    for one, other in labels.items() if isinstance(labels, dict) else ():
        for number, name in ((one, other), (other, one)):
            text = str(number)
            if isinstance(number, (int, str)) and text.isascii() and text.isdigit() and len(text) < 6:
                found.setdefault(int(text), str(name)[:80])
                break
    return found


def _modality(channels: Any) -> str | None:
    names = {str(name).strip().lower() for name in channels.values()} if isinstance(channels, dict) else set()
    codes = {MODALITY_OF_CHANNEL.get(name) for name in names}
    return codes.pop() if len(codes) == 1 else None
