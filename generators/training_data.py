"""Training data of a generator: the ``train`` and ``val`` rows of a cohort in network values, prepared once.

No other row is read here or elsewhere in this package: ``holdout`` and ``test`` are reserved for the evaluation.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from medphantom.cohorts.manifest import STORAGE_COLUMNS
from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX, AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import ArtifactError, InputError
from medphantom.core.folders import canonical_json, json_digest, publishing, read_digest, write_digest
from medphantom.core.guard import reading
from medphantom.core.progress import Progress
from medphantom.core.records import Array

SMALLEST_TRAIN = 8
ROWS_PER_READ = 256


@dataclass(frozen=True)
class TrainingRows:
    """Rows of a cohort that are used for training.

    Attributes:
        train: Row numbers in the order of their image ids, so that the order of rows in the cohort does not matter.
        val: Row numbers of the validation images in the same order.
        digest: Digest of the content of those rows; other rows do not affect it.
        total_patients: Number of patients in ``train``.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    digest: str
    total_patients: int


def training_rows(cohort: Cohort) -> TrainingRows:
    """Find the rows to train on.

    Raises:
        InputError: If there are too few training images, or no validation image.
    """
    frame = cohort.manifest.with_row_index("row").sort("image_id")
    rows = {split: frame.filter(pl.col("split") == split) for split in ("train", "val")}
    if len(rows["train"]) < SMALLEST_TRAIN:
        raise InputError(
            f"the cohort has {len(rows['train'])} training images, but a generator needs ≥ {SMALLEST_TRAIN}",
            "ingest more images, or give the train split a larger fraction",
        )
    if rows["val"].is_empty():
        raise InputError(
            "the cohort has no validation image, but validation selects the checkpoint",
            "ingest more patients, or give the val split a larger fraction",
        )
    return TrainingRows(
        train=tuple(rows["train"]["row"].to_list()),
        val=tuple(rows["val"]["row"].to_list()),
        digest=training_digest(cohort),
        total_patients=rows["train"]["patient"].n_unique(),
    )


def training_digest(cohort: Cohort) -> str:
    """Return the digest of the content of training and validation rows; other rows and their order do not affect it."""
    frame = cohort.manifest.sort("image_id")
    digest = hashlib.sha256()
    for split in ("train", "val"):
        digest.update(split.encode())
        for row in frame.filter(pl.col("split") == split).drop(*STORAGE_COLUMNS).iter_rows(named=True):
            digest.update(hashlib.sha256(canonical_json(row).encode()).digest())
    return digest.hexdigest()


def learnt_schema(cohort: Cohort, rows: Sequence[int]) -> ConditionSchema:
    """Return the vocabulary that the given (training) rows can teach.

    A label that none of them shows, or a category that none of them has, is left out: a prompt that names it would
    address an untrained entry, and the names of other splits would leak into the bundle.
    """
    frame = cohort.manifest[list(rows)]
    labels = tuple(name for name in cohort.schema.labels if frame[LABEL_PREFIX + name].any())
    attributes = []
    for spec in cohort.schema.attributes:
        values = frame[ATTRIBUTE_PREFIX + spec.name].drop_nulls()
        if values.is_empty():
            continue
        attributes.append(_learnt_attribute(spec, values))
    return ConditionSchema(labels=labels, exclusive=cohort.schema.exclusive, attributes=tuple(attributes))


def _learnt_attribute(spec: AttributeSpec, values: pl.Series) -> AttributeSpec:
    if spec.kind == "categorical":
        return spec.model_copy(update={"categories": tuple(sorted(values.unique().to_list()))})
    finite = values.filter(values.is_finite())
    return spec.model_copy(update={"low": finite.min(), "high": finite.max()})


@dataclass(frozen=True)
class Geometry:
    """Physical size of the network's grid, for export.

    Attributes:
        spacing_mm: Median distance between grid points along each axis, over the training images that declare one.
        affine: Row-major 4x4 voxel-to-world matrix (RAS+, mm) with the most common orientation of the training volumes,
            centred on the grid; for volumes only.
        modality: Most common modality of the training images.
    """

    spacing_mm: tuple[float, ...] | None
    affine: tuple[float, ...] | None
    modality: str | None


