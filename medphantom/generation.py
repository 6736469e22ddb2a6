"""A trained generator as an object: loaded from a folder or from the hub, called with a prompt, images in memory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.foreign import no_hub
from medphantom.conditioning.plan import PlannedImage, SamplingPlan, plan_prompts
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.core.arguments import Count, Seed, checked
from medphantom.core.errors import BundleError, InputError, PromptError
from medphantom.core.folders import DIGEST_FILE, file_digest, inside, pixel_digest, publishing, read_digest
from medphantom.core.guard import folder_path, reading
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.flows.recipes.recipe_file import section
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SamplerConfig
from medphantom.generators.facts import Privacy, read_facts
from medphantom.generators.generate import draw, settings_for
from medphantom.shipped import source_path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
DOWNLOADED = ("*.json", "*.safetensors")  # all that a bundle consists of


@dataclass(frozen=True, eq=False)
class GeneratedImages:
    """The images that a call of a :class:`Generator` returns.

    Attributes:
        images: The source values ``(n, *size)``, or ``(n, H, W, 3)`` in colour, of the dtype that the generator stores
            (grey levels, Hounsfield units…), with large values bright.
        prompts: The prompt of each image.
        seeds: The seed of each image; the same prompt and seed give the same image again, alone or among others.
        preprocess: The preprocessing that converts source values to network input.
        masks: The masks that prompts name, by digest.
    """

    images: Array
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    preprocess: Preprocess
    masks: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"GeneratedImages({len(self)} of {self.images.shape[1:]}, {self.images.dtype})"

    @property
    def value_range(self) -> tuple[float, float]:
        """The source values of black and of white."""
        ends = self.preprocess.undo(np.tile([-1.0, 1.0], (self.preprocess.channels, 1)))
        return float(ends.min()), float(ends.max())

    @property
    def pil(self) -> list[Image.Image]:
        """The images as pictures of 8 bits; values of other types are scaled from :attr:`value_range` to 0…255.

        Raises:
            InputError: The images are volumes.
        """
        if len(self.preprocess.size) == 3:
            raise InputError("volumes are no pictures", "choose a slice: Image.fromarray(images[0, 10])")
        return [Image.fromarray(values) for values in self._eight_bits()]

    @property
    def network(self) -> Array:
        """The images as networks take them: float32 ``(n, C, *size)`` in -1…1."""
        channels = self.preprocess.channels
        made = [self.preprocess.apply(image, source_channels=channels) for image in self.images]
        return np.stack(made) if made else np.zeros((0, channels, *self.preprocess.size), np.float32)

    def _eight_bits(self) -> Array:
        if self.images.dtype == np.uint8:
            return self.images
        low, high = self.value_range
        grey = (self.images.astype(np.float64) - low) / (high - low)
        found: Array = np.rint(grey.clip(0, 1) * 255).astype(np.uint8)
        return found


class Generator:
    """A trained generator.

    Args:
        bundle: The trained networks and the facts about them.
        folder: The published folder that they were read from, which :meth:`save_pretrained` copies.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> import medphantom as mp
        >>> folder = Path(mkdtemp())
        >>> _ = mp.phantom(folder / "files", patients=24, format="png", size=32)
        >>> cohort = mp.ingest(folder / "files", folder / "cohort", public_phrase="simulated patients")
        >>> networks = ("autoencoder", "denoiser", "features")
        >>> fits = {f"{network}_fit": {"steps": 2, "tracker": "none"} for network in networks}
        >>> _ = mp.train(cohort, folder / "bundle", size=16, generator=fits)

        >>> generator = mp.Generator.from_pretrained(folder / "bundle")
        >>> generator.size, "effusion" in generator.labels, generator.privacy.formal
        ((16, 16), True, 'no formal guarantee')
        >>> made = generator(labels={"effusion": True}, attributes={"age": 60}, n=2, seed=0, sampler={"steps": 2})
        >>> made.images.shape, made.images.dtype, made.pil[0].size
        ((2, 16, 16), dtype('uint8'), (16, 16))
        >>> again = generator(labels={"effusion": True}, attributes={"age": 60}, seeds=made.seeds[1:],
        ...                   sampler={"steps": 2})
        >>> bool((again.images[0] == made.images[1]).all())
        True
        >>> generator(labels={"efusion": True})
        Traceback (most recent call last):
        medphantom.core.errors.PromptError: label 'efusion' is unknown to this generator; did you mean 'effusion'?
    """

    def __init__(self, bundle: GeneratorBundle, folder: str | Path | None = None) -> None:
        self.bundle = bundle
        self.folder = None if folder is None else Path(folder)
        self._published = None if self.folder is None else read_digest(self.folder, error=BundleError)

    @classmethod
    @checked
    def from_pretrained(
        cls, source: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None
    ) -> Generator:
        """Load a published bundle, checked file by file against its digests.

        Only JSON and safetensors are read, and no code that comes with them is run. A folder causes no request to the
        hub: if its bundle holds only what was fine-tuned from a base of the hub, that base must be in the hub's cache.

        Args:
            source: The folder, ``base:NAME`` for a base that ships with this program, or the hub id ``owner/name`` of a
                repository that holds the files of a bundle.
            revision: The branch, tag or commit on the hub.
            cache_dir: The folder for downloads; the default is the hub's own cache.

        Raises:
            InputError: There is no such folder, and the hub does not have it or cannot be reached; or its base is
                missing.
            BundleError: The bundle is unfinished, altered, of another version, or holds pickled weights.
        """
        folder = folder_path(source_path(str(source)).expanduser(), BundleError)
        if folder.is_dir():
            return cls(_load(folder), folder)
        if not HUB_ID.fullmatch(str(source)):
            raise BundleError(f"{source} is not a folder", "check the path, or give a hub id: owner/name")
        folder = _download(str(source), revision, cache_dir)
        return cls(GeneratorBundle.load(folder, linked=folder.parents[1]), folder)

    def __repr__(self) -> str:
        return f"Generator({'x'.join(map(str, self.size))}, digest {self.bundle.digest[:12]})"

    @property
    def schema(self) -> ConditionSchema:
        """The vocabulary of prompts: labels, attributes with their ranges, whether text and masks are read."""
        return self.bundle.facts.conditions

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels in the vocabulary."""
        return self.schema.labels

    @property
    def attributes(self) -> tuple[AttributeSpec, ...]:
        """The attributes in the vocabulary, with unit and range or with categories."""
        return self.schema.attributes

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial size of the images in pixels, ``(H, W)`` or ``(D, H, W)``."""
        return self.preprocess.size

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that converts source values to network input, and back."""
        return self.bundle.facts.preprocess

    @property
    def privacy(self) -> Privacy:
        """The privacy statement about the training patients: ``.formal`` in words, ``.guarantee`` in numbers."""
        return self.bundle.facts.privacy

    @property
    def intended_use(self) -> str:
        """The intended use of the generator."""
        return self.bundle.facts.intended_use

    @checked
    def __call__(
        self,
        labels: Mapping[str, bool] | None = None,
        attributes: Mapping[str, float | str] | None = None,
        text: str | None = None,
        mask: Array | None = None,
        *,
        n: Count = 1,
        seed: Seed = 0,
        seeds: Sequence[Seed] | None = None,
        sampler: Mapping[str, Any] | SamplerConfig | None = None,
        progress: Progress | None = None,
    ) -> GeneratedImages:
        """Draw images of one prompt; whatever the prompt leaves open is chosen by the model.

        They are the images that ``medphantom generate`` draws for the same prompts, seed and sampler, bit for bit.

        Args:
            labels: Whether each named label is present or absent.
            attributes: The number or category of each named attribute.
            text: The sentence or report.
            mask: The mask as integers, of the generator's :attr:`size`.
            n: The number of images.
            seed: The run seed, from which the seed of each image derives.
            seeds: The seed of each image itself, instead of ``n`` and ``seed``; 0 ≤ seed < 2^63.
            sampler: The settings of the ``sampler`` section of a recipe, such as ``{"steps": 50, "guidance": 2.0}``.
            progress: The function that receives the number of finished images.

        Raises:
            PromptError: The prompt has a label, attribute, category or mask value outside the vocabulary, or a kind of
                prompt that the generator does not read.
            InputError: ``n`` is below 1, a seed is out of range, ``n`` or ``seed`` is given beside ``seeds``, or a
                setting of the sampler does not fit.
            MedphantomError: An image is not finite.
        """
        prompt, masks = _prompt(labels, attributes, text, mask)
        return self.draw(_plan(prompt, masks, n, seed, seeds), sampler=sampler, progress=progress)

    @checked
    def draw(
        self,
        plan: SamplingPlan,
        *,
        sampler: Mapping[str, Any] | SamplerConfig | None = None,
        progress: Progress | None = None,
    ) -> GeneratedImages:
        """Draw the images of a plan (:func:`medphantom.plan`) into memory; :meth:`generate` writes them to a cohort.

        Args:
            plan: The plan of prompts and seeds.
            sampler: The settings of the sampler, as for :meth:`__call__`.
            progress: The function that receives the number of finished images.

        Raises:
            InputError: The plan is empty, or a setting of the sampler does not fit.
            PromptError: A prompt is outside the generator's vocabulary.
            MedphantomError: An image is not finite.
        """
        settings = settings_for(self.bundle, plan, section(SamplerConfig, sampler, "sampler"))
        drawn, size = [], settings["micro_batch"]
        for start in range(0, len(plan), size):
            drawn.append(draw(self.bundle, plan.images[start : start + size], settings, plan.masks))
            if progress is not None:
                progress(min(start + size, len(plan)), len(plan), "sampling")
        return GeneratedImages(
            images=np.concatenate(drawn),
            prompts=tuple(image.prompt for image in plan),
            seeds=tuple(image.seed for image in plan),
            preprocess=self.preprocess,
            masks=plan.masks,
        )

    @checked
    def generate(
        self,
        plan: SamplingPlan,
        out: str | Path,
        *,
        sampler: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Cohort:
        """Draw the images of a plan into a synthetic cohort, as :func:`medphantom.generate` does.

        Args:
            plan: The plan of prompts and seeds, from :func:`medphantom.plan`.
            out: The folder of the synthetic cohort.
            sampler: The settings of the ``sampler`` section.
            progress: The function that receives the number of finished images.
        """
        from medphantom import generate

        return generate(self.bundle, plan, out, sampler=sampler, progress=progress)

    @checked
    def save_pretrained(self, out: str | Path) -> None:
        """Publish the bundle in another folder, file by file as it was read; a bundle that was never on disk is
        written.

        Raises:
            InputError: The folder exists already and is not empty.
            BundleError: The folder that the bundle was read from has changed since.
            ResourceError: The disk is full or cannot be written.
        """
        if self.folder is None or self._published is None:
            self.bundle.save(out)
            return
        changed = BundleError(f"{self.folder} has changed since it was read", "load it again")
        with publishing(Path(out)) as target:
            for name, digest in self._published["files"].items():
                if not (self.folder / name).is_file():
                    raise changed
                copy = inside(target, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / name, copy)
                if file_digest(copy) != digest:
                    raise changed
            shutil.copyfile(self.folder / DIGEST_FILE, target / DIGEST_FILE)
            if read_digest(target, error=BundleError) != self._published:
                raise changed


def _load(folder: Path) -> GeneratorBundle:
    """Load a bundle from a folder, without a request to the hub."""
    base = read_facts(folder)[0].base
    remote = base is not None and base.needed and not source_path(base.source).is_dir()
    with no_hub():
        try:
            return GeneratorBundle.load(folder)
        except InputError as error:
            if base is None or not remote:
                raise
            remedy = f"a folder asks no hub: download the base first, with hf download {base.source}"
            raise InputError(error.what, remedy) from None


def _download(source: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    """Return the snapshot of a bundle in the hub's cache, with JSON and safetensors only."""
    from huggingface_hub import snapshot_download

    problem, remedy = "is no folder, and cannot be had from the hub", "check path, name, revision and connection"
    with reading(source, InputError, problem, remedy):
        try:
            found = snapshot_download(source, revision=revision, cache_dir=cache_dir, allow_patterns=list(DOWNLOADED))
        except FileNotFoundError:  # not of a file: of an entry of the cache
            raise InputError(f"{source} {problem}", remedy) from None
    return Path(found)


def _prompt(
    labels: Mapping[str, bool] | None,
    attributes: Mapping[str, float | str] | None,
    text: str | None,
    mask: Array | None,
) -> tuple[Prompt, dict[str, Array]]:
    masks = {}
    if mask is not None:
        whole = np.asarray(mask)
        whole = whole.astype(np.uint8) if whole.dtype == bool else whole
        if whole.dtype.kind not in "iu":
            raise PromptError(f"a mask holds whole numbers, got {whole.dtype}", "round it, or give it as integers")
        masks = {pixel_digest(whole): whole}
    stated = {"labels": _plain(labels), "attributes": _plain(attributes), "text": text, "mask": next(iter(masks), None)}
    try:
        prompt = Prompt.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise PromptError(f"{place}: {first['msg'].lower()}", "e.g. labels={'effusion': True}") from None
    return prompt, masks


def _plain(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a dictionary without numpy's numbers, which a prompt does not take."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in (values or {}).items()}


def _plan(prompt: Prompt, masks: Mapping[str, Array], n: int, seed: int, seeds: Sequence[int] | None) -> SamplingPlan:
    if seeds is None:
        return plan_prompts([prompt] * n, seed, masks=masks)
    if n not in {1, len(seeds)} or seed != 0:
        raise InputError("seeds and n or seed are mutually exclusive: each image has its own seed", "leave n, seed out")
    images = [PlannedImage(image_id=f"{place:06d}", prompt=prompt, seed=one) for place, one in enumerate(seeds)]
    return SamplingPlan(images, masks)
