"""From a sampling plan to a published synthetic cohort, in resumable micro-batches, each image exactly once.

A micro-batch always has the same number of rows (the last one is padded) and the same number of threads: then a row has
the same bits regardless of its neighbours, shard or resume.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from medphantom.cohorts.records import SYNTHETIC_SPLIT, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.guidance import guided
from medphantom.conditioning.plan import PlannedImage, SamplingPlan
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import ArtifactError, CohortError, InputError, MedphantomError
from medphantom.core.folders import json_digest, no_space_becomes_one_line, pixel_digest, work_folder
from medphantom.core.guard import reading
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SOLVERS, SamplerConfig, check_few_calls
from medphantom.generators.latents import unscaled
from medphantom.generators.reproducible import reproducible
from medphantom.generators.sampler import check_solver, noise_of, sample
from medphantom.learning.devices import resolve_device


def generate(
    bundle: GeneratorBundle,
    plan: SamplingPlan,
    out: Path,
    *,
    work: Path,
    sampler: SamplerConfig | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Generate every image of a plan and publish them as a synthetic cohort.

    Finished micro-batches are stored in ``work`` under the digest of bundle, sampler, prompts and seeds. After an
    interruption only the rest is generated, and a changed plan, bundle or sampler never uses another's results. They
    are removed once the cohort is published.

    Args:
        bundle: Bundle of the generator.
        plan: Prompts and seeds of the images.
        out: Folder in which the cohort is published.
        work: Private folder for the state needed to resume.
        sampler: Sampling configuration; by default as recorded in the bundle.
        progress: Callback that receives the number of images done.

    Returns:
        The published cohort, with rows in the order of the plan.

    Raises:
        InputError: If the plan is empty, ``out`` exists, or the solver does not fit the generator.
        PromptError: If a prompt is outside the generator's vocabulary.
        MedphantomError: If an image is not finite.
    """
    settings = settings_for(bundle, plan, sampler or SamplerConfig())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")
    work_folder(work)
    chunks = [_Chunk(bundle, settings, images, work) for images in _slices(plan.images, settings["micro_batch"])]
    done = 0
    for chunk in chunks:
        if chunk.read() is None:
            chunk.write(draw(bundle, chunk.images, settings, plan.masks))
        done += len(chunk.images)
        if progress is not None:
            progress(done, len(plan), "sampling")
    _publish(bundle, settings, chunks, plan, out)
    for chunk in chunks:
        chunk.path.unlink(missing_ok=True)
    return Cohort.open(out)


def settings_for(bundle: GeneratorBundle, plan: SamplingPlan, sampler: SamplerConfig) -> dict[str, Any]:
    """Return the settings that a plan is drawn with, having checked that a generator can draw it.

    Raises:
        InputError: If the plan is empty, or the solver does not fit the generator.
        PromptError: If a prompt is outside the generator's vocabulary.
    """
    settings = resolved(bundle, sampler)
    if not len(plan):
        raise InputError("the plan contains no images", "request at least one")
    bundle.denoiser.conditioner.of_prompts([image.prompt for image in plan], plan.masks)  # before hours are spent
    return settings


def _publish(
    bundle: GeneratorBundle,
    settings: dict[str, Any],
    chunks: Sequence[_Chunk],
    plan: SamplingPlan,
    out: Path,
) -> None:
    with CohortWriter(out, _schema(bundle, settings).model_copy(update={"plan": plan.whole})) as writer:
        for chunk in chunks:
            pixels = chunk.read()
            if pixels is None:
                raise CohortError(f"{chunk.path} was altered after it was finished", "run again")
            for image, array in zip(chunk.images, pixels, strict=True):
                writer.add(_record(bundle, image, array, plan.masks))


def merge(parts: Sequence[Cohort], out: Path) -> Cohort:
    """Publish the rows of several synthetic cohorts (the shards of one plan) as one, in the order of their ids.

    Raises:
        InputError: If there are no parts, two of them contain the same image, or their settings or plans differ.
    """
    if not parts:
        raise InputError("there is nothing to merge", "give at least one synthetic cohort")
    schema = parts[0].schema
    for part in parts[1:]:
        if part.schema.plan != schema.plan:
            raise InputError(
                f"{part.path} was drawn from another plan than {parts[0].path}", "merge shards of one plan"
            )
        if _comparable(part.schema) != _comparable(schema):
            raise InputError(f"{part.path} was generated by another generator or sampler", "merge shards of one plan")
    makers = {digest for part in parts for digest in part.manifest["bundle_digest"].unique()}
    if len(makers) > 1:
        raise InputError("the parts were drawn by different generators", "merge shards of one plan and generator")
    streams = [part.records(_by_id(part)) for part in parts]
    with CohortWriter(out, schema) as writer:
        for record in heapq.merge(*streams, key=lambda record: record.image_id):
            writer.add(record)
    return Cohort.open(out)


