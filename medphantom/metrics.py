"""The scores of a report as ``torchmetrics`` metrics: the same functions, fed batch by batch, synced between processes.

Each takes features, or images and a ``feature_extractor``. A score that the number of images cannot support is refused
with :class:`~medphantom.core.errors.UnsupportedClaim`, which names the metric to use instead.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from medphantom.cohorts.preprocess import Preprocess
from medphantom.conditioning.prompt import nearest
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.config import CopyConfig
from medphantom.quality.fidelity.diversity import diversity
from medphantom.quality.fidelity.dominance import dominance_refusal
from medphantom.quality.fidelity.frechet import SMALLEST_N, frechet_distance, frechet_interval, frechet_refusal
from medphantom.quality.fidelity.half_samples import Standardised
from medphantom.quality.fidelity.kernel import KernelDistance as KernelValue
from medphantom.quality.fidelity.kernel import kernel_distance, kernel_interval, kernel_refusal
from medphantom.quality.fidelity.manifold import (
    DENSITY_COVERAGE_K,
    PRECISION_RECALL_K,
    ManifoldScores,
    manifold_scores,
)
from medphantom.quality.fidelity.vendi import vendi_score
from medphantom.quality.networks.features import FeatureNetwork
from medphantom.quality.privacy.dcr_share import SMALLEST_HOLDOUT, Subsets, draw_subsets, share_in_train
from medphantom.quality.privacy.dcr_share import DcrShare as ShareAndChance
from medphantom.quality.privacy.neighbours import FeatureMatcher, NeighbourSimilarity
from medphantom.quality.stats.estimate import Estimate, Interval
from medphantom.quality.stats.influence import by_owner, variance_of

if TYPE_CHECKING:
    from medphantom.generation import GeneratedImages

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

Images: TypeAlias = "Tensor | Array | Sequence[Array] | GeneratedImages"
Extractor = str | FeatureNetwork | Callable[[Tensor], Any]
Split = Literal["train", "holdout", "synthetic"]

FIXED = ("filters", "volume_filters", "radiomics", "inception")
NAME_BYTES = 64
MOST_AXES = 5  # of a batch of volumes
TYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
ROUNDING = 1e-3  # that far beyond -1…1 an image may lie
INSTEAD_OF_FRECHET = "use KernelDistance, which is unbiased at every n"
INSTEAD_OF_NEIGHBOURS = "use KernelDistance, which needs fewer images"


class _ImageMetric(Metric):
    """Sides of images, each with what is kept of them and with their patients, in states that are concatenated."""

    is_differentiable = False
    full_state_update = False
    sides: tuple[str, ...] = ("real", "synthetic")

    def __init__(
        self, preprocess: Preprocess | None = None, *, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**{"dist_sync_fn": _gathered, **kwargs})
        self.preprocess, self.reset_real_features = preprocess, reset_real_features
        for side in self.sides:
            self.add_state(f"{side}_kept", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_patients", [], dist_reduce_fx="cat")

    def update(self, images: Images, real: bool, patients: Sequence[str] | None = None) -> None:
        """Take images, or features where there is no ``feature_extractor``.

        Args:
            images: features ``(N, d)``; or images as networks take them, float ``(N, C, *spatial)`` in -1…1 or uint8
                in 0…255; or, where the metric has a ``preprocess``, source values: an array ``(N, *spatial)`` or
                ``(N, *spatial, 3)``, or a sequence of arrays, bright values large; or what a generator returned.
            real: whether they are real ones.
            patients: patient of each image; by default each is its own.

        Raises:
            InputError: another shape, values out of range, not as many patients as images.
        """
        self._take(images, "real" if real else "synthetic", patients)

    def reset(self) -> None:
        """Forget all images; real ones are kept where ``reset_real_features`` is false."""
        kept = {} if self.reset_real_features else {name: list(getattr(self, name)) for name in self._real_states()}
        super().reset()
        for name, state in kept.items():
            setattr(self, name, state)

    def _real_states(self) -> list[str]:
        return [f"{side}_{what}" for side in self.sides if side != "synthetic" for what in ("kept", "patients")]

    @abstractmethod
    def _kept(self, images: Images) -> Tensor:
        """What is kept of images, one row each."""

    def _take(self, images: Images, side: str, patients: Sequence[str] | None) -> None:
        kept = self._kept(images).detach().clone()  # the caller may fill the same array again
        names = [""] * len(kept) if patients is None else [str(name) for name in patients]
        if len(names) != len(kept):
            raise InputError(f"{len(names)} patients were given for {len(kept)} images", "give one for each")
        getattr(self, f"{side}_kept").append(kept)
        getattr(self, f"{side}_patients").append(_as_bytes(names).to(kept.device))

    def _table(self, side: str) -> Array:
        """All that was kept of a side, one row per image."""
        state = getattr(self, f"{side}_kept")
        if not len(state):
            raise UnsupportedClaim(f"no {side} image was given", "update the metric with some first")
        kept = dim_zero_cat(state).cpu()
        found: Array = (kept.float() if kept.dtype in {torch.float16, torch.bfloat16} else kept).numpy()
        return found

    def _owners(self, side: str) -> list[str] | None:
        """Patient of each image of a side; ``None``: each its own."""
        codes = dim_zero_cat(getattr(self, f"{side}_patients")).cpu().numpy()
        return _as_names(codes) if codes.any() else None

    def _names(self, side: str) -> list[str]:
        """The same, where names are needed."""
        return self._owners(side) or [str(place) for place in range(len(self._table(side)))]

    def _value(self, value: float | Array) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self.device)

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """The states of all processes, as in ``compute``."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            yield

    def _network_images(self, images: Images) -> Tensor:
        """Images as networks take them, float32 ``(N, C, *spatial)`` in -1…1."""
        generated = getattr(images, "network", None)
        if generated is not None:
            return torch.from_numpy(generated)
        if self.preprocess is not None:
            return torch.from_numpy(_seen(self.preprocess, images))
        given = torch.as_tensor(_array(images))
        if given.ndim not in {4, 5}:
            raise InputError(
                f"images must have shape (N, C, *spatial), got {tuple(given.shape)}",
                "or give the metric preprocess=generator.preprocess, and source values",
            )
        if given.dtype == torch.uint8:
            return given.float() / 127.5 - 1
        if not given.is_floating_point() or not bool((given.abs() <= 1 + ROUNDING).all()):
            raise InputError(
                "images must be uint8, or floats in -1…1",
                "scale them, or give the metric preprocess=generator.preprocess",
            )
        return given.float()


