"""Fitting a generator to a cohort, stage by stage: features, autoencoder, latents, denoiser; each resumes by itself.

A stage keeps its work in a folder named by the digest of all that its result depends on, so that a finished stage is
found again, and a changed setting redoes only what it concerns.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cohorts.errors import InputError
from cohorts.folders import json_digest
from cohorts.preprocess import Preprocess
from cohorts.progress import Progress
from cohorts.records import Array
from cohorts.store import Cohort
from conditioning.conditioner import Conditioner, encoder_sizes, learn_conditioner
from conditioning.config import EMBEDDED
from conditioning.encoder import Conditions
from conditioning.prompt import ConditionSchema
from generators.autoencoder import Autoencoder, build_autoencoder
from generators.bundle import GeneratorBundle
from generators.config import GeneratorConfig
from generators.denoiser import Denoiser, DenoiserLearner, build_denoiser
from generators.facts import BundleFacts, LatentScaling
from generators.features import FeatureLearner, FeatureNet
from generators.latents import Latents, balanced_scaling, encode_all, unscaled
from generators.reconstruction import JUDGED_IMAGES, AutoencoderLearner, build_adversary
from generators.reproducible import reproducible
from generators.training_data import (
    TrainingRows,
    cached_images,
    image_tensor,
    learnt_geometry,
    learnt_schema,
    training_rows,
)
from learning.batches import StreamBatches, TensorBatches
from learning.devices import resolve_device
from learning.fit import FitResult, fit
from learning.fit_config import FitConfig
from learning.randomness import derive_seed

LIBRARIES = ("torch", "monai", "diffusers")
NOT_KEPT = {"images_per_s"}  # differs from run to run, a bundle must not

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")


def train_generator(
    cohort: Cohort,
    preprocess: Preprocess,
    config: GeneratorConfig,
    out: Path,
    *,
    work: Path,
    progress: Progress | None = None,
) -> GeneratorBundle:
    """Fit a generator to the ``train`` rows of a cohort; its ``val`` rows choose the checkpoints.

    Args:
        cohort: real images; rows of other splits are neither read nor counted.
        preprocess: what the networks see.
        config: sizes and fits.
        out: where the bundle is published.
        work: private folder for what is needed to go on after a kill, and to skip what is finished.
        progress: told about each stage.

    Returns:
        The published bundle.

    Raises:
        InputError: too few images, nothing to condition on, a size that the networks cannot halve, NaN pixels, or
            ``out`` exists.
        MedphantomError: training diverged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")
    training = _Training(cohort, preprocess, config, work, progress)
    with reproducible(training.threads):
        bundle = training.run()
    bundle.save(out)
    return bundle