def plan_again(cohort: Cohort, rows: Sequence[int]) -> SamplingPlan:
    """Return the plan that generates rows of a synthetic cohort again, independently of the others.

    Raises:
        InputError: If the cohort is not synthetic.
    """
    if cohort.schema.kind != "synthetic":
        raise InputError(f"{cohort.path} is not a synthetic cohort", "give a generated cohort")
    wanted = cohort.manifest.select("image_id", "prompt_json", "seed")[list(rows)]
    images = [
        PlannedImage(image_id=image_id, prompt=Prompt.from_json(prompt), seed=seed)
        for image_id, prompt, seed in wanted.iter_rows()
    ]
    masks = {
        image.prompt.mask: mask
        for image, mask in zip(images, cohort.masks(list(rows)), strict=True)
        if image.prompt.mask is not None and mask is not None
    }
    return SamplingPlan(images, masks)


def reconstruct(bundle: GeneratorBundle, images: Array) -> Array:
    """Return images reconstructed by the autoencoder, from the posterior mean.

    Args:
        bundle: Bundle of the generator.
        images: Images, float ``(N, C, *size)`` in -1…1.

    Returns:
        float32 images of the same shape, in -1…1.

    Raises:
        InputError: If the images do not have the generator's size.
    """
    return batch_by_batch(
        bundle, images, lambda block, _: bundle.autoencoder.decode(bundle.autoencoder.encode(block)[0])
    )


def batch_by_batch(bundle: GeneratorBundle, images: Array, work: Callable[[Tensor, range], Tensor]) -> Array:
    """Process images with a generator's networks, so that each result is independent of the other images.

    Args:
        bundle: Generator, on the device on which it is to run.
        images: Images, float ``(N, C, *size)`` in -1…1.
        work: Function from a full batch (the last one is padded) and its row numbers to images.

    Returns:
        float32 images of the same shape, in -1…1.

    Raises:
        InputError: If the images do not have the generator's size.
    """
    check_images(bundle, images)
    made, size, device = np.empty(images.shape, dtype=np.float32), bundle.facts.micro_batch, _device_of(bundle)
    with reproducible(bundle.facts.threads), torch.inference_mode():
        for start in range(0, len(images), size):
            block = torch.from_numpy(np.ascontiguousarray(images[start : start + size], dtype=np.float32))
            drawn = work(_padded(block, size).to(device), range(start, start + size))
            made[start : start + len(block)] = drawn[: len(block)].clamp(-1, 1).cpu().numpy()
    return made


def check_images(bundle: GeneratorBundle, images: Array) -> None:
    """Refuse images that a generator's networks cannot take.

    Raises:
        InputError: If they do not have the generator's size.
    """
    shape = (bundle.facts.preprocess.channels, *bundle.facts.preprocess.size)
    if tuple(images.shape[1:]) != shape:
        raise InputError(f"images must have shape (N, {', '.join(map(str, shape))}), got {tuple(images.shape)}")


def resolved(bundle: GeneratorBundle, sampler: SamplerConfig) -> dict[str, Any]:
    """Return sampler settings completed from the bundle; the result depends on these alone.

    Raises:
        InputError: If the solver does not fit the generator's objective, or the generator was distilled for others.
    """
    few = bundle.facts.few_calls
    solver = sampler.solver or SOLVERS[bundle.facts.objective.kind][0]
    check_solver(bundle.facts.objective, solver)
    implied: dict[str, Any] = {}
    if few is not None:
        check_few_calls(sampler, few.calls, few.guidance)
        solver, implied = "euler", {"steps": few.calls, "guidance": few.guidance}
    return {
        **sampler.model_dump(mode="json"),
        **implied,
        "solver": solver,
        "micro_batch": sampler.micro_batch or bundle.facts.micro_batch,
        "threads": sampler.threads or bundle.facts.threads,
        "device": resolve_device(sampler.device),
    }