class _FeatureMetric(_ImageMetric):
    """A metric of features.

    Args:
        feature_extractor: ``None``: features are given; a module or function of images that returns ``(N, d)``; or the
            name of a network: ``filters``, ``volume_filters``, ``radiomics``, ``inception``, or the folder or hub id of
            a transformers image encoder.
        preprocess: brings source values to what the network takes.
        reference: for ``radiomics``: at least 20 real images, scored by nothing, that the features are scaled by.
        reset_real_features: whether ``reset`` also forgets the real images.
        kwargs: as of :class:`torchmetrics.Metric`.

    Raises:
        InputError: no such network.
        UnsupportedClaim: too few images of reference.
    """

    def __init__(
        self,
        feature_extractor: Extractor | None = None,
        *,
        preprocess: Preprocess | None = None,
        reference: Images | None = None,
        reset_real_features: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(preprocess, reset_real_features=reset_real_features, **kwargs)
        if (feature_extractor == "radiomics") != (reference is not None):
            raise InputError("radiomics, and no other network, needs a reference", "reference=… real training images")
        self.feature_extractor: Any = feature_extractor
        if isinstance(feature_extractor, str):
            self.feature_extractor = self._named(feature_extractor, reference)

    def _named(self, name: str, reference: Images | None) -> FeatureNetwork:
        """A network of ours, or an encoder of others."""
        from medphantom.quality.networks import fixed_networks

        if name == "filters":
            run = fixed_networks.filter_bank(0, "auto")
        elif name == "volume_filters":
            run = fixed_networks.volume_filters(0, 3, "auto")
        elif reference is not None:
            run = fixed_networks.radiomics(self._network_images(reference).cpu().numpy(), 0)
        elif name == "inception" or "/" in name or Path(name).is_dir():
            run = fixed_networks.encoder(name, 0, "auto")
        else:
            raise InputError(f"there is no feature network {name!r}", nearest(name, FIXED))
        return run.folds[0].network

    def _kept(self, images: Images) -> Tensor:
        extractor = self.feature_extractor
        if extractor is None:
            features = torch.as_tensor(_array(images), device=self.device)
        elif hasattr(extractor, "features") and not isinstance(extractor, nn.Module):
            seen = self._network_images(images).cpu().numpy()
            features = torch.from_numpy(extractor.features(np.ascontiguousarray(seen))).to(self.device)
        else:
            ready = hasattr(images, "network") or self.preprocess is not None
            seen_N = self._network_images(images) if ready else torch.as_tensor(_array(images))
            with torch.no_grad():
                features = torch.as_tensor(extractor(seen_N.to(self.device)))
            if len(features) != len(seen_N):
                raise InputError(f"the feature extractor gave {len(features)} rows for {len(seen_N)} images")
        if features.ndim != 2 or not features.is_floating_point():
            raise InputError(
                f"features must be floats of shape (N, d), got {features.dtype} {tuple(features.shape)}",
                "give the metric a feature_extractor for images, e.g. 'filters'",
            )
        if not bool(torch.isfinite(features).all()):
            raise InputError("features are not finite", "look at the images and at the feature extractor")
        return features

    def _pair(self) -> tuple[Array, Array]:
        """Features of synthetic and of real images.

        Raises:
            UnsupportedClaim: a side is empty, or a few real images dominate the features.
            InputError: the sides have not as many features.
        """
        synthetic, real = self._table("synthetic"), self._table("real")
        if synthetic.shape[1] != real.shape[1]:
            raise InputError(f"real images have {real.shape[1]} features, synthetic ones {synthetic.shape[1]}")
        if why := dominance_refusal(real):
            raise UnsupportedClaim(why)
        return synthetic, real


class FrechetDistance(_FeatureMetric):
    """Squared Fréchet distance of the Gaussians that fit real and synthetic features (Heusel et al. 2017); lower better.

    Biased upwards by about ``trace(covariance) / n``: compare only values at equal n. With ``inception`` it is the FID.
    Refused below 2 images per feature, or 50, on either side.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> distance = mp.metrics.FrechetDistance()
        >>> distance.update(rng.normal(0, 1, (4000, 4)), real=True)
        >>> distance.update(rng.normal(1, 1, (4000, 4)), real=False)        # each of 4 means is 1 off
        >>> abs(float(distance.compute()) - 4) < 0.4
        True
        >>> few = mp.metrics.FrechetDistance()
        >>> for real in (True, False):
        ...     few.update(rng.normal(0, 1, (60, 64)), real=real)
        >>> few.compute()
        Traceback (most recent call last):
        medphantom.core.errors.UnsupportedClaim: 60 images cannot support a covariance of 64 features (≥ 128); \
use KernelDistance, which is unbiased at every n
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """The squared distance, ≥ 0 but for rounding, float64 scalar.

        Raises:
            UnsupportedClaim: too few images for so many features.
        """
        return self._value(frechet_distance(*self._supported()))

    def interval(self, *, seed: int = 0) -> tuple[float, Interval | None]:
        """The distance, and a 95 % interval of its expectation at this n that knows of patients.

        Args:
            seed: of the halves by which the part of second order is estimated.

        Raises:
            UnsupportedClaim: too few images for so many features.
        """
        with self._synced():
            rng = np.random.default_rng(derive_seed(seed, "halves"))
            return frechet_interval(*self._supported(), self._names("synthetic"), self._names("real"), rng=rng)

    def _supported(self) -> tuple[Array, Array]:
        synthetic, real = self._pair()
        if why := frechet_refusal(min(len(synthetic), len(real)), real.shape[1]):
            raise UnsupportedClaim(why.partition(":")[0], INSTEAD_OF_FRECHET)
        return synthetic, real


class KernelDistance(_FeatureMetric):
    """Squared maximum mean discrepancy with the kernel ``(x·y/d + 1)³`` (Bińkowski et al. 2018); lower is better.

    Unbiased at every n, so single values may be negative; with ``inception`` it is the KID of all images at once. Images
    of one patient are never compared with each other. Refused below 25 images a side.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> distance = mp.metrics.KernelDistance()
        >>> distance.update(rng.normal(0, 1, (60, 8)), real=True, patients=[f"p{i // 2}" for i in range(60)])
        >>> distance.update(rng.normal(0, 1, (60, 8)), real=False)
        >>> value, (low, high) = distance.interval()
        >>> value == float(distance.compute()), low < 0 < high
        (True, True)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """The squared distance, float64 scalar.

        Raises:
            UnsupportedClaim: too few images or patients.
        """
        return self._value(self._distance().value)

    def interval(self) -> tuple[float, Interval]:
        """The distance and its 95 % interval, with patients as units.

        Raises:
            UnsupportedClaim: too few images or patients.
        """
        with self._synced():
            found = self._distance()
            sides = by_owner(found.first, self._names("synthetic")), by_owner(found.second, self._names("real"))
        return found.value, kernel_interval(found.value, variance_of(*sides), found.quadratic)

    def _distance(self) -> KernelValue:
        synthetic, real = self._pair()
        if why := kernel_refusal(min(len(synthetic), len(real))):
            raise UnsupportedClaim(why.partition(";")[0], "inspect the images and the label agreement instead")
        return kernel_distance(synthetic, real, self._owners("synthetic"), self._owners("real"))


class PRDC(_FeatureMetric):
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), as a dictionary.

    Compare them with what real images reach against other real images of other patients. Precision and recall presume
    as many real as synthetic images. Refused below 50 images a side.

    Args:
        feature_extractor: as of :class:`FrechetDistance`.
        k: neighbours for precision and recall.
        k_density: neighbours for density and coverage.
        kwargs: as of :class:`FrechetDistance`.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> rng = np.random.default_rng(0)
        >>> scores = mp.metrics.PRDC()
        >>> scores.update(rng.normal(0, 1, (200, 4)), real=True)
        >>> scores.update(rng.normal(9, 1, (200, 4)), real=False)      # far from all of them
        >>> {name: float(value) for name, value in scores.compute().items()}
        {'precision': 0.0, 'recall': 0.0, 'density': 0.0, 'coverage': 0.0}
    """

    higher_is_better = True

    def __init__(
        self,
        feature_extractor: Extractor | None = None,
        *,
        k: int = PRECISION_RECALL_K,
        k_density: int = DENSITY_COVERAGE_K,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_extractor, **kwargs)
        self.k, self.k_density = k, k_density

    def compute(self) -> Any:
        """Name → float64 scalar: shares in 0…1, density from 0 on and about 1 for a perfect generator.

        Raises:
            UnsupportedClaim: too few images for neighbourhoods.
        """
        return {name: self._value(value) for name, value in self._scores()._asdict().items()}

    def _scores(self) -> ManifoldScores:
        synthetic, real = self._pair()
        _enough_for_neighbourhoods(min(len(synthetic), len(real)))
        return manifold_scores(real, synthetic, k=self.k, k_density=self.k_density)


class _OneOfPRDC(PRDC):
    """One of the four alone."""

    def compute(self) -> Any:
        """The score, float64 scalar; several of them at once are cheaper by :class:`PRDC`.

        Raises:
            UnsupportedClaim: too few images for neighbourhoods.
        """
        return self._value(getattr(self._scores(), type(self).__name__.lower()))


class Precision(_OneOfPRDC):
    """Share of synthetic images within the real ones' neighbourhoods, 0…1 (Kynkäänniemi et al. 2019, equation 3)."""


