"""A base as a bundle in memory, with its own vocabulary, to preview its images before fine-tuning."""

from __future__ import annotations

import torch

from medphantom.cohorts.preprocess import Preprocess
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.facts import BundleFacts
from medphantom.generators.networks import Base


def base_bundle(base: Base, preprocess: Preprocess, *, threads: int | None) -> GeneratorBundle:
    """Return the base as a bundle that generates images in the format of a cohort.

    Args:
        base: Base from :func:`medphantom.generators.base.open_base`.
        preprocess: Preprocessing of the cohort on which it is to be fine-tuned.
        threads: Number of CPU threads.

    Raises:
        InputError: If the base does not generate such images.
    """
    codec, denoiser = base.autoencoder(preprocess.channels), base.as_it_is()
    facts = BundleFacts(
        preprocess=preprocess,
        conditions=denoiser.conditioner.schema,
        objective=base.objective,
        latent_shape=base.latent_shape(preprocess.size),
        latent_scaling=base.scaling,
        patch=codec.patch,
        shortcut=codec.shortcut is not None,
        unit_range=codec.unit_range,
        window=codec.window,
        training_digest=base.digest,
        training_images=0,
        training_patients=0,
        micro_batch=16,
        threads=threads or torch.get_num_threads(),
        intended_use="A look at a base.",
    )
    return GeneratorBundle(facts, codec.eval(), denoiser.eval().requires_grad_(False), {})
