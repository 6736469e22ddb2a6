"""The two bases of the metrics: :class:`ImageMetric`, and :class:`FeatureMetric` for the metrics of features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from medphantom.cohorts.preprocess import Preprocess
from medphantom.conditioning.prompt import nearest
from medphantom.core.errors import InputError, UnsupportedClaim
from medphantom.core.guard import reading
from medphantom.core.records import Array
from medphantom.metrics.distributed import as_bytes, as_names, gathered
from medphantom.quality.fidelity.dominance import dominance_refusal
from medphantom.quality.fidelity.frechet import SMALLEST_N
from medphantom.quality.networks.features import FeatureNetwork

if TYPE_CHECKING:
    from medphantom.generation import GeneratedImages

Images: TypeAlias = "Tensor | Array | Sequence[Array] | GeneratedImages"
Extractor = str | FeatureNetwork | Callable[[Tensor], Any]

FIXED = ("filters", "volume_filters", "radiomics", "inception")
ROUNDING = 1e-3  # that far beyond -1…1 an image may lie
INSTEAD_OF_NEIGHBOURS = "use KernelDistance, which needs fewer images"


class ImageMetric(Metric):
    """A metric of images on several sides; for each side, its features or images and its patients are states."""

    is_differentiable = False
    full_state_update = False
    sides: tuple[str, ...] = ("real", "synthetic")

    def __init__(
        self, preprocess: Preprocess | None = None, *, reset_real_features: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**{"dist_sync_fn": gathered, **kwargs})
        if preprocess is not None and not isinstance(preprocess, Preprocess):
            raise InputError(f"preprocess must be a Preprocess, got {type(preprocess).__name__}", "or leave it out")
        self.preprocess, self.reset_real_features = preprocess, reset_real_features
        for side in self.sides:
            self.add_state(f"{side}_kept", [], dist_reduce_fx="cat")
            self.add_state(f"{side}_patients", [], dist_reduce_fx="cat")

    def update(self, images: Images, real: bool, patients: Sequence[str] | None = None) -> None:
        """Add images, or features if the metric has no ``feature_extractor``.

        Args:
            images: Features ``(N, d)``; or images as networks take them, float ``(N, C, *spatial)`` in -1…1 or uint8
                in 0…255; or, where the metric has a ``preprocess``, source values: an array ``(N, *spatial)`` or
                ``(N, *spatial, 3)``, or a sequence of arrays, bright values large; or what a generator returned.
            real: Whether the images are real.
            patients: The patient of each image; by default each image has a patient of its own.

        Raises:
            InputError: The shape is wrong, values are out of range, or patients and images differ in number.
        """
        if not isinstance(real, bool | np.bool_):
            raise InputError(f"real must be true or false, got {type(real).__name__}", "real=True for real images")
        self._take(images, "real" if real else "synthetic", patients)

    def reset(self) -> None:
        """Remove all images, except the real ones if ``reset_real_features`` is false."""
        kept = {} if self.reset_real_features else {name: list(getattr(self, name)) for name in self._real_states()}
        super().reset()
        for name, state in kept.items():
            setattr(self, name, state)

    def _real_states(self) -> list[str]:
        return [f"{side}_{what}" for side in self.sides if side != "synthetic" for what in ("kept", "patients")]

    @abstractmethod
    def _kept(self, images: Images) -> Tensor:
        """Return what the state keeps of the images, one row per image."""

    def _take(self, images: Images, side: str, patients: Sequence[str] | None) -> None:
        if isinstance(patients, str):
            raise InputError("patients must be a list, got str", "give the patient of each image")
        with reading("images", InputError, "cannot be read as numbers", "give an array, or a list of arrays"):
            kept = self._kept(images).detach().clone()  # the caller may fill the same array again
        names = [""] * len(kept) if patients is None else [str(name) for name in patients]
        if len(names) != len(kept):
            raise InputError(f"{len(names)} patients were given for {len(kept)} images", "give one for each")
        before = next((part for one in self.sides for part in getattr(self, f"{one}_kept")), kept)
        if kept.shape[1:] != before.shape[1:]:
            raise InputError(f"{_shape(kept)} were given after {_shape(before)}", "give images or features of one kind")
        getattr(self, f"{side}_kept").append(kept)
        getattr(self, f"{side}_patients").append(as_bytes(names).to(kept.device))

    def _table(self, side: str) -> Array:
        """Return the state of a side, one row per image."""
        state = getattr(self, f"{side}_kept")
        if not len(state):
            raise UnsupportedClaim(f"no {side} image was given", "update the metric with some first")
        kept = dim_zero_cat(state).cpu()
        found: Array = (kept.float() if kept.dtype in {torch.float16, torch.bfloat16} else kept).numpy()
        return found

    def _owners(self, side: str) -> list[str] | None:
        """Return the patient of each image of a side, or ``None`` if no patients were given."""
        codes = dim_zero_cat(getattr(self, f"{side}_patients")).cpu().numpy()
        return as_names(codes) if codes.any() else None

    def _names(self, side: str) -> list[str]:
        """Return the patient of each image of a side; without patients, the position of each image."""
        return self._owners(side) or [str(place) for place in range(len(self._table(side)))]

    def _value(self, value: float | Array) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self.device)

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """Hold the states of all processes, as in ``compute``."""
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            yield

    def _network_images(self, images: Images) -> Tensor:
        """Return the images as networks take them, float32 ``(N, C, *spatial)`` in -1…1."""
        generated = getattr(images, "network", None)
        if generated is not None:
            return torch.from_numpy(generated)
        if self.preprocess is not None:
            return torch.from_numpy(_seen(self.preprocess, images))
        given = torch.as_tensor(as_array(images))
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


class FeatureMetric(ImageMetric):
    """A metric of features.

    Args:
        feature_extractor: ``None`` if features are given; or a module or function that takes images and returns
            ``(N, d)``; or the name of a network: ``filters``, ``volume_filters``, ``radiomics``, ``inception``, or the
            folder or hub id of a transformers image encoder.
        preprocess: The preprocessing that converts source values to network input.
        reference: For ``radiomics``, at least 20 real images that scale the features and take part in no score.
        reset_real_features: Whether ``reset`` also removes the real images.
        kwargs: The arguments of :class:`torchmetrics.Metric`.

    Raises:
        InputError: There is no such network.
        UnsupportedClaim: There are too few reference images.
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
        network = feature_extractor is None or callable(feature_extractor) or hasattr(feature_extractor, "features")
        if not network and not isinstance(feature_extractor, str):
            raise InputError(
                f"feature_extractor must be a function, a module or a name, got {type(feature_extractor).__name__}",
                "or leave it out, and give features",
            )
        self.feature_extractor: Any = feature_extractor
        if isinstance(feature_extractor, str):
            self.feature_extractor = self._named(feature_extractor, reference)

    def _named(self, name: str, reference: Images | None) -> FeatureNetwork:
        """Return a feature network of this package, or a pretrained encoder."""
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
            features = torch.as_tensor(as_array(images), device=self.device)
        elif hasattr(extractor, "features") and not isinstance(extractor, nn.Module):
            seen = self._network_images(images).cpu().numpy()
            features = torch.from_numpy(extractor.features(np.ascontiguousarray(seen))).to(self.device)
        else:
            ready = hasattr(images, "network") or self.preprocess is not None
            seen_N = self._network_images(images) if ready else torch.as_tensor(as_array(images))
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
        """Return the features of synthetic and of real images.

        Raises:
            UnsupportedClaim: A side is empty, or a few real images dominate the features.
            InputError: The sides differ in the number of features.
        """
        synthetic, real = self._table("synthetic"), self._table("real")
        if synthetic.shape[1] != real.shape[1]:
            raise InputError(f"real images have {real.shape[1]} features, synthetic ones {synthetic.shape[1]}")
        if why := dominance_refusal(real):
            raise UnsupportedClaim(why)
        return synthetic, real