class Recall(_OneOfPRDC):
    """Share of real images within the synthetic ones' neighbourhoods, 0…1 (Kynkäänniemi et al. 2019, equation 3)."""


class Density(_OneOfPRDC):
    """Real neighbourhoods per synthetic image, over k, from 0 on (Naeem et al. 2020, section 4.1)."""


class Coverage(_OneOfPRDC):
    """Share of real images with a synthetic one in their neighbourhood, 0…1 (Naeem et al. 2020, section 4.1)."""


class VendiScore(_FeatureMetric):
    """How many different images the synthetic ones amount to, by cosine of features (Friedman and Dieng 2023).

    1 when all are the same, at most the number of features. It grows with n: compare only values at equal n. Where real
    images were given, features are put where those have mean 0 and deviation 1 first, as a report does. Refused below
    50 synthetic images.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> score = mp.metrics.VendiScore()
        >>> score.update(np.repeat(np.eye(3), 20, axis=0), real=False)         # three kinds of image
        >>> round(float(score.compute()), 6)
        3.0
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """The score, 1…d, float64 scalar.

        Raises:
            UnsupportedClaim: too few images, or a few real images dominate the features.
        """
        if not len(self.real_kept):
            synthetic = self._table("synthetic")
            _enough_for_neighbourhoods(len(synthetic))
            return self._value(vendi_score(synthetic))
        synthetic, real = self._pair()
        _enough_for_neighbourhoods(min(len(synthetic), len(real)))
        return self._value(vendi_score(Standardised.by(real, synthetic)))


class MSSSIMDiversity(_ImageMetric):
    """Mean MS-SSIM of random pairs of synthetic images, 0…1: near what real images of different patients reach.

    Images, not features, are given, all of one size of at least 11 pixels a side; MS-SSIM of fewer scales is another
    measure, so compare only values at equal size. Refused below 10 pairs of independent images on either side.

    Args:
        preprocess: brings source values to -1…1; ``None``: the images are in -1…1 already, or uint8.
        pairs: most pairs on either side.
        seed: of the draw.
        kwargs: as of :class:`torchmetrics.Metric`.

    Example:
        >>> import numpy as np, medphantom as mp
        >>> noise = np.random.default_rng(0).uniform(-1, 1, (40, 1, 16, 16)).astype("float32")
        >>> score = mp.metrics.MSSSIMDiversity()
        >>> score.update(noise, real=True)
        >>> score.update(np.repeat(noise[:1], 20, axis=0), real=False)         # the same image twenty times
        >>> round(float(score.compute()), 3), score.estimate().floor < 0.2
        (1.0, True)
    """

    higher_is_better = None

    def __init__(
        self, preprocess: Preprocess | None = None, *, pairs: int = 200, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(preprocess, **kwargs)
        self.pairs, self.seed = pairs, seed

    def compute(self) -> Tensor:
        """The mean over synthetic pairs, float64 scalar.

        Raises:
            UnsupportedClaim: too few pairs, or images too small for the window of SSIM.
        """
        found = self._estimate()
        if found.value is None:
            raise UnsupportedClaim((found.refused or "").partition(";")[0], "use Recall and Coverage instead")
        return self._value(found.value)

    def estimate(self) -> Estimate:
        """The score with its interval, and its floor: that of pairs of real images of different patients."""
        with self._synced():
            return self._estimate()

    def _estimate(self) -> Estimate:
        rng = np.random.default_rng(derive_seed(self.seed, "pairs"))
        synthetic, real = self._table("synthetic"), self._table("real")
        return diversity(synthetic, real, np.asarray(self._names("real")), pairs=self.pairs, rng=rng)

    def _kept(self, images: Images) -> Tensor:
        return self._network_images(images).to(self.device)


class _NeighbourMetric(_FeatureMetric):
    """Similarity of synthetic images to those that a generator learned from, and to those that it never saw.

    Args:
        feature_extractor: as of :class:`FrechetDistance`; it must not have learned from either side.
        repeats: subsets of training patients, as many images as holdout has.
        seed: of the subsets.
        kwargs: as of :class:`FrechetDistance`.
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
        """Take images, or features where there is no ``feature_extractor``.

        Args:
            images: as of :meth:`FrechetDistance.update`.
            split: ``train``: the generator learned from them; ``holdout``: real patients whom nothing learned from;
                ``synthetic``.
            patients: patient of each image; by default each is its own.

        Raises:
            InputError: no such split, another shape, not as many patients as images.
        """
        if split not in self.sides:
            raise InputError(f"there is no side {split!r}", nearest(str(split), self.sides))
        self._take(images, split, patients)

    def similarity(self) -> NeighbourSimilarity:
        """The most similar real images of each synthetic image, on either side.

        Raises:
            UnsupportedClaim: too few training or holdout images.
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


class DcrShare(_NeighbourMetric):
    """DCR share: share of synthetic images whose nearest real neighbour is a training, not a holdout image.

    At equal counts on either side, by cosine of standardised features: one half where the generator learned nothing of
    single patients, more where it memorised some. Refused below 40 training or 20 holdout images.

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
        """The share, 0…1, float64 scalar.

        Raises:
            UnsupportedClaim: too few training or holdout images.
        """
        return self._value(_known(self._share().share.value))

    def share(self) -> ShareAndChance:
        """The share with its interval, and the p value of one at least as large, were one half true."""
        with self._synced():
            return self._share()

    def _share(self) -> ShareAndChance:
        found, subsets = self._similarity()
        return share_in_train(found.wins, found.pseudo_wins, size=subsets.size, what="by cosine of features")