def draw(
    bundle: GeneratorBundle,
    images: Sequence[PlannedImage],
    settings: dict[str, Any],
    masks: Mapping[str, Array] | None = None,
) -> Array:
    """Generate one micro-batch.

    Args:
        bundle: Bundle of the generator.
        images: Planned images, at most ``settings["micro_batch"]``.
        settings: Sampler settings from :func:`resolved`.
        masks: Masks by digest, for the prompts that name one.

    Returns:
        Source values, ``(n, *size)`` or ``(n, *size, 3)`` of the stored dtype.

    Raises:
        MedphantomError: If an image is not finite.
    """
    facts = bundle.facts
    bundle.to(settings["device"])
    padded = [*images, *[images[-1]] * (settings["micro_batch"] - len(images))]
    prompts = [image.prompt for image in padded]
    conditions = bundle.denoiser.conditioner.of_prompts(prompts, masks).to(settings["device"])
    noise = noise_of([image.seed for image in padded], facts.latent_shape).to(settings["device"])
    interval = settings["guidance_interval"]
    denoise = guided(
        bundle.denoiser,
        conditions,
        scale=settings["guidance"] if facts.few_calls is None else 1.0,  # or else a part of the network
        interval=None if interval is None else (interval[0], interval[1]),
    )
    with reproducible(settings["threads"]), torch.inference_mode():
        latents = sample(
            denoise,
            noise,
            objective=facts.objective,
            solver=settings["solver"],
            steps=settings["steps"],
            drift=settings["drift"],
        )
        drawn = bundle.autoencoder.decode(unscaled(latents, facts.latent_scaling))[: len(images)].cpu().numpy()
    if not np.isfinite(drawn).all():
        raise MedphantomError("a generated image is not finite", "lower sampler.guidance or raise sampler.steps")
    return np.stack([facts.preprocess.undo(image) for image in drawn])


class _Chunk:
    """One micro-batch of a plan, and the file that stores it once generated."""

    def __init__(
        self, bundle: GeneratorBundle, settings: dict[str, Any], images: Sequence[PlannedImage], work: Path
    ) -> None:
        self.images = images
        self.key = json_digest([bundle.digest, settings, [image.model_dump(mode="json") for image in images]])
        self.path = work / f"{self.key[:32]}.safetensors"

    def write(self, pixels: Array) -> None:
        """Store the pixels atomically."""
        temporary = self.path.with_suffix(".tmp")
        with no_space_becomes_one_line(self.path):
            save_file({"pixels": pixels}, temporary, {"key": self.key, "digest": pixel_digest(pixels)})
            temporary.replace(self.path)

    def read(self) -> Array | None:
        """Return the stored pixels; ``None`` if there is no intact file."""
        try:
            with reading(self.path), safe_open(self.path, framework="numpy") as file:
                facts, pixels = file.metadata() or {}, file.get_tensor("pixels")
        except ArtifactError:
            return None
        whole = facts.get("key") == self.key and facts.get("digest") == pixel_digest(pixels)
        return pixels if whole and len(pixels) == len(self.images) else None


def _slices(images: Sequence[PlannedImage], size: int) -> Iterator[Sequence[PlannedImage]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _padded(block: Tensor, rows: int) -> Tensor:
    missing = rows - len(block)
    return torch.cat([block, block[-1:].expand(missing, *block.shape[1:])]) if missing else block


def _device_of(bundle: GeneratorBundle) -> torch.device:
    return next(bundle.autoencoder.parameters()).device


def _schema(bundle: GeneratorBundle, settings: dict[str, Any]) -> CohortSchema:
    facts = bundle.facts
    return CohortSchema(
        kind="synthetic",
        spatial_dims=3 if len(facts.preprocess.size) == 3 else 2,
        labels=facts.conditions.labels,
        exclusive=facts.conditions.exclusive,
        attributes=facts.conditions.attributes,
        has_text=facts.conditions.text is not None,
        mask_values={} if facts.conditions.mask is None else facts.conditions.mask.values,
        patients="per_image",
        generation=settings,
    )


def _comparable(schema: CohortSchema) -> CohortSchema:
    """Return the schema without the ranges that depend on the rows themselves."""
    bare = tuple(spec.model_copy(update={"low": None, "high": None}) for spec in schema.attributes)
    return schema.model_copy(update={"attributes": bare})


def _by_id(cohort: Cohort) -> list[int]:
    """Return the row numbers in the order of image ids, which is that of the plan."""
    return [int(row) for row in cohort.manifest["image_id"].arg_sort()]


def _record(bundle: GeneratorBundle, image: PlannedImage, pixels: Array, masks: Mapping[str, Array]) -> ImageRecord:
    facts = bundle.facts
    spacing_mm, affine = facts.geometry(image.prompt)
    labels: dict[str, bool | None] = {name: image.prompt.labels.get(name) for name in facts.conditions.labels}
    if facts.conditions.exclusive and any(image.prompt.labels.values()):
        labels = {name: bool(shown) for name, shown in labels.items()}
    return ImageRecord(
        image_id=image.image_id,
        patient=image.image_id,
        pixels=pixels,
        split=SYNTHETIC_SPLIT,
        channels=facts.preprocess.channels,
        spacing_mm=spacing_mm,
        affine=affine,
        modality=facts.modality,
        labels=labels,
        attributes=dict(image.prompt.attributes),
        text=bundle.denoiser.conditioner.words(image.prompt),
        mask=None if image.prompt.mask is None else masks[image.prompt.mask],
        provenance=Provenance(bundle.digest, image.prompt.to_json(), image.seed),
    )
