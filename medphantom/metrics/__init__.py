"""The scores of a report as ``torchmetrics`` metrics: the same functions, fed batch by batch, synced between processes.

Each takes features, or images and a ``feature_extractor``. A score that the number of images cannot support is refused
with :class:`~medphantom.core.errors.UnsupportedClaim`, which names the metric to use instead.
"""

from medphantom.metrics.distances import FrechetDistance, KernelDistance
from medphantom.metrics.diversity import MSSSIMDiversity, VendiScore
from medphantom.metrics.manifold import PRDC, Coverage, Density, Precision, Recall
from medphantom.metrics.neighbours import DcrShare, NearestNeighbourSimilarity

__all__ = [
    "PRDC",
    "Coverage",
    "DcrShare",
    "Density",
    "FrechetDistance",
    "KernelDistance",
    "MSSSIMDiversity",
    "NearestNeighbourSimilarity",
    "Precision",
    "Recall",
    "VendiScore",
]