class NearestNeighbourSimilarity(_NeighbourMetric):
    """Similarity of each synthetic image to its nearest training image: Fisher's z of the cosine of features.

    ``similarity()`` gives the same for holdout, and which image it is. How similar is too similar, only the holdout
    images can say: this is no verdict. Refused below 40 training or 20 holdout images.

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
        """One number per synthetic image, float64 ``(n,)``, the larger the more similar.

        Raises:
            UnsupportedClaim: too few training or holdout images.
        """
        return self._value(self._similarity()[0].train_score)


def _known(value: float | None) -> float:
    if value is None:
        raise UnsupportedClaim("the share is not known", "give more images")
    return value


def _enough_for_neighbourhoods(total_images: int) -> None:
    if total_images < SMALLEST_N:
        raise UnsupportedClaim(
            f"{total_images} images are too few for neighbourhoods (≥ {SMALLEST_N})", INSTEAD_OF_NEIGHBOURS
        )


def _array(images: Images) -> Any:
    """A tensor as it is, anything else as one array."""
    return images if isinstance(images, Tensor) else np.asarray(images)


def _seen(preprocess: Preprocess, images: Any) -> Array:
    """Network input of source values."""
    dims = len(preprocess.size)
    arrays = [np.asarray(image) for image in images]
    colour = [array.ndim == dims + 1 and array.shape[-1] == 3 for array in arrays]
    made = [preprocess.apply(array, 3 if rgb else 1) for array, rgb in zip(arrays, colour, strict=True)]
    return np.stack(made) if made else np.zeros((0, preprocess.channels, *preprocess.size), np.float32)


def _gathered(state: Tensor, group: Any = None) -> list[Tensor]:
    """A state of every process; one that was given nothing knows neither width nor type, and learns them here."""
    facts = torch.zeros(2 + MOST_AXES, dtype=torch.int64, device=state.device)
    facts[: 2 + state.ndim] = torch.tensor([TYPES.index(state.dtype), state.ndim, *state.shape])
    everywhere = [torch.zeros_like(facts) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everywhere, facts, group=group)
    filled = [one for one in torch.stack(everywhere).tolist() if one[2]]
    if filled:
        state = state.to(TYPES[max(kind for kind, *_ in filled)])
        if not len(state):
            _, axes, _, *rest = filled[0]
            state = state.new_zeros((0, *rest[: axes - 1]))
    found: list[Tensor] = gather_all_tensors(state, group)
    return found


def _as_bytes(names: Sequence[str]) -> Tensor:
    """Names as rows of equally many bytes, which processes can exchange: uint8 ``(N, 64)``, in the order of the names.

    Of a longer name its SHA-256 stands there; no name: zeros.
    """
    rows = np.zeros((len(names), NAME_BYTES), dtype=np.uint8)
    for row, name in zip(rows, names, strict=True):
        code = name.encode()
        if len(code) > NAME_BYTES:
            code = hashlib.sha256(code).hexdigest().encode()
        row[: len(code)] = np.frombuffer(code, dtype=np.uint8)
    return torch.from_numpy(rows)


def _as_names(rows: Array) -> list[str]:
    """The names again; images without one are each their own patient."""
    codes = [row.tobytes().rstrip(b"\0") for row in rows]
    return [code.decode() if code else f"\x01{place}" for place, code in enumerate(codes)]
