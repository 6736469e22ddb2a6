"""The most alike real image of each query, among training and among gate patients, whatever a copy's disguise.

In two steps. First every query is compared with every real image as a whitened thumbnail, under a grid of mirror
images, turns, scales and shifts, and either way round in grey. Then the few best of each side are registered at full
detail, and judged by how well the details agree. Both sides are treated alike, so that what is alike by chance is alike
to both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cohorts.progress import Progress
from cohorts.records import Array
from quality.fingerprints import Fingerprints
from quality.privacy.registration import ITERATIONS, detail, register, similarity, warp

QUERIES_PER_BLOCK = 128
PAIRS_PER_BLOCK = 512
CANDIDATES = 12  # by their thumbnails
REGISTERED = 3  # of those, by their details before registration
DETAIL_SIDE = {2: 64, 3: 32}
TURNS = {2: (-6.0, 0.0, 6.0), 3: (0.0,)}
SCALES = {2: (0.83, 0.91, 1.0, 1.1, 1.2), 3: (0.9, 1.0, 1.1)}
SHIFTS = {2: (-1.0, -0.5, 0.0, 0.5, 1.0), 3: (-1.0, 0.0, 1.0)}
REACH = 0.0625  # of a side: the largest shift, of an image that was not enlarged


@dataclass(frozen=True)
class Side:
    """The real images of one side of the comparison, float32 ``(N, C, *)`` in -1…1, with their patients.

    Attributes:
        images: may be memory-mapped.
        patients: of each image.
    """

    images: Array
    patients: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Found:
    """The most alike real images of each query ``(Q,)``; likeness as Fisher's z, the higher the more alike.

    Attributes:
        train: position of the most alike training image.
        train_score: how alike it is.
        gate: position of the most alike gate image.
        gate_score: how alike it is.
        block_score: likeness to the most alike image of a block of training images as large as gate.
    """

    train: Array
    train_score: Array
    gate: Array
    gate_score: Array
    block_score: Array

    def __len__(self) -> int:
        return len(self.train)

    @classmethod
    def joined(cls, parts: Sequence[Found]) -> Found:
        """All queries of several parts, in order."""
        return cls(**{field.name: np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls)})


class Matcher:
    """Finds the most alike real images of any images.

    Args:
        train: training images.
        gate: images of patients whom nothing learned from.
        fingerprints: fitted to images of either side alike.
        block: positions in train of as many images as gate has, of whole patients.
        mirror: also try mirror images.
    """

    def __init__(
        self, train: Side, gate: Side, fingerprints: Fingerprints, block: Array, *, mirror: bool = True
    ) -> None:
        self.train, self.gate, self.fingerprints, self.block = train, gate, fingerprints, block
        self.dims = train.images.ndim - 2
        self.vectors = [fingerprints.of_all(side.images) for side in (train, gate)]
        spatial = tuple(min(fingerprints.side, length) for length in train.images.shape[2:])
        self.variants = list(_variants(spatial, mirror=mirror))
        negatives = _variants(spatial, mirror=mirror, still=True)
        self.variants += [_Variant(variant.matrix, -1.0) for variant in negatives]

    def find(self, queries_NC: Array, what: str = "", progress: Progress | None = None) -> Found:
        """The most alike real images of each query, block by block: memory does not grow with their number."""
        parts = []
        for start in range(0, len(queries_NC), QUERIES_PER_BLOCK):
            queries = queries_NC[start : start + QUERIES_PER_BLOCK]
            parts.append(self._find(torch.from_numpy(np.ascontiguousarray(queries))))
            if progress is not None:
                progress(min(start + QUERIES_PER_BLOCK, len(queries_NC)), len(queries_NC), what)
        return Found.joined(parts)

    def _find(self, queries: Tensor) -> Found:
        (train, train_variant), (gate, gate_variant) = self._coarse(queries)
        moving = detail(_at_most(queries, DETAIL_SIDE[self.dims]))
        block = torch.from_numpy(self.block)
        picked, scores = self._fine(moving, self.train, *_best(train, train_variant))
        in_block = _best(train[:, block], train_variant[:, block])
        _, block_scores = self._fine(moving, self.train, *in_block, rows=block)
        gate_picked, gate_scores = self._fine(moving, self.gate, *_best(gate, gate_variant))
        # what the block knows, all of train knows too
        train_scores = torch.maximum(scores.max(dim=1).values, block_scores.max(dim=1).values)
        return Found(
            train=picked[torch.arange(len(picked)), scores.argmax(dim=1)].numpy(),
            train_score=train_scores.numpy(),
            gate=gate_picked[torch.arange(len(picked)), gate_scores.argmax(dim=1)].numpy(),
            gate_score=gate_scores.max(dim=1).values.numpy(),
            block_score=block_scores.max(dim=1).values.numpy(),
        )

    def _coarse(self, queries: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Likeness of thumbnails ``(Q, N)`` to each side over all variants, and which variant it was."""
        thumbs = self.fingerprints.shrunk(queries)
        found = [
            (torch.full((len(queries), len(vectors)), -1.0), torch.zeros(len(queries), len(vectors), dtype=torch.int16))
            for vectors in self.vectors
        ]
        for number, tried in enumerate(self.variants):
            moved = self.fingerprints.of_shrunk(warp(tried.sign * thumbs, tried.matrix))
            for vectors, (best, variant) in zip(self.vectors, found, strict=True):
                likeness = moved @ vectors.T
                better = likeness > best
                torch.maximum(best, likeness, out=best)
                variant.masked_fill_(better, number)
        return found

    def _fine(
        self, moving: Tensor, side: Side, places: Tensor, variants: Tensor, *, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Register each query with its candidates; returns their positions and scores ``(Q, candidates)``."""
        places = places if rows is None else rows[places]
        needed, where = torch.unique(places, return_inverse=True)
        fixed = detail(_at_most(torch.from_numpy(np.ascontiguousarray(side.images[needed.numpy()])), moving.shape[-1]))
        ratio = moving.shape[-1] / self.fingerprints.side
        starts = torch.stack([_rescaled(variant.matrix[0], ratio) for variant in self.variants])[variants.long()]
        signs = torch.tensor([variant.sign for variant in self.variants])[variants.long()]
        rough = _scores(moving, fixed, where, starts, signs, iterations=0)
        kept = rough.topk(min(REGISTERED, rough.shape[1]), dim=1).indices
        chosen = kept.reshape(*kept.shape, 1, 1).expand(-1, -1, *starts.shape[2:])
        where, starts, signs = (
            torch.gather(where, 1, kept),
            torch.gather(starts, 1, chosen),
            torch.gather(signs, 1, kept),
        )
        scores = _scores(moving, fixed, where, starts, signs, iterations=ITERATIONS)
        return torch.gather(places, 1, kept), scores


def _scores(
    moving_Q: Tensor, fixed: Tensor, where_QC: Tensor, starts: Tensor, signs_QC: Tensor, *, iterations: int
) -> Tensor:
    """Agreement ``(Q, C)`` of each query with its candidates among the fixed images, after so many iterations."""
    total, candidates = where_QC.shape
    queries, where, sign = torch.arange(total).repeat_interleave(candidates), where_QC.flatten(), signs_QC.flatten()
    found = []
    for start in range(0, total * candidates, PAIRS_PER_BLOCK):
        part = slice(start, start + PAIRS_PER_BLOCK)
        mine = moving_Q[queries[part]]
        mine = sign[part].reshape(-1, *[1] * (mine.ndim - 1)) * mine
        found.append(register(mine, fixed[where[part]], starts.flatten(0, 1)[part], iterations).score)
    return torch.cat(found).reshape(total, candidates)


def _best(likeness: Tensor, variant: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the candidates ``(Q, candidates)``, and their variants."""
    places = likeness.topk(min(CANDIDATES, likeness.shape[1]), dim=1).indices
    return places, torch.gather(variant, 1, places)


@dataclass(frozen=True)
class _Variant:
    """A disguise that is tried: a transform ``(1, d+1, d+1)`` of thumbnails, of their negative where the sign is -1."""

    matrix: Tensor
    sign: float = 1.0


def _variants(spatial: tuple[int, ...], *, mirror: bool, still: bool = False) -> Iterator[_Variant]:
    """Transforms to try; ``still``: shifts and mirror images only."""
    dims = len(spatial)
    sides = torch.tensor([float(side) for side in reversed(spatial)])
    turns, scales = ((0.0,), (1.0,)) if still else (TURNS[dims], SCALES[dims])
    for flip, turn, scale in product((False, True) if mirror else (False,), turns, scales):
        reach = REACH + max(0.0, scale - 1) / 4  # a window of an image may come from anywhere in it
        for moves in product(SHIFTS[dims], repeat=dims):
            yield _Variant(
                similarity(
                    spatial,
                    shift=reach * torch.tensor([moves]) * sides,
                    turn=torch.tensor([turn * math.pi / 180]),
                    scale=torch.tensor([scale]),
                    mirror=flip,
                )
            )


def _rescaled(matrix: Tensor, ratio: float) -> Tensor:
    """The same transform on a grid with more pixels."""
    found = matrix.clone()
    found[:-1, -1] *= ratio
    return found


def _at_most(images: Tensor, side: int) -> Tensor:
    """Grey images brought to a grid of ``side`` pixels an axis, where they are larger or unequal."""
    grey = images.mean(dim=1, keepdim=True)
    sides = tuple(side for _ in grey.shape[2:])
    if tuple(grey.shape[2:]) == sides:
        return grey
    if min(grey.shape[2:]) >= side:
        return F.adaptive_avg_pool2d(grey, side) if grey.ndim == 4 else F.adaptive_avg_pool3d(grey, side)
    mode = "bilinear" if grey.ndim == 4 else "trilinear"
    return F.interpolate(grey, sides, mode=mode, align_corners=False)
