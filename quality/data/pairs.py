"""Counterfactual pairs as arrays, with their source images, labels and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medphantom.cohorts.pairs import PairRows, Role, pair_rows
from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.scale import stored_preprocess
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.guard import reading
from medphantom.core.records import Array
from medphantom.quality.data.evaluation_data import on_stored_grid

IMAGE_ROLES: tuple[Role, ...] = ("factual", "counterfactual", "reversed", "reconstruction")


@dataclass(frozen=True)
class PairImages:
    """Pairs in network values -1…1, float32 ``(N, C, *size)`` each.

    Attributes:
        images: images by role; ``reversed`` and ``reconstruction`` only if the cohort has them.
        source: source images, rounded to the stored grey values of the other images.
        patients: patient of each pair.
        splits: split of each source image.
    """

    images: dict[str, Array]
    source: Array
    patients: Array
    splits: Array

    def __len__(self) -> int:
        return len(self.source)


def pairs_preprocess(pairs: Cohort) -> Preprocess:
    """The preprocessing of the generator that made the pairs.

    Raises:
        InputError: the cohort does not record it.
    """
    problem, remedy = "does not say what its generator saw of an image", "make it again with this version"
    with reading(pairs.path, InputError, problem, remedy):
        return Preprocess.model_validate(pairs.schema.generation["preprocess"])


def source_rows(real: Cohort, pairs: Cohort, found: PairRows) -> list[int]:
    """Row of each source image in the real cohort.

    Raises:
        InputError: the pairs were made from another cohort.
    """
    places = {name: row for row, name in enumerate(real.manifest["image_id"].to_list())}
    made_from = pairs.schema.generation.get("source", real.digest)
    if made_from != real.digest or any(name not in places for name in found.source_ids):
        raise InputError(f"{pairs.path} was not made from the cohort {real.path}", "give the cohort that it edits")
    return [places[name] for name in found.source_ids]


def read_role(pairs: Cohort, found: PairRows, role: Role, preprocess: Preprocess) -> Array:
    """The images of one role, float32 ``(N, C, *size)`` in -1…1."""
    return network_images(pairs, found.rows[role], stored_preprocess(preprocess))


def read_pairs(real: Cohort, pairs: Cohort) -> PairImages:
    """Read all pairs and their sources.

    Raises:
        InputError: there are no pairs, or they belong to another cohort.
        CohortError: one half of a pair is missing.
    """
    found, preprocess = pair_rows(pairs), pairs_preprocess(pairs)
    rows = source_rows(real, pairs, found)
    return PairImages(
        images={role: read_role(pairs, found, role, preprocess) for role in IMAGE_ROLES if role in found.rows},
        source=on_stored_grid(network_images(real, rows, preprocess), preprocess),
        patients=np.asarray(real.patients(rows)),
        splits=real.manifest["split"].to_numpy()[rows],
    )


def labels_by_name(cohort: Cohort, rows: Sequence[int], names: Sequence[str]) -> Array:
    """Labels of the given rows by name, int8 ``(N, L)``: 1 present, 0 absent, -1 unknown."""
    table = cohort.labels(rows)
    known = list(cohort.schema.labels)
    columns = [table[:, known.index(name)] if name in known else np.full(len(rows), -1, np.int8) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), np.int8)


def attribute_by_name(cohort: Cohort, rows: Sequence[int], name: str) -> list[Any]:
    """An attribute of the given rows; ``None`` where it is unknown or the cohort has none of that name."""
    known = {spec.name for spec in cohort.schema.attributes}
    return cohort.attribute(name, rows) if name in known else [None] * len(rows)
