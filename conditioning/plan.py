"""The sampling plan, decided before anything is generated: an ordered list of (image id, prompt, seed).

This module does not import torch: plans are created, compared and skipped without loading it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, ValidationError
from safetensors.numpy import load_file, save_file

from medphantom.cohorts.records import PlanFacts
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.prompt import ConditionSchema, Prompt
from medphantom.conditioning.training_rows import TrainingRows
from medphantom.core.arguments import checked
from medphantom.core.errors import InputError, PromptError
from medphantom.core.folders import json_digest, no_space_becomes_one_line, pixel_digest
from medphantom.core.guard import parse_json, reading, user_path
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array, Frozen

NO_FINDING = "no finding"
MIN_PATIENTS = 5


class PlannedImage(Frozen):
    """One image to generate.

    Attributes:
        image_id: Identifier, unique in the plan; it becomes the id of the synthetic row and part of file names.
        prompt: Prompt of the image.
        seed: Seed of all noise of the image.
    """

    image_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    prompt: Prompt
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class SamplingPlan:
    """An ordered list of images to generate, each with an id of its own.

    Args:
        images: Planned images, in the order of the synthetic cohort.
        masks: Masks on the generator's grid by digest, for the prompts that name one.
        whole: The plan of which these images are a shard; by default they are the whole plan.

    Raises:
        InputError: If two images share an id, a prompt names a missing mask, or something else than images is given.
    """

    def __init__(
        self,
        images: Iterable[PlannedImage],
        masks: Mapping[str, Array] | None = None,
        *,
        whole: PlanFacts | None = None,
    ) -> None:
        self._whole = whole
        self.images: tuple[PlannedImage, ...] = tuple(images) if isinstance(images, Iterable) else (images,)
        if wrong := [image for image in self.images if not isinstance(image, PlannedImage)]:
            raise InputError(
                f"a plan consists of PlannedImage, got {type(wrong[0]).__name__}", "medphantom.plan makes one"
            )
        self.masks: dict[str, Array] = {}
        for image in self.images:
            if image.prompt.mask is not None:
                if masks is None or image.prompt.mask not in masks:
                    raise InputError(
                        f"the plan names mask {image.prompt.mask[:12]} but does not contain it",
                        "keep the plan and its .masks.safetensors together",
                    )
                self.masks[image.prompt.mask] = masks[image.prompt.mask]
        for image_id, count in Counter(image.image_id for image in self.images).items():
            if count > 1:
                raise InputError(
                    f"the plan contains image id {image_id!r} {count} times", "give every image its own id"
                )

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[PlannedImage]:
        return iter(self.images)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SamplingPlan) and self.images == other.images

    __hash__ = None  # type: ignore[assignment]  # as for a list; prompts hold dictionaries

    @cached_property
    def digest(self) -> str:
        """Digest of all ids, prompts and seeds in order."""
        return json_digest([image.model_dump(mode="json", exclude_none=True) for image in self.images])

    @property
    def whole(self) -> PlanFacts:
        """The whole plan, of which this may be a shard; an empty plan has none.

        Raises:
            InputError: If the plan is empty.
        """
        if self._whole is None and not self.images:
            raise InputError("the plan contains no images", "request at least one")
        return self._whole or PlanFacts(digest=self.digest, images=len(self))

    @checked
    def shard(self, index: int, total: int) -> SamplingPlan:
        """Return every ``total``-th image from ``index`` on: the shards of all indices form the plan, each image once.

        Raises:
            InputError: If not 0 ≤ index < total.
        """
        if not 0 <= index < total:
            raise InputError(f"a shard must have 0 ≤ index < total, got {index} of {total}", "count shards from 0")
        whole = self._whole if not self.images else self.whole
        return SamplingPlan(self.images[index::total], self.masks, whole=whole)

    @checked
    def to_jsonl(self, path: str | Path) -> None:
        """Write one JSON object per line, atomically; masks are stored beside it in ``<stem>.masks.safetensors``.

        Raises:
            InputError: If the path is a folder, or its folder does not exist.
            ResourceError: If the disk is full or cannot be written.
        """
        path = Path(path)
        if user_path(path).is_dir() or not path.absolute().parent.is_dir():
            raise InputError(f"{path} cannot be written as a file", "give a file in a folder that exists")
        temporary = path.with_name(f".{path.name}.tmp")
        with no_space_becomes_one_line(path):
            try:
                if self.masks:
                    save_file(
                        {digest: np.ascontiguousarray(mask) for digest, mask in self.masks.items()}, masks_of(path)
                    )
                with temporary.open("w", encoding="utf-8") as stream:
                    for image in self.images:
                        line = image.model_dump(mode="json", exclude_none=True)
                        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    @classmethod
    @checked
    def from_jsonl(cls, path: str | Path, schema: ConditionSchema | None = None) -> SamplingPlan:
        """Read what :meth:`to_jsonl` wrote, or a file written by hand; empty lines are skipped.

        Args:
            path: Path of the JSON Lines file.
            schema: Schema against which every prompt is checked.

        Raises:
            InputError: If the file cannot be read, or a line is not a planned image; the message names line and field.
            PromptError: If a prompt is outside the schema; the message names the line.
        """
        path = Path(path)
        with reading(user_path(path), InputError, "cannot be read as a plan", "give a JSON Lines file"):
            lines = path.read_text(encoding="utf-8").splitlines()
        parsed = (_parse(line, f"{path} line {place}", schema) for place, line in enumerate(lines, 1) if line.strip())
        return cls(parsed, read_masks(masks_of(path)))


def masks_of(plan: Path) -> Path:
    """Return the path of the file beside a plan that contains its masks."""
    return plan.with_name(f"{plan.stem}.masks.safetensors")


def read_masks(path: Path) -> dict[str, Array]:
    """Read the masks beside a plan, each by its own digest; none if there is no such file.

    Raises:
        InputError: If the file is damaged, or a mask does not match its digest.
    """
    if not path.exists():
        return {}
    with reading(path, InputError, "is not a safetensors file of masks", "save the plan again"):
        masks: dict[str, Array] = load_file(path)
        for digest, mask in masks.items():
            if pixel_digest(mask) != digest:
                raise InputError(
                    f"{path} was altered: one of its masks does not match its digest", "save the plan again"
                )
    return masks


def _parse(line: str, where: str, schema: ConditionSchema | None) -> PlannedImage:
    with reading(where, InputError, "is not a JSON object", "write one JSON object per line"):
        try:
            image = PlannedImage.model_validate(parse_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the object"
            raise InputError(f"{where}: {field}: {first['msg'].lower()}", "fix the line") from None
    try:
        if schema is not None:
            schema.check(image.prompt)
    except PromptError as error:
        raise PromptError(f"{where}: {error.what}", error.remedy) from None
    return image


def plan_prompts(
    prompts: Iterable[Prompt], seed: int, *, fresh: str = "", masks: Mapping[str, Array] | None = None
) -> SamplingPlan:
    """Return a plan of given prompts, in order.

    The seed of an image derives only from (run seed, position in the plan, ``fresh``), so plans of other prompts can be
    compared at the same noise. Its id also derives from the prompt: equal ids mean equal requests.

    Args:
        prompts: Prompts of the images.
        seed: Seed of the run.
        fresh: Tag that enters all seeds, such as the date of a nightly run: another tag gives new images.
        masks: Masks by digest, for the prompts that name one.
    """
    images = []
    for place, prompt in enumerate(prompts):
        name = derive_seed(seed, "image id", place, fresh, prompt.to_json())
        images.append(
            PlannedImage(
                image_id=f"{place:06d}-{name:016x}", prompt=prompt, seed=derive_seed(seed, "image", place, fresh)
            )
        )
    return SamplingPlan(images, masks)


def plan_counts(schema: ConditionSchema, counts: Mapping[str, int], seed: int, *, fresh: str = "") -> SamplingPlan:
    """Return a plan with the requested number of images per label; other labels and all attributes are not specified.

    Args:
        schema: Vocabulary of the generator.
        counts: Number of images by label; ``no finding`` requests images on which every label is absent.
        seed: Seed of the run.
        fresh: Tag of all seeds, as in :func:`plan_prompts`.

    Raises:
        PromptError: If a label is unknown.
        InputError: If a count is negative, or none is positive.
    """
    prompts: list[Prompt] = []
    for name, count in counts.items():
        if count < 0:
            raise InputError(f"plan.counts.{name} must be ≥ 0, got {count}")
        absent = name == NO_FINDING and name not in schema.labels and not schema.exclusive
        prompt = Prompt(labels=dict.fromkeys(schema.labels, False) if absent else {name: True})
        prompts += [schema.check(prompt)] * count
    if not prompts:
        raise InputError("plan.counts requests no images", "give at least one label a count of 1 or more")
    return plan_prompts(prompts, seed, fresh=fresh)


def plan_match(
    cohort: Cohort,
    total: int,
    seed: int,
    *,
    fresh: str = "",
    schema: ConditionSchema | None = None,
    min_patients: int = MIN_PATIENTS,
) -> SamplingPlan:
    """Return a plan with labels and attributes distributed as in the real training split.

    Each prompt is drawn from a training row, with replacement, its labels and attributes together, so that joint
    frequencies are preserved.

    This discloses which labels and categories occur together in the training split, and roughly how often. The
    disclosure is limited as follows: a combination of fewer than ``min_patients`` patients is not written down
    (:class:`~medphantom.conditioning.training_rows.TrainingRows` describes the replacement); continuous attributes are
    never copied, but drawn near a row's value, since a row of exact values, such as an age with a rare finding, may
    identify a patient; and counts vary randomly instead of equalling those of the split. This is not a formal
    guarantee.

    Args:
        cohort: Real cohort; only its ``train`` rows are used.
        total: Number of images in total.
        seed: Seed of the run.
        fresh: Tag of all seeds, as in :func:`plan_prompts`.
        schema: Vocabulary of the generator; by default that of the cohort.
        min_patients: Smallest number of patients of a combination, see above; 1 switches the limit off.

    Raises:
        InputError: If ``total`` < 1, or the cohort has no training rows.
    """
    if total < 1:
        raise InputError(f"plan.total must be ≥ 1, got {total}")
    rows = TrainingRows(cohort, schema, min_patients)
    prompts = []
    for place in range(total):
        rng = np.random.default_rng(derive_seed(seed, "prompt", place, fresh))
        prompts.append(rows.prompt(int(rng.integers(len(rows))), rng))
    return plan_prompts(prompts, seed, fresh=fresh)


def plan_balance(
    cohort: Cohort,
    per_label: int,
    seed: int,
    *,
    fresh: str = "",
    labels: Sequence[str] | None = None,
    schema: ConditionSchema | None = None,
    min_patients: int = MIN_PATIENTS,
) -> SamplingPlan:
    """Return a plan that tops up every label to ``per_label`` images, counting those of the training split that show
    it.

    The next image always goes to the label with the fewest images; it is drawn from the training rows that show that
    label, with all their labels, so that co-occurring labels are counted too (and may end above ``per_label``).
    Disclosure and its limits are those of :func:`plan_match`.

    Args:
        cohort: Real cohort; only its ``train`` rows are used.
        per_label: Number of images per label, real and synthetic together.
        seed: Seed of the run.
        fresh: Tag of all seeds, as in :func:`plan_prompts`.
        labels: Labels to top up; by default all.
        schema: Vocabulary of the generator; by default that of the cohort.
        min_patients: Smallest number of patients of a combination, as in :func:`plan_match`.

    Raises:
        InputError: If a label has no training row (nothing could be learned about it), or all have enough images.
    """
    rows = TrainingRows(cohort, schema, min_patients)
    wanted = list(labels if labels is not None else rows.schema.labels)
    for name in wanted:
        rows.schema.check(Prompt(labels={name: True}))
        if not len(rows.showing(name)):
            raise InputError(
                f"label {name!r} has no image in the training split, so it cannot be topped up",
                "leave it out of the labels to balance",
            )
    counts = {name: len(rows.showing(name)) for name in wanted}
    fewest = min(counts.values(), default=0)
    prompts: list[Prompt] = []
    while min(counts.values(), default=per_label) < per_label:
        rarest = min(counts, key=lambda name: counts[name])
        rng = np.random.default_rng(derive_seed(seed, "prompt", len(prompts), fresh))
        prompt = rows.prompt(int(rng.choice(rows.showing(rarest))), rng, keep=rarest)
        prompts.append(prompt)
        for name in counts:
            counts[name] += prompt.labels.get(name, False)
    if not prompts:
        raise InputError(
            f"every label has {per_label} training images already (the smallest number is {fewest})",
            "raise plan.per_label",
        )
    return plan_prompts(prompts, seed, fresh=fresh)
