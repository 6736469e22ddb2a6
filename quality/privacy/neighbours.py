"""How like each image is to its most alike real images, on either side; and the search by features of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from medphantom.core.records import Array
from medphantom.quality.privacy.dcr_share import Subsets, wins_of_train

SIMILARITIES_AT_ONCE = 2**24  # numbers held per block of queries: memory does not grow with the number of real images
REAL_AT_ONCE = 8192
LARGEST = 1 - 1e-6
TINY = 1e-9


@dataclass(frozen=True)
class NeighbourSimilarity:
    """The most alike real images of each query ``(Q,)``; scores are Fisher's z of correlations or cosines.

    Attributes:
        train: position of the most alike training image.
        train_score: how alike it is; the higher the more.
        holdout: position of the most alike holdout image.
        holdout_score: how alike it is.
        block_score: similarity to the most alike image of a block of training images as large as holdout.
        wins: ``(Q, R)`` whether nearer to train than to holdout, per training subset (by thumbnails, where images are
            registered).
        pseudo_wins: ``(Q, P)`` the same for training patients that stand in for holdout.
    """

    train: Array
    train_score: Array
    holdout: Array
    holdout_score: Array
    block_score: Array
    wins: Array
    pseudo_wins: Array

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.train)

    @property
    def contrast(self) -> Array:
        """How much more alike to train than to holdout each query is."""
        found: Array = self.train_score - self.holdout_score
        return found

    @classmethod
    def joined(cls, parts: Sequence[NeighbourSimilarity]) -> NeighbourSimilarity:
        """All queries of several parts, in order."""
        return cls(**{field.name: np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls)})

    def of(self, rows: Array) -> NeighbourSimilarity:
        """Some of the queries."""
        return NeighbourSimilarity(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class FeatureMatcher:
    """Finds the most alike real images of any images by the cosine of their standardised features.

    Args:
        train_ND: float32 features of the training images; may be memory-mapped.
        holdout_MD: features of as many holdout images as ``subsets`` has a side.
        subsets: which of them stand for either side.
    """

    def __init__(self, train_ND: Array, holdout_MD: Array, subsets: Subsets) -> None:
        self.subsets = subsets
        self.center, self.scale = _moments(train_ND, holdout_MD)
        self.sides = [(part, self._norms(part)) for part in (train_ND, holdout_MD)]

    def find(self, queries_QD: Array) -> NeighbourSimilarity:
        """The most alike real images of each query, block by block."""
        step = max(1, SIMILARITIES_AT_ONCE // max(1, *(len(features) for features, _ in self.sides)))
        return NeighbourSimilarity.joined(
            [self._find(queries_QD[at : at + step]) for at in range(0, len(queries_QD), step)]
        )

    def _standard(self, features_ND: Array) -> Array:
        found: Array = (np.asarray(features_ND, np.float32) - self.center) / self.scale
        return found

    def _norms(self, features_ND: Array) -> Array:
        parts = [np.linalg.norm(self._standard(part), axis=1) for part in _chunks(features_ND)]
        return np.maximum(np.concatenate(parts), TINY)

    def _find(self, queries_QD: Array) -> NeighbourSimilarity:
        queries = self._standard(queries_QD)
        queries /= np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), TINY)
        train, holdout = (self._cosines(queries, features, norms) for features, norms in self.sides)
        groups, places = self.subsets.best(train), holdout.argmax(axis=1)
        best, other = train.max(axis=1), holdout.max(axis=1)
        wins, pseudo = wins_of_train(groups, other, self.subsets)
        return NeighbourSimilarity(
            train=train.argmax(axis=1),
            train_score=fisher(best),
            holdout=places,
            holdout_score=fisher(other),
            block_score=fisher(groups[:, self.subsets.train[0]].max(axis=1)),
            wins=wins,
            pseudo_wins=pseudo,
        )

    def _cosines(self, queries_QD: Array, features_ND: Array, norms_N: Array) -> Array:
        """Inner products with standardised features, out of products with the features as they are."""
        scaled = torch.from_numpy(queries_QD / self.scale)
        found = torch.empty(len(queries_QD), len(features_ND))
        start = 0
        for part in _chunks(features_ND):
            torch.matmul(scaled, _tensor(part).T, out=found[:, start : start + len(part)])
            start += len(part)
        offset = scaled @ torch.from_numpy(self.center)
        result: Array = found.sub_(offset.unsqueeze(1)).div_(torch.from_numpy(norms_N)).numpy()
        return result


def _chunks(features_ND: Array) -> Iterator[Array]:
    for start in range(0, len(features_ND), REAL_AT_ONCE):
        yield features_ND[start : start + REAL_AT_ONCE]


def _tensor(features_ND: Array) -> Tensor:
    """Without a copy, where torch may write to it (it does not)."""
    plain = np.asarray(features_ND, np.float32)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())


def fisher(correlation: Array) -> Array:
    """Fisher's z."""
    found: Array = np.arctanh(np.clip(correlation, -LARGEST, LARGEST))
    return found


def _moments(*parts: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the features of all parts together, float32 ``(D,)`` each."""
    total = sum(len(part) for part in parts)
    chunks = [chunk for part in parts for chunk in _chunks(part)]
    center = sum(np.sum(chunk, axis=0, dtype=np.float64) for chunk in chunks) / total
    squares = sum(np.sum(np.square(chunk - center), axis=0) for chunk in chunks) / total
    return np.asarray(center, np.float32), np.asarray(np.sqrt(squares) + 1e-9, np.float32)
