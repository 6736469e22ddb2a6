"""The Vendi score: the effective number of distinct images in a set."""

from __future__ import annotations

import numpy as np

from medphantom.core.records import Array
from medphantom.quality.fidelity.table import Table, blocks


def vendi_score(features_ND: Table) -> float:
    """The Vendi score with cosine similarity.

    It is the exponential of the entropy of the eigenvalues of ``K / n`` (Friedman and Dieng 2023, definition 3.1), here
    of the d x d matrix with the same eigenvalues: 1 if all images are equal, at most d. It grows with n, so only values
    at equal n are comparable.

    Args:
        features_ND: features, one row per image; rows of zeros are kept as they are.
    """
    total, size = features_ND.shape
    second = np.zeros((size, size))
    for _, block in blocks(features_ND):
        unit = _unit(block)
        second += unit.T @ unit
    values = np.linalg.eigvalsh(second / total)
    known = values[values > 0]
    return float(np.exp(-(known * np.log(known)).sum()))


def _unit(features: Array) -> Array:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    found: Array = features / np.where(length > 0, length, 1.0)
    return found
