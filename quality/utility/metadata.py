"""The metadata baseline: predictions from age, sex, view and other attributes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array
from medphantom.quality.data.targets import present_class

ITERATIONS = 2000


def metadata_table(cohort: Cohort, rows: Sequence[int]) -> Array:
    """Attributes of rows as numbers: continuous values with an indicator of missing ones, and one-hot categories.

    Returns:
        float64 ``(n, columns)``; no column when the cohort has no attributes.
    """
    columns: list[Array] = []
    for spec in cohort.schema.attributes:
        observed = cohort.attribute(spec.name, rows)
        if spec.kind == "categorical":
            columns += [np.array([value == category for value in observed], float) for category in spec.categories]
        else:
            known = np.array([np.nan if value is None else float(value) for value in observed])
            middle = 0.0 if spec.low is None or spec.high is None else (spec.low + spec.high) / 2
            columns += [np.nan_to_num(known, nan=middle), np.isnan(known).astype(float)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))


def metadata_predictions(train: Array, values_NT: Array, test: Array, *, exclusive: bool) -> Array | None:
    """Probabilities of a logistic regression on metadata alone; ``None`` if there are no metadata.

    Args:
        train: metadata of training images, from :func:`metadata_table`.
        values_NT: labels of the training images.
        test: metadata of test images.
        exclusive: whether exactly one label is present per image.

    Returns:
        float64 ``(n, T)``; labels that cannot be learned are 0.5 throughout.
    """
    if not train.shape[1]:
        return None
    predictions = np.full((len(test), values_NT.shape[1]), 0.5)
    if exclusive:
        classes = present_class(values_NT)
        if len(np.unique(classes[classes >= 0])) > 1:
            model = _logistic().fit(train[classes >= 0], classes[classes >= 0])
            predictions[:] = 0.0
            predictions[:, model.classes_] = model.predict_proba(test)
        return predictions
    for number in range(values_NT.shape[1]):
        observed = values_NT[:, number] >= 0
        if len(np.unique(values_NT[observed, number])) > 1:
            model = _logistic().fit(train[observed], values_NT[observed, number])
            predictions[:, number] = model.predict_proba(test)[:, 1]
    return predictions


def _logistic() -> LogisticRegression:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
