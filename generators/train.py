"""Training a generator on a cohort in resumable stages: features, autoencoder, latents, denoiser, distillation.

A stage works in a folder named by the digest of everything on which its result depends, so that a finished stage is
found again, and a changed setting repeats only the affected stages.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.conditioner import Conditioner, encoder_sizes, learn_conditioner
from medphantom.conditioning.config import EMBEDDED
from medphantom.conditioning.encoder import Conditions
from medphantom.conditioning.observed import grid_of, with_spacing
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest, work_folder
from medphantom.core.progress import Progress
from medphantom.core.randomness import derive_seed, torch_generator
from medphantom.core.records import Array
from medphantom.generators.base import open_base
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import Distillation, GeneratorConfig, Objective
from medphantom.generators.control import embedding_channels
from medphantom.generators.denoiser import Denoiser, DenoiserLearner, build_denoiser
from medphantom.generators.distillation import FewCallLearner, follow_paths, kept_paths
from medphantom.generators.facts import BaseFacts, BundleFacts, FewCalls, LatentScaling
from medphantom.generators.fitting import SPLITS, Fitting, Split, encode_images, fit_autoencoder, fit_features
from medphantom.generators.latents import Latents, balanced_scaling, unscaled
from medphantom.generators.lineage import Footing, learned_from
from medphantom.generators.methods import make_trainable
from medphantom.generators.networks import AnyAutoencoder, AnyDenoiser, Base
from medphantom.generators.privacy import (
    check_footing,
    check_private,
    lineage_after,
    observed_schema,
    private_fit,
    started_from,
    statement,
)
from medphantom.generators.reproducible import reproducible
from medphantom.generators.requirements import require_for_training
from medphantom.generators.round_trip import RoundTrip, round_trip
from medphantom.generators.sampler import noise_of
from medphantom.generators.training_data import (
    TrainingRows,
    cached_images,
    learnt_geometry,
    learnt_schema,
    training_rows,
)
from medphantom.learning.batches import TensorBatches, stream_rows
from medphantom.learning.devices import resolve_device
from medphantom.learning.fit import FitResult, Grids
from medphantom.learning.guarantee import Guarantee

LIBRARIES = ("torch", "monai", "diffusers")
NOT_KEPT = {"images_per_s"}  # differs from run to run, which a bundle must not


def train_generator(
    cohort: Cohort,
    preprocess: Preprocess,
    config: GeneratorConfig,
    out: Path,
    *,
    work: Path,
    progress: Progress | None = None,
    grids: Grids | None = None,
) -> GeneratorBundle:
    """Train a generator on the ``train`` rows of a cohort; its ``val`` rows select the checkpoints.

    Args:
        cohort: Real images; rows of other splits are neither read nor counted.
        preprocess: Preprocessing of the images.
        config: Configuration of the generator.
        out: Folder in which the bundle is published.
        work: Private folder for the state needed to resume and to skip finished stages.
        progress: Callback that receives the progress of each stage.
        grids: Callback that is told the step and the file of each sample grid.

    Returns:
        The published bundle.

    Raises:
        InputError: If there are too few images or no conditions, the networks cannot halve the size, pixels are NaN,
            ``out`` exists, or a package that the configuration needs is not installed.
        MedphantomError: If training diverged.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")
    require_for_training(config)
    training = _Training(cohort, preprocess, config, work, progress, grids)
    with reproducible(training.threads):
        bundle = training.run()
    bundle.save(out)
    return bundle