def _shape(kept: Tensor) -> str:
    """Return what the rows of a state are, in words."""
    shape = kept.shape[1:]
    return f"rows of {shape[0]} features" if len(shape) == 1 else f"images of {'×'.join(map(str, shape))}"


def require_neighbourhoods(total_images: int) -> None:
    """Refuse scores by neighbourhoods for fewer than 50 images.

    Raises:
        UnsupportedClaim: There are too few images.
    """
    if total_images < SMALLEST_N:
        raise UnsupportedClaim(
            f"{total_images} images are too few for neighbourhoods (≥ {SMALLEST_N})", INSTEAD_OF_NEIGHBOURS
        )


def as_array(images: Images) -> Any:
    """Return a tensor as it is, and anything else as one array."""
    return images if isinstance(images, Tensor) else np.asarray(images)


def _seen(preprocess: Preprocess, images: Any) -> Array:
    """Convert source values to network input."""
    dims = len(preprocess.size)
    arrays = [np.asarray(image) for image in images]
    colour = [array.ndim == dims + 1 and array.shape[-1] == 3 for array in arrays]
    made = [preprocess.apply(array, 3 if rgb else 1) for array, rgb in zip(arrays, colour, strict=True)]
    return np.stack(made) if made else np.zeros((0, preprocess.channels, *preprocess.size), np.float32)