def learnt_geometry(cohort: Cohort, rows: Sequence[int], preprocess: Preprocess) -> Geometry:
    """Return spacing, orientation and modality for generated images."""
    frame = cohort.manifest.select("shape", "spacing_mm", "affine", "modality")[list(rows)]
    dims = len(preprocess.size)
    spacings = [
        preprocess.spacing_after(row["shape"][:dims], row["spacing_mm"])
        for row in frame.iter_rows(named=True)
        if row["spacing_mm"] is not None
    ]
    modalities = Counter(frame["modality"].drop_nulls().to_list()).most_common(1)
    modality = modalities[0][0] if modalities else None
    if not spacings:
        return Geometry(None, None, modality)
    spacing = tuple(float(value) for value in np.median(np.asarray(spacings), axis=0))
    affine = _affine(frame["affine"].drop_nulls().to_list(), spacing, preprocess.size) if dims == 3 else None
    return Geometry(spacing, affine, modality)


def _affine(sources: Sequence[Sequence[float]], spacing: Sequence[float], size: Sequence[int]) -> tuple[float, ...]:
    orientations = Counter(tuple(_axes(source).ravel().tolist()) for source in sources)
    axes = np.array(orientations.most_common(1)[0][0]).reshape(3, 3) if orientations else np.eye(3)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)  # columns are the steps along each grid axis
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(size) - 1) / 2)
    return tuple(float(value) for value in affine.ravel())


def _axes(source: Sequence[float]) -> Array:
    """Return the signed permutation nearest to an affine's directions: each grid axis follows one world axis."""
    directions = np.asarray(source, dtype=float).reshape(4, 4)[:3, :3]
    directions = directions / np.maximum(np.linalg.norm(directions, axis=0), 1e-12)
    axes = np.zeros((3, 3))
    for _ in range(3):
        world, grid = np.unravel_index(np.argmax(np.abs(directions)), (3, 3))
        axes[world, grid] = 1.0 if directions[world, grid] >= 0 else -1.0
        directions[world, :] = 0
        directions[:, grid] = 0
    return axes


def cached_images(
    cohort: Cohort, rows: Sequence[int], preprocess: Preprocess, folder: Path, progress: Progress | None = None
) -> Array:
    """Return network input of the rows, decoded and resized once, then memory-mapped.

    Args:
        cohort: Cohort with the images.
        rows: Row numbers of the images.
        preprocess: Preprocessing of the images.
        folder: Folder of the cache; another cohort or preprocessing has another entry.
        progress: Callback that receives the number of images done.

    Returns:
        float16 ``(n, channels, *size)`` in -1…1, read-only. Half precision resolves 1/2048 of the range, while a grey
        level of 8 bits is 1/128.

    Raises:
        InputError: If an image has NaN or infinite pixels.
    """
    identity = cohort.manifest.select("digest", "channels", "inverted")[list(rows)].rows()
    entry = folder / json_digest([identity, preprocess.model_dump(mode="json")])[:24]
    shape = (len(rows), preprocess.channels, *preprocess.size)
    with suppress(ArtifactError):  # incomplete or damaged: it is created again
        read_digest(entry)
        with reading(entry / "images.npy"):
            cached: Array = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)
        if cached.shape == shape and cached.dtype == np.float16:
            return cached
    shutil.rmtree(entry, ignore_errors=True)
    with publishing(entry) as partial:
        images: Any = np.lib.format.open_memmap(partial / "images.npy", mode="w+", dtype=np.float16, shape=shape)
        for start in range(0, len(rows), ROWS_PER_READ):
            block = _finite(network_images(cohort, rows[start : start + ROWS_PER_READ], preprocess))
            images[start : start + len(block)] = block
            if progress is not None:
                progress(start + len(block), len(rows), "reading images")
        images.flush()
        write_digest(partial, json_digest(identity))
    return np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False)


def _finite(images: Array) -> Array:
    if not np.isfinite(images).all():
        raise InputError(
            "a training image has NaN or infinite pixels", "ingest the cohort again, which rejects such images"
        )
    return images


def image_tensor(images: Array, rows: Tensor | slice) -> Tensor:
    """Return some of the cached images as float32, shape (n, C, *size)."""
    picked = images[rows] if isinstance(rows, slice) else images[rows.numpy()]
    return torch.from_numpy(np.ascontiguousarray(picked, dtype=np.float32))
