"""Pairing of masks with images by folders and names alone, before anything is opened.

Three arrangements are known: a folder of masks beside a folder of images at any depth (``images`` and ``masks``,
``imagesTr`` and ``labelsTr`` of nnU-Net), a mask beside its image with the image's name and a suffix (``x.png`` and
``x_mask.png``), and the derivatives of BIDS (``sub-01_T1w.nii.gz`` and ``sub-01_dseg.nii.gz``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePosixPath

from medphantom.cohorts.tables.join import SUFFIXES, FileKey, Join, RowIndex, stem

IMAGE_FOLDERS = ("images", "imagestr", "imagests", "image", "imgs", "img")
MASK_FOLDERS = ("labels", "labelstr", "labelsts", "masks", "mask", "segmentations", "segmentation", "annotations")
_MASK_ENDING = re.compile(r"[_-](mask|seg|segmentation|label|labels)$", re.IGNORECASE)
_BIDS_MASK = re.compile(r"_(dseg|probseg|mask|roi)$")  # BIDS 1.10, "Imaging derivatives"
_BIDS_SCOPE = re.compile(r"(sub-[A-Za-z0-9]+)(?:_(ses-[A-Za-z0-9]+))?")
CHANNEL_ENDING = re.compile(r"_\d{4}$")  # nnU-Net v2, "dataset format": case_XXXX.ending


def is_image_name(path: str) -> bool:
    """Return whether a name has the extension of an image, so that ``labels`` with text files is not a mask folder."""
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def in_mask_folders(files: Sequence[str]) -> dict[str, str]:
    """Return masks in folders beside folders of images: path → the path without the mask folder's name."""
    with_images = {key for path in files if (key := _without(path, IMAGE_FOLDERS)[0]) is not None}
    found = {}
    for path in files:
        prefix, rest = _without(path, MASK_FOLDERS)
        if prefix in with_images and is_image_name(path):
            found[path] = rest
    return found


def image_key(path: str, *, channels: bool) -> str:
    """Return an image's path without the name of its image folder, and without nnU-Net's channel number."""
    key = _without(path, IMAGE_FOLDERS)[1]
    return CHANNEL_ENDING.sub("", stem(key)) if channels else key


def beside_images(files: Sequence[str]) -> dict[str, str]:
    """Return masks beside their images: mask path → image path. Masks that fit several images are left out."""
    images = [path for path in files if is_image_name(path)]
    at = {(str(PurePosixPath(path).parent), PurePosixPath(stem(path)).name): path for path in images}
    found = {}
    for (folder, name), path in at.items():
        owner = at.get((folder, _MASK_ENDING.sub("", name))) if _MASK_ENDING.search(name) else None
        if owner is not None:
            found[path] = owner
    return found | _bids_masks(images)


def loose_bids_masks(files: Iterable[str]) -> set[str]:
    """Return files that are masks in BIDS terms; even without their image they are not images."""
    return {path for path in files if is_image_name(path) and _is_bids_mask(path)}


def pair_masks(masks: Sequence[str], images: Sequence[FileKey]) -> Join:
    """Pair masks with images by relative path or name; ``x_mask`` and ``x_seg`` belong to ``x``."""
    cleaned = [_MASK_ENDING.sub("", stem(mask)) for mask in masks]
    return Join(RowIndex("path", cleaned, images), images)


def _without(path: str, names: Collection[str]) -> tuple[str | None, str]:
    """Return the part above the deepest folder with one of these names, and the path without that folder."""
    parts = PurePosixPath(path).parts
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() in names:
            return "/".join(parts[:place]), "/".join((*parts[:place], *parts[place + 1 :]))
    return None, path


def _is_bids_mask(path: str) -> bool:
    name = PurePosixPath(stem(path)).name
    return bool(_BIDS_SCOPE.match(name) and _BIDS_MASK.search(name))


def _bids_masks(images: Sequence[str]) -> dict[str, str]:
    by_scope: dict[tuple[str | None, ...], list[str]] = defaultdict(list)
    masks: dict[str, tuple[str | None, ...]] = {}
    for path in images:
        match = _BIDS_SCOPE.match(PurePosixPath(path).name)
        if match is None:
            continue
        if _is_bids_mask(path):
            masks[path] = match.groups()
        else:
            by_scope[match.groups()].append(path)
    return {path: by_scope[scope][0] for path, scope in masks.items() if len(by_scope[scope]) == 1}
