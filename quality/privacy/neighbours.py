"""Nearest-neighbour similarity to training and holdout images, and its computation by network features."""

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
    """The most similar real images of each query ``(Q,)``; scores are Fisher's z of correlations or cosines.

    Attributes:
        train: position of the most similar training image.
        train_score: similarity to that training image.
        holdout: position of the most similar holdout image.
        holdout_score: similarity to that holdout image.
        block_score: similarity to the nearest image of a block of training images as large as the holdout.
        wins: whether each query is closer to train than to the holdout, ``(Q, R)`` per training subset; by thumbnails
            if images are registered.
        pseudo_wins: the same comparison with pseudo-holdouts of training patients, ``(Q, P)``.
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
        """Similarity of each query to train minus its similarity to the holdout."""
        found: Array = self.train_score - self.holdout_score
        return found

    @classmethod
    def joined(cls, parts: Sequence[NeighbourSimilarity]) -> NeighbourSimilarity:
        """All queries of several parts, in order."""
        return cls(**{field.name: np.concatenate([getattr(p, field.name) for p in parts]) for field in fields(cls)})

    def of(self, rows: Array) -> NeighbourSimilarity:
        """The results of the given rows."""
        return NeighbourSimilarity(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class FeatureMatcher:
    """Finds the most similar real images of any images by the cosine similarity of standardised features.

    Args:
        train_ND: float32 features of the training images; may be memory-mapped.
        holdout_MD: features of the holdout images, as many as ``subsets`` has per side.
        subsets: subsets of both sides.
    """

    def __init__(self, train_ND: Array, holdout_MD: Array, subsets: Subsets) -> None:
        self.subsets = subsets
        self.center, self.scale = _moments(train_ND, holdout_MD)
        self.sides = [(part, self._norms(part)) for part in (train_ND, holdout_MD)]

    def find(self, queries_QD: Array) -> NeighbourSimilarity:
        """The most similar real images of each query, computed in blocks."""
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
        """Cosine similarities to standardised features, computed from products with the features as they are stored."""
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
    """The features as a tensor, copied only if the array is read-only."""
    plain = np.asarray(features_ND, np.float32)
    return torch.from_numpy(plain if plain.flags.writeable else plain.copy())


def fisher(correlation: Array) -> Array:
    """Fisher's z transform of correlations."""
    found: Array = np.arctanh(np.clip(correlation, -LARGEST, LARGEST))
    return found


def _moments(*parts: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the features of all parts together, float32 ``(D,)`` each."""
    total = sum(len(part) for part in parts)
    chunks = [chunk for part in parts for chunk in _chunks(part)]
    center = sum(np.sum(chunk, axis=0, dtype=np.float64) for chunk in chunks) / total
    squares = sum(np.sum(np.square(chunk - center), axis=0) for chunk in chunks) / total
    return np.asarray(center, np.float32), np.asarray(np.sqrt(squares) + 1e-9, np.float32)