@dataclass
class _Training:
    """One call of :func:`train_generator`: the state that its stages share."""

    cohort: Cohort
    preprocess: Preprocess
    config: GeneratorConfig
    work: Path
    progress: Progress | None
    grids: Grids | None
    base: Base | None = field(init=False)
    footing: Footing = field(init=False)
    objective: Objective = field(init=False)
    latent_shape: tuple[int, ...] = field(init=False)
    rows: TrainingRows = field(init=False)
    vocabulary: ConditionSchema = field(init=False)
    conditioner: Conditioner = field(init=False)
    fitting: Fitting = field(init=False)
    conditions: dict[Split, Conditions] = field(init=False)

    def __post_init__(self) -> None:
        dims, config, size = self.cohort.schema.spatial_dims, self.config, self.preprocess.size
        if len(size) != dims:
            raise InputError(
                f"preprocess.size has {len(size)} sides, but the cohort's images have {dims}", "give one side per axis"
            )
        self.base = None if config.init_from is None else open_base(config.init_from, config.tuning)
        if self.base is None:
            self.objective, self.latent_shape = config.objective, config.autoencoder.latent_shape(size)
            config.denoiser.check_latent(self.latent_shape)
        else:
            self.objective, self.latent_shape = self.base.objective, self.base.latent_shape(size)
        reads_with_base = self.base is not None and self.base.pipeline is not None
        check_private(config, self.cohort, reads_with_base=reads_with_base)
        self.footing = check_footing(config, self.cohort, self.base)
        if config.distillation is not None and self.objective.kind != "flow":
            raise InputError(
                f"generator.distillation needs an objective of kind flow, and that of the base is "
                f"{self.objective.kind}",
                "leave out generator.distillation, or choose another base",
            )
        self.rows = training_rows(self.cohort)
        self.vocabulary = self._vocabulary()
        self.conditioner = learn_conditioner(
            self.cohort,
            self.rows.train,
            self.vocabulary,
            config.conditioning,
            preprocess=self.preprocess,
            seed=derive_seed(config.seed, "wordings"),
            pipeline=None if self.base is None else self.base.pipeline,
        )
        nothing = not self.vocabulary.labels and not self.vocabulary.attributes and self.schema.reads == ("labels",)
        if nothing and not config.unconditional:
            raise InputError(
                "the training images have neither labels nor attributes to condition on",
                "ingest them with a table or one folder per class, or set generator.unconditional to true",
            )

    def _vocabulary(self) -> ConditionSchema:
        """Return the labels and attributes to learn; for a ControlNet, those that the base has learned."""
        spaced, privacy = self.config.conditioning.spacing, self.config.privacy
        if self.base is None or self.config.tuning.method != "control":
            stated = None if privacy is None else privacy.vocabulary
            if stated is None:
                found = learnt_schema(self.cohort, self.rows.train)
            else:
                found = observed_schema(self.cohort, stated)
            return with_spacing(found, self.cohort, self.rows.train, self.preprocess) if spaced else found
        known = self.base.as_it_is().conditioner.schema
        if known.reads != ("labels",):
            raise InputError(
                "a ControlNet needs a generator of labels and attributes, but the base reads " + ", ".join(known.reads),
                "use another generator.tuning.method",
            )
        if spaced and known.grid is None:
            raise InputError(
                "a ControlNet leaves the generator unchanged, and the base does not read the spacing",
                "set generator.conditioning.spacing to false, or use another generator.tuning.method",
            )
        return known if known.grid is None else known.model_copy(update={"grid": grid_of(self.preprocess)})

    @property
    def schema(self) -> ConditionSchema:
        """The vocabulary of the prompts."""
        return self.conditioner.schema

    @property
    def threads(self) -> int:
        """Number of CPU threads of training and generation."""
        return self.config.threads or torch.get_num_threads()

    def run(self) -> GeneratorBundle:
        """Run all stages."""
        which = {"train": self.rows.train, "val": self.rows.val}
        self.fitting = Fitting(
            config=self.config,
            preprocess=self.preprocess,
            images={
                split: cached_images(self.cohort, which[split], self.preprocess, self.work / "images", self.progress)
                for split in SPLITS
            },
            data_key=json_digest(
                [self.rows.digest, self.preprocess.model_dump(mode="json"), self.config.seed, self.threads]
            ),
            work=self.work,
            progress=self.progress,
            grids=self.grids,
        )
        self.conditions = {split: self._conditions(split, which[split]) for split in SPLITS}
        autoencoder, key, curve = self._autoencoder()
        cost = None if self.base is None else self._round_trip(autoencoder)
        latents = encode_images(self.fitting, autoencoder, key)
        scaling = self._scaling(autoencoder, latents["train"])
        denoiser, denoiser_fit, denoiser_key = self._denoiser(autoencoder, key, latents, scaling)
        few_fit: FitResult | None = None
        if self.config.distillation is not None:
            denoiser, few_fit = self._distilled(self.config.distillation, denoiser, denoiser_key)
        return GeneratorBundle(
            facts=self._facts(autoencoder, scaling, denoiser_fit.guarantee),
            autoencoder=autoencoder.cpu().eval().requires_grad_(False),
            denoiser=denoiser.cpu().eval().requires_grad_(False),
            training={
                **({} if cost is None or self.config.privacy is not None else {"round_trip": cost.to_json()}),
                "recipe": self.config.model_dump(mode="json", exclude=_WITHOUT_CONSEQUENCE),
                **({} if curve is None else {"autoencoder": _curves(curve)}),
                "denoiser": _curves(denoiser_fit),
                **({} if few_fit is None else {"distillation": _curves(few_fit)}),
            },
        )

    # ---- stages ----

    def _conditions(self, split: Split, rows: Sequence[int]) -> Conditions:
        text = self.config.conditioning.text
        texts = self.work / f"text-{json_digest([self.fitting.data_key, self._condition_key()])[:16]}"
        return self.conditioner.of_rows(
            self.cohort,
            rows,
            self.preprocess,
            paraphrases=1 if text is None else text.paraphrases,
            seed=derive_seed(self.config.seed, "wordings", split),
            cache=texts / f"{split}.safetensors",
        )

    def _autoencoder(self) -> tuple[AnyAutoencoder, str, FitResult | None]:
        """Return the base's autoencoder, or a new one, and the digest of everything on which its latents depend."""
        if self.base is not None:
            device = resolve_device(self.config.autoencoder_fit.device)
            frozen = self.base.autoencoder(self.preprocess.channels).to(device)
            return frozen, json_digest([self.fitting.data_key, self.base.digest, self.config.flip]), None
        features = fit_features(self.fitting, self._observed().labels_BL, exclusive=self.vocabulary.exclusive)
        return fit_autoencoder(self.fitting, features)

    def _scaling(self, autoencoder: AnyAutoencoder, latents: Latents) -> LatentScaling:
        if self.base is not None and self.config.tuning.latent_scaling == "base":
            return self.base.scaling
        balance = self.config.latent_balance if self.base is None else 0.0
        return balanced_scaling(autoencoder, latents, balance, derive_seed(self.config.seed, "scaling"))

    def _new_denoiser(self) -> AnyDenoiser:
        config, seed = self.config, derive_seed(self.config.seed, "denoiser weights")
        halvings = int(math.log2(self.preprocess.size[0] // self.latent_shape[1]))
        dim = config.denoiser.context_dim if self.base is None else self.base.context_dim
        sizes = encoder_sizes(self.conditioner, config.conditioning, dim, halvings)
        if config.tuning.method == "control":
            sizes = sizes.model_copy(update={"mask_channels": 0, "mask_control": embedding_channels(halvings)})
        if self.base is None:
            return build_denoiser(config.denoiser, self.conditioner, self.latent_shape, seed=seed, sizes=sizes)
        network = self.base.denoiser(self.conditioner, sizes, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "low-rank weights"))
            make_trainable(network, config.tuning)
        return network

    def _denoiser(
        self, autoencoder: AnyAutoencoder, autoencoder_key: str, latents: dict[Split, Latents], scaling: LatentScaling
    ) -> tuple[AnyDenoiser, FitResult, str]:
        """Return the trained denoiser, its fit, and the digest of everything on which it depends."""
        config = self.config
        network = self._new_denoiser()
        if isinstance(network, Denoiser):
            self._text_encoder(network)
        monitored: dict[Split, tuple[Latents, Conditions]] = {
            split: (Latents(latents[split].mean[rows], latents[split].log_var[rows]), self.conditions[split][rows])
            for split, rows in self.fitting.monitored_rows().items()
        }

        def decode(drawn: Tensor) -> Tensor:
            return autoencoder.decode(unscaled(drawn, scaling))

        learner = DenoiserLearner(
            network,
            config.denoiser,
            objective=self.objective,
            scaling=scaling,
            monitored=monitored,
            seed=derive_seed(config.seed, "denoiser judge"),
            decode=decode,
            drift=config.tuning.drift,
            offset_noise=config.tuning.offset_noise,
        )
        conditions = self.conditions["train"].tensors()
        if config.flip:
            mirrored = {name: values.flip(-1) if name == "mask" else values for name, values in conditions.items()}
            conditions = {name: torch.cat([values, mirrored[name]]) for name, values in conditions.items()}
        batches = TensorBatches({"mean": latents["train"].mean, "log_var": latents["train"].log_var, **conditions})
        parts = [autoencoder_key, self._condition_key(), config.denoiser.model_dump(mode="json")]
        parts += [config.conditioning.model_dump(mode="json"), config.tuning.model_dump(mode="json")]
        parts += [self.objective.model_dump(mode="json"), scaling.model_dump(mode="json")]
        parts += [config.denoiser_fit.consequential()]
        if config.privacy is not None:
            parts.append(config.privacy.model_dump(mode="json"))
        if self._learns_to_read:
            parts.append(config.text_fit.consequential())
        patients = self.cohort.manifest["patient"][list(self.rows.train)].to_list()
        private = private_fit(config, patients)
        key = json_digest(parts)
        found = self.fitting.fit("denoiser", learner, batches, config.denoiser_fit, key, private=private)
        return network, found, key

    def _distilled(self, few: Distillation, denoiser: AnyDenoiser, key: str) -> tuple[AnyDenoiser, FitResult]:
        """Return a copy of the denoiser that draws in a few calls; see :mod:`medphantom.generators.distillation`."""
        seed = derive_seed(self.config.seed, "distillation")
        key = json_digest([key, few.model_dump(mode="json", exclude={"fit"}), few.fit.consequential()])
        rows = stream_rows(len(self.rows.train), 0, few.images, seed)
        drops, config = torch_generator(seed, "prompts"), self.config.denoiser
        conditions = self.conditions["train"][rows].one_paraphrase(drops)
        conditions = conditions.drop(
            drops, whole=config.drop_prompt, partial=config.drop_items, kinds=config.drop_kinds
        )
        denoiser.requires_grad_(False)
        student = deepcopy(denoiser).requires_grad_(True)
        learner = FewCallLearner(student, objective=self.objective, calls=few.calls)
        folder = self.work / f"paths-{key[:16]}"
        work_folder(folder)
        paths = kept_paths(
            folder / "paths.safetensors",
            lambda: follow_paths(
                denoiser.to(resolve_device(few.fit.device)),
                conditions,
                noise_of([derive_seed(seed, "noise", number) for number in range(few.images)], self.latent_shape),
                objective=self.objective,
                config=few,
                progress=self.progress,
            ),
        )
        batches = TensorBatches({"path": paths, **conditions.tensors()})
        found = self.fitting.fit("distillation", learner, batches, few.fit, key)
        return student, found

    def _text_encoder(self, denoiser: Denoiser) -> None:
        """Train the embedded text encoder, if there is one, to read.

        See :mod:`medphantom.conditioning.text_learning`.
        """
        if not self._learns_to_read:
            return
        from medphantom.conditioning.text_learning import TextLearner, TextQuestions  # loads transformers

        config, sizes = self.config, denoiser.sizes
        encoder: Any = denoiser.conditioning["encoder"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "text questions"))
            questions = TextQuestions(encoder.text, self.vocabulary, sizes.dim)
        stated = replace(self._observed(), text_BT=self.conditions["train"].text_BT)
        key = json_digest(
            [
                self.fitting.data_key,
                self._condition_key(),
                sizes.model_dump(mode="json"),
                config.text_fit.consequential(),
            ]
        )
        self.fitting.fit("text", TextLearner(questions), TensorBatches(stated.tensors()), config.text_fit, key)

    def _round_trip(self, autoencoder: AnyAutoencoder) -> RoundTrip:
        stated = {"train": self.rows.train, "val": self.rows.val}
        states = {
            split: Conditions.from_cohort(self.cohort, rows, self.vocabulary).labels_BL.numpy()
            for split, rows in stated.items()
        }
        images: dict[str, Array] = {split: self.fitting.images[split] for split in SPLITS}
        return round_trip(autoencoder, images, states, self.vocabulary.labels, seed=self.config.seed)

    # ---- helpers ----

    @property
    def _learns_to_read(self) -> bool:
        return self.schema.text is not None and self.schema.text.encoder == EMBEDDED

    def _observed(self) -> Conditions:
        """Return labels and attributes of the training rows, whether or not the generator reads them as such."""
        return Conditions.from_cohort(self.cohort, self.rows.train, self.vocabulary)

    def _condition_key(self) -> str:
        return json_digest(self.schema.model_dump(mode="json"))

    def _base_facts(self) -> BaseFacts | None:
        if self.base is None:
            return None
        tuning = self.config.tuning
        needed = self.base.kind == "stable_diffusion" or tuning.method != "full"
        return BaseFacts(
            kind=self.base.kind, source=self.base.source, digest=self.base.digest, tuning=tuning, needed=needed
        )

    def _facts(self, autoencoder: AnyAutoencoder, scaling: LatentScaling, own: Guarantee | None) -> BundleFacts:
        geometry = learnt_geometry(self.cohort, self.rows.train, self.preprocess)
        privacy = statement(self.config, own, self.footing)
        few = self.config.distillation
        learned = learned_from(self.cohort, (*self.rows.train, *self.rows.val), self.rows.digest)
        return BundleFacts(
            preprocess=self.preprocess,
            conditions=self.schema,
            objective=self.objective,
            latent_shape=self.latent_shape,
            latent_scaling=scaling,
            patch=autoencoder.patch,
            shortcut=autoencoder.shortcut is not None,
            unit_range=autoencoder.unit_range,
            window=autoencoder.window,
            base=self._base_facts(),
            lineage=lineage_after(started_from(self.base, self.config), privacy, learned),
            training_digest=self.rows.digest,
            training_images=len(self.rows.train),
            training_patients=self.rows.total_patients,
            few_calls=None if few is None else FewCalls(calls=few.calls, guidance=few.guidance),
            spacing_mm=geometry.spacing_mm,
            affine=geometry.affine,
            modality=geometry.modality,
            micro_batch=self.config.micro_batch,
            threads=self.threads,
            intended_use=self.config.intended_use,
            privacy=privacy,
            versions={name: importlib.metadata.version(name) for name in LIBRARIES},
        )


_FIT_FREE = {"device", "tracker", "log_every", "grid_every", "checkpoint_every", "track_real_images"}
_WITHOUT_CONSEQUENCE: dict[str, Any] = {
    "features_fit": _FIT_FREE,
    "text_fit": _FIT_FREE,
    "autoencoder_fit": _FIT_FREE,
    "denoiser_fit": _FIT_FREE,
    "distillation": {"fit": _FIT_FREE},
}


def _curves(result: FitResult) -> dict[str, Any]:
    """Return the curves of a fit; none of a private fit, since its losses on private images are without noise."""
    if result.private:
        return {"best_step": result.best_step, "best_loss": None, "rows": []}
    rows = [{key: value for key, value in row.items() if key not in NOT_KEPT} for row in result.history]
    return {"best_step": result.best_step, "best_loss": result.best_loss, "rows": rows}
