"""Counterfactuals as a cohort: for each image one row per role (:mod:`medphantom.cohorts.pairs`).

It consists of edits of real patients and is as private as they are: its kind is ``counterfactual``, which is never
accepted as synthetic data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medphantom.cohorts.pairs import ROLE, ROLES, Role, pair_id
from medphantom.cohorts.records import AttributeSpec, CohortSchema, ImageRecord, Provenance
from medphantom.cohorts.scale import check_same_scale
from medphantom.cohorts.store import Cohort
from medphantom.cohorts.writer import CohortWriter
from medphantom.conditioning.conditioner import row_prompts
from medphantom.conditioning.prompt import Intervention, Prompt
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import CounterfactualConfig
from medphantom.generators.counterfactual import Counterfactuals, counterfactual_images
from medphantom.generators.training_data import training_digest


def changed_rows(bundle: GeneratorBundle, cohort: Cohort, rows: Sequence[int], intervention: Intervention) -> list[int]:
    """Return the rows that the intervention changes; an intervention with a range changes all.

    Raises:
        InputError: If there are none.
        PromptError: If the intervention is outside the generator's vocabulary.
    """
    schema = bundle.facts.conditions
    prompts = row_prompts(cohort, rows, schema)
    found = [
        row
        for row, prompt in zip(rows, prompts, strict=True)
        if intervention.ranges or intervention.applied(prompt, schema) != prompt
    ]
    if not found:
        raise InputError(
            "the intervention changes nothing about any of these images",
            "set a value that they do not have, or name another split",
        )
    return found


def publish_counterfactuals(
    bundle: GeneratorBundle,
    cohort: Cohort,
    rows: Sequence[int],
    intervention: Intervention,
    config: CounterfactualConfig,
    *,
    out: Path,
    progress: Progress | None = None,
) -> Cohort:
    """Generate counterfactuals of rows and publish them, one row per image and role.

    The rows of one image have its patient, study and split, the attribute ``role`` and, as labels and attributes, the
    prompt of that image. A difference is counterfactual minus factual in stored values, signed.

    Args:
        bundle: Bundle of the generator.
        cohort: Cohort of real images.
        rows: Row numbers of the images, see :func:`changed_rows`.
        intervention: Intervention; from a range, every image takes its own value by ``config.seed``.
        config: Counterfactual method and its settings.
        out: Folder in which the cohort is published.
        progress: Callback that receives the number of steps done, of those of all images together.

    Raises:
        InputError: If ``out`` exists, there are no rows, the generator has no conditions to intervene on, or it was
            trained on images with values on another scale.
        PromptError: If an intervention is on a value that the generator was not trained on.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already", "choose another --out, or remove it first")
    if training_digest(cohort) != bundle.facts.training_digest:
        remedy = "ingest images with values in the unit of those that it learned from"
        check_same_scale(cohort, bundle.facts.preprocess, called="images of this cohort", remedy=remedy)
    ids = cohort.manifest["image_id"].gather(list(rows)).to_list()
    actions = [intervention.drawn(config.seed, image_id) for image_id in ids]
    made = counterfactual_images(bundle, cohort, rows, actions, config, progress=progress)
    with CohortWriter(out, _described(bundle, cohort, intervention, config)) as writer:
        for place, (row, image_id) in enumerate(zip(rows, ids, strict=True)):
            kept = _kept(bundle, cohort, row)
            for name, prompt, pixels in _roles(bundle, made, place):
                record = ImageRecord(
                    image_id=pair_id(image_id, name),
                    pixels=pixels,
                    channels=bundle.facts.preprocess.channels,
                    modality=bundle.facts.modality,
                    labels=dict(prompt.labels),
                    attributes={**prompt.attributes, ROLE: name},
                    provenance=Provenance(bundle.digest, prompt.to_json(), config.seed),
                    **kept,
                )
                writer.add(record)
    return Cohort.open(out)


def _kept(bundle: GeneratorBundle, cohort: Cohort, row: int) -> dict[str, Any]:
    """Return what the images of one source share with it: patient and study, and geometry on the network's grid."""
    source, preprocess = cohort.manifest.row(row, named=True), bundle.facts.preprocess
    shape = source["shape"][: len(preprocess.size)]
    return {
        **{name: source[name] for name in ("patient", "study", "split")},
        "spacing_mm": preprocess.spacing_after(shape, source["spacing_mm"]),
        "affine": preprocess.affine_after(shape, source["affine"]),
    }


def _described(
    bundle: GeneratorBundle, cohort: Cohort, intervention: Intervention, config: CounterfactualConfig
) -> CohortSchema:
    schema = bundle.facts.conditions
    role = AttributeSpec(name=ROLE, kind="categorical", categories=tuple(sorted(ROLES)))
    return CohortSchema(
        kind="counterfactual",
        spatial_dims=cohort.schema.spatial_dims,
        labels=schema.labels,
        exclusive=schema.exclusive,
        attributes=(*schema.attributes, role),
        patients=cohort.schema.patients,
        generation={
            **config.model_dump(mode="json"),
            "source": cohort.digest,
            "intervention": intervention.model_dump(mode="json"),
            "preprocess": bundle.facts.preprocess.model_dump(mode="json"),
        },
    )


def _roles(bundle: GeneratorBundle, made: Counterfactuals, place: int) -> Iterator[tuple[Role, Prompt, Array]]:
    undo, before, after = bundle.facts.preprocess.undo, made.before[place], made.after[place]
    factual, counterfactual = undo(made.factual[place]), undo(made.counterfactual[place])
    yield "factual", before, factual
    yield "counterfactual", after, counterfactual
    wide = factual.dtype if factual.dtype.kind == "f" else np.int16 if factual.dtype.itemsize == 1 else np.int32
    yield "difference", after, counterfactual.astype(wide) - factual.astype(wide)
    if made.reversed is not None:
        yield "reversed", before, undo(made.reversed[place])
    yield "reconstruction", before, undo(made.reconstruction[place])
