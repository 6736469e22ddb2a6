"""Similarity of synthetic images to training and to holdout images: the DCR share and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from medphantom.conditioning.prompt import nearest
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.randomness import derive_seed
from medphantom.metrics.base import Extractor, FeatureMetric, Images
from medphantom.quality.config import CopyConfig
from medphantom.quality.privacy.dcr_share import SMALLEST_HOLDOUT, Subsets, draw_subsets, share_in_train
from medphantom.quality.privacy.dcr_share import DcrShare as ShareAndPValue
from medphantom.quality.privacy.neighbours import FeatureMatcher, NeighbourSimilarity

Split = Literal["train", "holdout", "synthetic"]


class NeighbourMetric(FeatureMetric):
    """Similarity of synthetic images to a generator's training images, and to holdout images that it never saw.

    Args:
        feature_extractor: The same as for :class:`FrechetDistance`; it must not be trained on images of either side.
        repeats: The number of subsets of training patients, each with as many images as the holdout.
        seed: The seed of the random subsets.
        kwargs: The same as for :class:`FrechetDistance`.
    """

    sides = ("train", "holdout", "synthetic")

    def __init__(
        self,
        feature_extractor: Extractor | None = None,
        *,
        repeats: int = CopyConfig().repeats,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_extractor, **kwargs)
        self.repeats, self.seed = repeats, seed

    def update(  # type: ignore[override]  # three sides, not two
        self, images: Images, split: Split, patients: Sequence[str] | None = None
    ) -> None:
        """Add images, or features if the metric has no ``feature_extractor``.

        Args:
            images: The same as for :meth:`FrechetDistance.update`.
            split: ``train`` for the generator's training images, ``holdout`` for real patients that nothing was trained
                on, or ``synthetic``.
            patients: The patient of each image; by default each image has a patient of its own.

        Raises:
            InputError: There is no such split, the shape is wrong, or patients and images differ in number.
        """
        if split not in self.sides:
            raise InputError(f"there is no side {split!r}", nearest(str(split), self.sides))
        self._take(images, split, patients)

    def similarity(self) -> NeighbourSimilarity:
        """Return the most similar real images of each synthetic image, on either side.

        Raises:
            UnsupportedClaim: There are too few training or holdout images.
        """
        with self._synced():
            return self._similarity()[0]

    def _similarity(self) -> tuple[NeighbourSimilarity, Subsets]:
        train, holdout, synthetic = (self._table(side) for side in self.sides)
        if len(holdout) < SMALLEST_HOLDOUT or len(train) < 2 * SMALLEST_HOLDOUT:
            raise UnsupportedClaim(
                f"{len(train)} training and {len(holdout)} holdout images are too few (≥ {2 * SMALLEST_HOLDOUT} and "
                f"≥ {SMALLEST_HOLDOUT})",
                "give more of them; KernelDistance needs fewer, but says nothing of copies",
            )
        rng = np.random.default_rng(derive_seed(self.seed, "copies"))
        subsets = draw_subsets(self._names("train"), self._names("holdout"), self.repeats, rng)
        matcher = FeatureMatcher(train, holdout[subsets.holdout], subsets)
        # A blurred set lies beside the real images as a whole: put it where they are, as the copy search does.
        return matcher.find(synthetic + (matcher.center - synthetic.mean(axis=0))), subsets


class DcrShare(NeighbourMetric):
    """DCR share: the share of synthetic images whose nearest real neighbour is a training, not a holdout image.

    Both sides have equal counts, and images are compared by the cosine of standardised features. The share is one half
    if the generator learned nothing of single patients, and more if it memorised some. It is refused below 40 training
    or 20 holdout images.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> train, holdout = rng.normal(size=(120, 16)), rng.normal(size=(60, 16))
        >>> share = mp.metrics.DcrShare()
        >>> share.update(train, split="train")
        >>> share.update(holdout, split="holdout")
        >>> share.update(train + rng.normal(scale=0.01, size=train.shape), split="synthetic")     # copies
        >>> float(share.compute()) > 0.7
        True
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the share in 0…1, a float64 scalar.

        Raises:
            UnsupportedClaim: There are too few training or holdout images.
        """
        return self._value(_known(self._share().share.value))

    def share(self) -> ShareAndPValue:
        """Return the share with its interval, and its one-sided p value under the null hypothesis of one half."""
        with self._synced():
            return self._share()

    def _share(self) -> ShareAndPValue:
        found, subsets = self._similarity()
        return share_in_train(found.wins, found.pseudo_wins, size=subsets.size, what="by cosine of features")


class NearestNeighbourSimilarity(NeighbourMetric):
    """Similarity of each synthetic image to its nearest training image: Fisher's z of the cosine of features.

    ``similarity()`` also gives the similarity to holdout images, and which images are nearest. The score is no verdict:
    only a comparison with the holdout shows which similarity is too large. It is refused below 40 training or 20
    holdout images.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> train, new = rng.normal(size=(60, 16)), rng.normal(size=(30, 16))
        >>> nearest = mp.metrics.NearestNeighbourSimilarity()
        >>> nearest.update(train, split="train")
        >>> nearest.update(rng.normal(size=(30, 16)), split="holdout")
        >>> nearest.update(np.concatenate([train[:1] * 1.001, new]), split="synthetic")           # one copy
        >>> int(nearest.compute().argmax()), nearest.compute().shape
        (0, torch.Size([31]))
    """

    higher_is_better = None

    def compute(self) -> Tensor:
        """Return one number per synthetic image, float64 ``(n,)``; larger is more similar.

        Raises:
            UnsupportedClaim: There are too few training or holdout images.
        """
        return self._value(self._similarity()[0].train_score)


def _known(value: float | None) -> float:
    if value is None:
        raise UnsupportedClaim("the share is not known", "give more images")
    return value
