"""The data of an assessment: preprocessed real images by split and synthetic images, each read once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from medphantom.cohorts.preprocess import Preprocess, Window, network_images
from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.scale import OPTION, Reading, reading_of
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError
from medphantom.core.folders import pixel_digest
from medphantom.core.records import Array
from medphantom.quality.config import EDITED, RECONSTRUCTED
from medphantom.quality.data.masked import Masked
from medphantom.quality.data.targets import Targets, present_class, targets_of

Reconstruct = Callable[[Array], Array]
Attack = Callable[[Cohort, Sequence[int]], dict[str, Array]]


@dataclass(frozen=True)
class GeneratorHooks:
    """Functions of a generator that an assessment may call.

    Attributes:
        reconstruct: function that encodes and decodes images ``(N, C, *size)`` in -1…1; it provides the ceiling of
            distances and planted copies. Without it the copy search is inconclusive.
        edit: function that applies light edits to images, for another kind of planted copies.
        attack: function that returns membership scores ``(n,)`` of real rows, by name of the attack; a higher score
            indicates a training image.
        no_attack: reason why the generator cannot be attacked, where it is given and cannot.
        bound: upper bound of the AUROC of membership attacks, if the generator has a formal guarantee.
    """

    reconstruct: Reconstruct | None = None
    edit: Reconstruct | None = None
    attack: Attack | None = None
    no_attack: str | None = None
    bound: float | None = None


@dataclass(frozen=True)
class EvaluationData:
    """Images, patients and labels of both cohorts.

    All images are rounded to the grey values in which generated images are stored, so that real and synthetic images
    do not differ by rounding.

    Attributes:
        real: real cohort of the evaluation.
        synthetic: synthetic cohort of the evaluation.
        preprocess: preprocessing of images for networks.
        hooks: functions of the generator.
        observed_range: source values of the ends of the synthetic images' number format, if they were given.
        called: name of the synthetic images in messages.
        remedy: advice if the synthetic images are not on the same scale as the real images.
    """

    real: Cohort
    synthetic: Cohort
    preprocess: Preprocess
    hooks: GeneratorHooks = GeneratorHooks()
    observed_range: tuple[float, float] | None = None
    called: str = "synthetic images"
    remedy: str = OPTION

    def check(self) -> None:
        """Refuse cohorts that cannot be compared.

        Raises:
            InputError: there are no test or synthetic images, the images are counterfactuals, or the cohorts differ in
                dimension or intensity scale.
        """
        if self.synthetic.schema.kind == "counterfactual":
            raise InputError(
                f"{self.synthetic.path} holds edits of real patients' images, which cannot be scored as synthetic ones",
                "give a cohort from medphantom generate, or score them as counterfactuals",
            )
        if not len(self.synthetic):
            raise InputError("the synthetic cohort holds no images", "generate some first")
        if not self.rows["test"]:
            raise InputError("the real cohort has no test patients to score against", "ingest with a test split > 0")
        dims = {self.real.schema.spatial_dims, self.synthetic.schema.spatial_dims, len(self.preprocess.size)}
        if len(dims) > 1:
            raise InputError(
                f"real, synthetic and preprocess differ in spatial axes ({sorted(dims)})", "score like with like"
            )
        _ = self.reading

    @cached_property
    def reading(self) -> Reading:
        """How the values of the synthetic images are read; raises InputError if they do not match the real images."""
        return reading_of(
            self.synthetic,
            self.preprocess,
            reference=self.real,
            stated=self.observed_range,
            called=self.called,
            remedy=self.remedy,
        )

    @cached_property
    def rows(self) -> dict[str, list[int]]:
        """Row numbers of the real cohort per split."""
        return {split: self.real.rows(split) for split in SPLITS}

    @cached_property
    def patients(self) -> dict[str, list[str]]:
        """Patient of each row in :attr:`rows`."""
        return {split: self.real.patients(rows) for split, rows in self.rows.items()}

    @cached_property
    def images(self) -> dict[str, Array]:
        """Real images per split, float32 ``(n, C, *size)``."""
        return {
            split: self.on_grid(network_images(self.real, rows, self.preprocess)) for split, rows in self.rows.items()
        }

    @cached_property
    def synthetic_images(self) -> Array:
        """All synthetic images, float32 ``(n, C, *size)``."""
        reading = self.reading.of(self.preprocess)
        return self.on_grid(network_images(self.synthetic, range(len(self.synthetic)), reading))

    @cached_property
    def test_reconstruction(self) -> Array | None:
        """The test images after encoding and decoding; ``None`` without an autoencoder."""
        return self.rebuilt(self.images["test"])

    @cached_property
    def targets(self) -> Targets:
        """Targets of classifiers of real images."""
        return targets_of(self.real, self.rows)

    @cached_property
    def requested(self) -> Array:
        """Prompted labels of synthetic images in the order of the real labels: 1, 0, or -1 if unspecified."""
        names = self.synthetic.schema.labels
        table = self.synthetic.labels()
        requested = np.full((len(self.synthetic), len(self.real.schema.labels)), -1, dtype=np.int8)
        for number, label in enumerate(self.real.schema.labels):
            if label in names:
                requested[:, number] = table[:, names.index(label)]
        return requested

    @cached_property
    def requested_class(self) -> Array | None:
        """Prompted class of each synthetic image, if labels are exclusive and every image was prompted with one."""
        if self.targets.source != "labels" or not self.targets.exclusive:
            return None
        classes = present_class(self.requested)
        return classes if (classes >= 0).all() else None

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the compared data, and of the autoencoder by its output for two images."""
        digest = hashlib.sha256(f"{self.real.digest}{self.synthetic.digest}".encode())
        digest.update(self.preprocess.model_dump_json().encode())
        digest.update(self.reading.model_dump_json().encode())
        if self.hooks.reconstruct is not None:
            probe = self._real_images(self.rows["test"][:2])
            digest.update(pixel_digest(np.round(self.hooks.reconstruct(probe), 3)).encode())
        digest.update(f"{self.hooks.bound}".encode())
        return digest.hexdigest()

    @cached_property
    def mask_values(self) -> tuple[int, ...]:
        """Mask values of both cohorts, background first; empty if one of them has no masks."""
        real, synthetic = self.real.schema.mask_values, self.synthetic.schema.mask_values
        return tuple(sorted({0, *real})) if real and synthetic else ()

    def masked(self, cohort: Cohort, rows: Sequence[int], images_NC: Array) -> Masked:
        """The images of the given rows that have a mask, with their masks.

        Raises:
            InputError: a synthetic mask contains a value that no real mask contains.
        """
        numbers, kept = [], []
        for place, mask in enumerate(cohort.masks(list(rows))):
            if mask is None:
                continue
            fitted = self.preprocess.apply_mask(mask)
            unknown = np.setdiff1d(fitted, self.mask_values)
            if len(unknown):
                raise InputError(
                    f"a mask holds the value {unknown[0]}, which no real mask holds", "score like with like"
                )
            numbers.append(np.searchsorted(self.mask_values, fitted).astype(np.uint8))
            kept.append(place)
        empty = np.zeros((0, *self.preprocess.size), dtype=np.uint8)
        patients = cohort.patients([rows[place] for place in kept])
        return Masked(images_NC[kept], np.stack(numbers) if numbers else empty, patients)

    def rebuilt(self, images_NC: Array) -> Array | None:
        """Images encoded and decoded by the autoencoder; ``None`` without one.

        Raises:
            InputError: the autoencoder changes the shape of the images.
        """
        return None if self.hooks.reconstruct is None else self._through(self.hooks.reconstruct, images_NC)

    def makers(self) -> dict[str, Reconstruct]:
        """Functions that make copies through the generator, by kind of copy."""
        given = {RECONSTRUCTED: self.hooks.reconstruct, EDITED: self.hooks.edit}
        return {kind: partial(self._through, maker) for kind, maker in given.items() if maker is not None}

    def _through(self, maker: Reconstruct, images_NC: Array) -> Array:
        found = np.asarray(maker(images_NC), dtype=np.float32)
        if found.shape != images_NC.shape:
            raise InputError(f"images of shape {images_NC.shape} came back with shape {found.shape}")
        return self.on_grid(np.clip(found, -1, 1))

    def on_grid(self, images_NC: Array) -> Array:
        """Images rounded to the grey values that generated images are stored in."""
        return on_stored_grid(images_NC, self.preprocess)

    def _real_images(self, rows: list[int]) -> Array:
        return self.on_grid(network_images(self.real, rows, self.preprocess))


def on_stored_grid(images_NC: Array, preprocess: Preprocess) -> Array:
    """Images in -1…1 rounded to the grey values that :meth:`Preprocess.undo` can store."""
    dtype = np.dtype(preprocess.stored_dtype)
    if dtype.kind == "f":
        return images_NC
    limits = np.iinfo(dtype)
    intensity = preprocess.intensity
    span = float(intensity.high - intensity.low) if isinstance(intensity, Window) else float(limits.max - limits.min)
    rounded: Array = np.rint((images_NC + 1) / 2 * span) / span * 2 - 1
    return rounded.astype(np.float32)
