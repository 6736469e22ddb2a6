"""The most similar training and holdout image of each query, robust to geometric and intensity alterations of copies.

The search has two steps. First, every query is compared with every real image as a whitened thumbnail, under a grid of
mirror images, rotations, scales and shifts, and with inverted grey values. Then the best candidates of each side are
registered at full detail and scored by their agreement. Both sides are treated in the same way, so that similarity by
chance is the same for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.quality.networks.fingerprints import Fingerprints, shrunk
from medphantom.quality.privacy.dcr_share import Subsets, wins_of_train
from medphantom.quality.privacy.neighbours import NeighbourSimilarity
from medphantom.quality.privacy.registration import ITERATIONS, detail, register, similarity, warp

QUERIES_PER_BLOCK = 128
PAIRS_PER_BLOCK = 48  # what a processor holds in its cache
CANDIDATES = 24  # chosen by thumbnails
REGISTERED = 4  # chosen among the candidates by detail before registration
DETAIL_SIDE = {2: 64, 3: 32}  # of smaller images too: on their own grid, fewer planted copies are found
TURNS = {2: (-6.0, 0.0, 6.0), 3: (0.0,)}
SCALES = {2: (0.83, 0.91, 1.0, 1.1, 1.2), 3: (0.9, 1.0, 1.1)}
SHIFTS = {2: (-1.0, -0.5, 0.0, 0.5, 1.0), 3: (-1.0, 0.0, 1.0)}
REACH = 0.0625  # largest shift of an image that was not enlarged, as a fraction of the side


class Matcher:
    """Finds the most similar real images of any images by registered detail.

    Args:
        train: training images, float32 ``(N, C, *)`` in -1…1; may be memory-mapped.
        holdout: holdout images, as many as ``subsets`` has per side.
        fingerprints: fingerprint fitted to images of both sides with equal probability.
        subsets: subsets of training images of the size of the holdout.
        mirror: whether mirror images are also compared.
    """

    def __init__(
        self, train: Array, holdout: Array, fingerprints: Fingerprints, subsets: Subsets, *, mirror: bool = True
    ) -> None:
        self.train, self.holdout, self.fingerprints, self.subsets = train, holdout, fingerprints, subsets
        self.dims = train.ndim - 2
        self.vectors = [fingerprints.of_all(images) for images in (train, holdout)]
        spatial = tuple(min(fingerprints.side, length) for length in train.shape[2:])
        self.ratios = torch.tensor([DETAIL_SIDE[self.dims] / side for side in reversed(spatial)])
        self.variants = list(_variants(spatial, mirror=mirror))
        negatives = _variants(spatial, mirror=mirror, still=True)
        self.variants += [_Variant(variant.matrix, -1.0) for variant in negatives]

    def find(self, queries_NC: Array, what: str = "", progress: Progress | None = None) -> NeighbourSimilarity:
        """The most similar real images of each query, in blocks, so that memory does not grow with their number."""
        parts = []
        for start in range(0, len(queries_NC), QUERIES_PER_BLOCK):
            queries = queries_NC[start : start + QUERIES_PER_BLOCK]
            parts.append(self._find(torch.from_numpy(np.ascontiguousarray(queries))))
            if progress is not None:
                progress(min(start + QUERIES_PER_BLOCK, len(queries_NC)), len(queries_NC), what)
        return NeighbourSimilarity.joined(parts)

    def _find(self, queries: Tensor) -> NeighbourSimilarity:
        (train, train_variant), (holdout, holdout_variant) = self._coarse(queries)
        moving = self._details(queries)
        block = torch.from_numpy(self.subsets.block)
        candidates = (_best(train), block[_best(train[:, block])])
        (picked, scores), (_, block_scores) = self._fine(moving, self.train, train_variant, *candidates)
        ((holdout_picked, holdout_scores),) = self._fine(moving, self.holdout, holdout_variant, _best(holdout))
        # the block is a part of the training set
        train_scores = torch.maximum(scores.max(dim=1).values, block_scores.max(dim=1).values)
        # The DCR share uses unaltered thumbnails: over hundreds of variants a few images would be close to all others.
        plain = self.fingerprints.of(queries)
        own, other = ((plain @ vectors.T).numpy() for vectors in self.vectors)
        wins, pseudo = wins_of_train(self.subsets.best(own), other.max(axis=1), self.subsets)
        return NeighbourSimilarity(
            train=picked[torch.arange(len(picked)), scores.argmax(dim=1)].numpy(),
            train_score=train_scores.numpy(),
            holdout=holdout_picked[torch.arange(len(picked)), holdout_scores.argmax(dim=1)].numpy(),
            holdout_score=holdout_scores.max(dim=1).values.numpy(),
            block_score=block_scores.max(dim=1).values.numpy(),
            wins=wins,
            pseudo_wins=pseudo,
        )

    def _coarse(self, queries: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Largest similarity ``(Q, N)`` of thumbnails to each side over all variants, and the number of the variant."""
        thumbs = shrunk(queries, self.fingerprints.side)
        found = [
            (torch.full((len(queries), len(vectors)), -1.0), torch.zeros(len(queries), len(vectors), dtype=torch.int16))
            for vectors in self.vectors
        ]
        for number, tried in enumerate(self.variants):
            moved = self.fingerprints.of_shrunk(warp(tried.sign * thumbs, tried.matrix))
            for vectors, (best, variant) in zip(self.vectors, found, strict=True):
                similarity = moved @ vectors.T
                better = similarity > best
                torch.maximum(best, similarity, out=best)
                variant.masked_fill_(better, number)
        return found

    def _details(self, images: Tensor) -> Tensor:
        """Band-passed images for registration, on a grid with the same number of pixels along every axis."""
        grey = images.mean(dim=1, keepdim=True)
        sides = [DETAIL_SIDE[self.dims]] * self.dims
        shrinks = all(old >= new for old, new in zip(grey.shape[2:], sides, strict=True))
        mode = "area" if shrinks else "bilinear" if self.dims == 2 else "trilinear"
        return detail(F.interpolate(grey, sides, mode=mode))

    def _fine(self, moving: Tensor, images: Array, variant: Tensor, *candidates: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Register each query with its candidates, which several sets may share.

        Args:
            moving: Queries from :meth:`_details`, Q of them.
            images: Images of one side, N of them.
            variant: Number of the best variant of each query for each image, ``(Q, N)``.
            *candidates: Sets of positions of images ``(Q, candidates)``.

        Returns:
            Positions that were registered and their scores, both ``(Q, registered)``, for each set.
        """
        needed = torch.unique(torch.cat([places.flatten() for places in candidates]))
        fixed = self._details(torch.from_numpy(np.ascontiguousarray(images[needed.numpy()])))
        all_starts = torch.stack([_rescaled(tried.matrix[0], self.ratios) for tried in self.variants])
        all_signs = torch.tensor([tried.sign for tried in self.variants])

        def scored(sets: Sequence[Tensor], iterations: int) -> list[Tensor]:
            """Return the agreement of every pair in the sets; a pair in several of them is registered once."""
            keys = [torch.arange(len(places)).unsqueeze(1) * variant.shape[1] + places for places in sets]
            pairs, back = torch.unique(torch.cat([key.flatten() for key in keys]), return_inverse=True)
            queries, places = pairs // variant.shape[1], pairs % variant.shape[1]
            chosen = variant[queries, places].long()
            images_of = torch.searchsorted(needed, places)
            found = _Pairs(queries, images_of, all_starts[chosen], all_signs[chosen]).scores(moving, fixed, iterations)
            parts = torch.split(found[back], [key.numel() for key in keys])
            return [part.reshape(key.shape) for part, key in zip(parts, keys, strict=True)]

        kept = []
        for places, rough in zip(candidates, scored(candidates, 0), strict=True):
            kept.append(torch.gather(places, 1, rough.topk(min(REGISTERED, rough.shape[1]), dim=1).indices))
        return list(zip(kept, scored(kept, ITERATIONS), strict=True))


@dataclass(frozen=True)
class _Pairs:
    """Queries and images to register: their positions ``(P,)``, initial transforms ``(P, d+1, d+1)`` and signs."""

    queries: Tensor
    images: Tensor
    starts: Tensor
    signs: Tensor

    def scores(self, moving: Tensor, fixed: Tensor, iterations: int) -> Tensor:
        """Return the agreement ``(P,)`` of each pair after the given iterations."""
        found = []
        for start in range(0, len(self.queries), PAIRS_PER_BLOCK):
            part = slice(start, start + PAIRS_PER_BLOCK)
            mine = moving[self.queries[part]]
            mine = self.signs[part].reshape(-1, *[1] * (mine.ndim - 1)) * mine
            found.append(register(mine, fixed[self.images[part]], self.starts[part], iterations).score)
        return torch.cat(found)


def _best(similarity: Tensor) -> Tensor:
    """Positions ``(Q, candidates)`` of the most similar images."""
    return similarity.topk(min(CANDIDATES, similarity.shape[1]), dim=1).indices


@dataclass(frozen=True)
class _Variant:
    """A variant of the thumbnails: a transform ``(1, d+1, d+1)``, and sign -1 for inverted grey values."""

    matrix: Tensor
    sign: float = 1.0


def _variants(spatial: tuple[int, ...], *, mirror: bool, still: bool = False) -> Iterator[_Variant]:
    """Transforms to compare; with ``still``, shifts and mirror images only."""
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


def _rescaled(matrix: Tensor, ratios: Tensor) -> Tensor:
    """The same transform on a grid with more pixels along each axis by the given ratios, x first."""
    grow = torch.cat([ratios, torch.ones(1)])
    return grow.unsqueeze(1) * matrix / grow