@dataclass
class _Training:
    """One call of :func:`train_generator`: what its stages share."""

    cohort: Cohort
    preprocess: Preprocess
    config: GeneratorConfig
    work: Path
    progress: Progress | None
    rows: TrainingRows = field(init=False)
    vocabulary: ConditionSchema = field(init=False)
    conditioner: Conditioner = field(init=False)
    latent_shape: tuple[int, ...] = field(init=False)
    images: dict[Split, Array] = field(init=False)
    conditions: dict[Split, Conditions] = field(init=False)

    def __post_init__(self) -> None:
        dims = self.cohort.schema.spatial_dims
        if len(self.preprocess.size) != dims:
            raise InputError(
                f"preprocess.size has {len(self.preprocess.size)} sides, the cohort's images have {dims}",
                "give one side per axis",
            )
        self.latent_shape = self.config.autoencoder.latent_shape(self.preprocess.size)
        self.config.denoiser.check_latent(self.latent_shape)
        self.rows = training_rows(self.cohort)
        self.vocabulary = vocabulary = learnt_schema(self.cohort, self.rows.train)
        self.conditioner = learn_conditioner(
            self.cohort,
            self.rows.train,
            vocabulary,
            self.config.conditioning,
            preprocess=self.preprocess,
            seed=derive_seed(self.config.seed, "wordings"),
        )
        nothing = not vocabulary.labels and not vocabulary.attributes and self.schema.reads == ("labels",)
        if nothing and not self.config.unconditional:
            raise InputError(
                "the training images have neither labels nor attributes to condition on",
                "ingest them with a table or a folder per class, or set generator.unconditional to true",
            )

    @property
    def schema(self) -> ConditionSchema:
        """The vocabulary."""
        return self.conditioner.schema

    @property
    def threads(self) -> int:
        """CPU threads of training and generation."""
        return self.config.threads or torch.get_num_threads()

    @property
    def wordings(self) -> int:
        """Sentences for each image that learns from templates."""
        text = self.config.conditioning.text
        return 1 if text is None else text.wordings

    def run(self) -> GeneratorBundle:
        """All stages."""
        which = {"train": self.rows.train, "val": self.rows.val}
        self.images = {
            split: cached_images(self.cohort, which[split], self.preprocess, self.work / "images", self.progress)
            for split in SPLITS
        }
        texts = self.work / f"text-{json_digest([self._data_key(), self._condition_key()])[:16]}"
        self.conditions = {
            split: self.conditioner.of_rows(
                self.cohort,
                which[split],
                self.preprocess,
                wordings=self.wordings,
                seed=derive_seed(self.config.seed, "wordings", split),
                cache=texts / f"{split}.safetensors",
            )
            for split in SPLITS
        }
        autoencoder, autoencoder_key, autoencoder_fit = self._autoencoder()
        latents = self._latents(autoencoder, autoencoder_key)
        scaling = balanced_scaling(
            autoencoder, latents["train"], self.config.latent_balance, derive_seed(self.config.seed, "scaling")
        )
        denoiser, denoiser_fit = self._denoiser(autoencoder, autoencoder_key, latents, scaling)
        curves = {"autoencoder": _curves(autoencoder_fit), "denoiser": _curves(denoiser_fit)}
        recipe = self.config.model_dump(mode="json", exclude=_WITHOUT_CONSEQUENCE)
        return GeneratorBundle(
            facts=self._facts(scaling),
            autoencoder=autoencoder.cpu().eval().requires_grad_(False),
            denoiser=denoiser.cpu().eval().requires_grad_(False),
            training={"recipe": recipe, **curves},
        )

    # ---- stages ----

    def _features(self) -> FeatureNet | None:
        """The feature network that judges reconstructions, fitted to the labels where there are any."""
        config = self.config
        if not config.reconstruction.features:
            return None
        labels = self._stated().labels_BL
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "features"))
            network = FeatureNet(len(self.preprocess.size), self.preprocess.channels, max(1, labels.shape[1]))
        if config.reconstruction.feature_network == "labels" and labels.shape[1]:
            read = _with_images(self.images["train"], {"labels": labels}, flipped=False)
            self._fit(
                "features",
                FeatureLearner(network, exclusive=self.vocabulary.exclusive and labels.shape[1] > 1),
                StreamBatches(len(labels), read),
                config.features_fit,
                json_digest([self._data_key(), "features"]),
            )
        device = resolve_device(config.autoencoder_fit.device)
        return network.to(device).eval().requires_grad_(False)

    def _autoencoder(self) -> tuple[Autoencoder, str, FitResult]:
        config = self.config
        features = self._features()
        dims, channels = len(self.preprocess.size), self.preprocess.channels
        network = build_autoencoder(
            config.autoencoder,
            spatial_dims=dims,
            image_channels=channels,
            seed=derive_seed(config.seed, "autoencoder weights"),
        )
        adversary = None
        if config.reconstruction.adversary:
            adversary = build_adversary(
                config.reconstruction,
                spatial_dims=dims,
                image_channels=channels,
                seed=derive_seed(config.seed, "adversary weights"),
            )
        judged = {split: self.images[split][rows] for split, rows in self._judged_rows().items()}
        learner = AutoencoderLearner(
            network,
            config.reconstruction,
            steps=config.autoencoder_fit.steps,
            features=features,
            adversary=adversary,
            judged=judged,
        )
        total = len(self.images["train"]) * (2 if config.flip else 1)
        batches = StreamBatches(total, _with_images(self.images["train"], {}, flipped=config.flip))
        parts: list[Any] = [self._data_key(), config.autoencoder.model_dump(mode="json")]
        parts += [config.reconstruction.model_dump(mode="json"), config.flip]
        if features is not None:
            parts.append(config.features_fit.consequential())
        key = json_digest([*parts, config.autoencoder_fit.consequential()])
        result = self._fit("autoencoder", learner, batches, config.autoencoder_fit, key)
        return network, key, result

    def _latents(self, autoencoder: Autoencoder, autoencoder_key: str) -> dict[Split, Latents]:
        folder = self.work / f"latents-{autoencoder_key[:16]}"
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[Split, Latents] = {}
        for split in SPLITS:
            path = folder / f"{split}.safetensors"
            latents = Latents.load(path)
            flipped = self.config.flip and split == "train"
            if latents is None or len(latents) != len(self.images[split]) * (2 if flipped else 1):
                latents = encode_all(autoencoder, self.images[split], flipped=flipped, progress=self.progress)
                latents.save(path)
            found[split] = latents
        return found

    def _denoiser(
        self, autoencoder: Autoencoder, autoencoder_key: str, latents: dict[Split, Latents], scaling: LatentScaling
    ) -> tuple[Denoiser, FitResult]:
        config = self.config
        halvings = int(math.log2(self.preprocess.size[0] // self.latent_shape[1]))
        network = build_denoiser(
            config.denoiser,
            self.conditioner,
            self.latent_shape,
            seed=derive_seed(config.seed, "denoiser weights"),
            sizes=encoder_sizes(self.conditioner, config.conditioning, config.denoiser.context_dim, halvings),
        )
        self._text_encoder(network)
        judged: dict[Split, tuple[Latents, Conditions]] = {
            split: (Latents(latents[split].mean[rows], latents[split].log_var[rows]), self.conditions[split][rows])
            for split, rows in self._judged_rows().items()
        }

        def decode(drawn: Tensor) -> Tensor:
            return autoencoder.decode(unscaled(drawn, scaling))

        learner = DenoiserLearner(
            network,
            config.denoiser,
            objective=config.objective,
            scaling=scaling,
            judged=judged,
            seed=derive_seed(config.seed, "denoiser judge"),
            decode=decode,
        )
        conditions = self.conditions["train"].tensors()
        if config.flip:
            mirrored = {name: values.flip(-1) if name == "mask" else values for name, values in conditions.items()}
            conditions = {name: torch.cat([values, mirrored[name]]) for name, values in conditions.items()}
        batches = TensorBatches({"mean": latents["train"].mean, "log_var": latents["train"].log_var, **conditions})
        parts = [autoencoder_key, self._condition_key(), config.denoiser.model_dump(mode="json")]
        parts += [config.conditioning.model_dump(mode="json")]
        parts += [config.objective.model_dump(mode="json"), scaling.model_dump(mode="json")]
        parts += [config.denoiser_fit.consequential()]
        if self._learns_to_read:
            parts.append(config.text_fit.consequential())
        return network, self._fit("denoiser", learner, batches, config.denoiser_fit, json_digest(parts))

    def _text_encoder(self, denoiser: Denoiser) -> None:
        """Teach the embedded text encoder, where there is one, to read; see :mod:`conditioning.text_learning`."""
        if not self._learns_to_read:
            return
        from conditioning.text_learning import TextLearner, TextQuestions  # loads transformers

        config, sizes = self.config, denoiser.sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "text questions"))
            questions = TextQuestions(denoiser.conditioning["encoder"].text, self.vocabulary, sizes.dim)
        stated = replace(self._stated(), text_BT=self.conditions["train"].text_BT)
        key = json_digest(
            [self._data_key(), self._condition_key(), sizes.model_dump(mode="json"), config.text_fit.consequential()]
        )
        self._fit("text", TextLearner(questions), TensorBatches(stated.tensors()), config.text_fit, key)
        questions.train()

    @property
    def _learns_to_read(self) -> bool:
        text = self.config.conditioning.text
        return text is not None and text.encoder == EMBEDDED

    def _stated(self) -> Conditions:
        """Labels and attributes of the training rows, whether or not the generator reads them by themselves."""
        return Conditions.from_cohort(self.cohort, self.rows.train, self.vocabulary)

    def _fit(self, name: str, learner: Any, batches: Any, config: FitConfig, key: str) -> FitResult:
        seeded = config.model_copy(update={"seed": derive_seed(self.config.seed, name, config.seed)})
        folder = self.work / f"{name}-{key[:16]}"
        return fit(learner, batches, seeded, work=folder, identity=key, name=name, progress=self.progress)

    # ---- help ----

    def _data_key(self) -> str:
        """What every stage depends on."""
        return json_digest([self.rows.digest, self.preprocess.model_dump(mode="json"), self.config.seed, self.threads])

    def _condition_key(self) -> str:
        return json_digest(self.schema.model_dump(mode="json"))

    def _judged_rows(self) -> dict[Split, Any]:
        """Places, evenly spread, of the images that judge a checkpoint, and of as many training images."""
        wanted = min(len(self.images["val"]), JUDGED_IMAGES)
        return {
            split: np.unique(np.linspace(0, len(self.images[split]) - 1, wanted).round().astype(np.int64))
            for split in SPLITS
        }

    def _facts(self, scaling: LatentScaling) -> BundleFacts:
        geometry = learnt_geometry(self.cohort, self.rows.train, self.preprocess)
        return BundleFacts(
            preprocess=self.preprocess,
            conditions=self.schema,
            objective=self.config.objective,
            latent_shape=self.latent_shape,
            latent_scaling=scaling,
            patch=self.config.autoencoder.patch,
            shortcut=self.config.autoencoder.shortcut,
            training_digest=self.rows.digest,
            training_images=len(self.rows.train),
            training_patients=self.rows.total_patients,
            spacing_mm=geometry.spacing_mm,
            affine=geometry.affine,
            modality=geometry.modality,
            micro_batch=self.config.micro_batch,
            threads=self.threads,
            intended_use=self.config.intended_use,
            versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        )


_FIT_FREE = {"device", "tracker", "log_every", "grid_every", "checkpoint_every", "track_real_images"}
_WITHOUT_CONSEQUENCE = {"features_fit": _FIT_FREE, "text_fit": _FIT_FREE, "autoencoder_fit": _FIT_FREE, "denoiser_fit": _FIT_FREE}


def _with_images(images: Array, others: dict[str, Tensor], *, flipped: bool) -> Callable[[Tensor], dict[str, Tensor]]:
    """A reader of rows of cached images and of tensors beside them; rows beyond the last are the mirrored images."""

    def read(rows: Tensor) -> dict[str, Tensor]:
        block = image_tensor(images, rows % len(images))
        if flipped:
            mirrored = (rows >= len(images)).reshape(-1, *[1] * (block.ndim - 1))
            block = torch.where(mirrored, block.flip(-1), block)
        return {"image": block, **{name: tensor[rows] for name, tensor in others.items()}}

    return read


def _curves(result: FitResult) -> dict[str, Any]:
    rows = [{key: value for key, value in row.items() if key not in NOT_KEPT} for row in result.history]
    return {"best_step": result.best_step, "best_loss": result.best_loss, "rows": rows}
