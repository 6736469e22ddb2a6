"""The parts of an assessment about prompts other than labels: attribute values and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from medphantom.cohorts.records import AttributeSpec
from medphantom.cohorts.store import Cohort
from medphantom.core.errors import UnsupportedClaim
from medphantom.core.progress import stage
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.quality.assessment.parts import NUM_FEATURES, Context, Estimates
from medphantom.quality.conditions.fidelity import ReadValues, TextSimilarity, attribute_errors, text_similarity
from medphantom.quality.data.texts import texts_of
from medphantom.quality.networks.encoders import load_text_image_encoder
from medphantom.quality.networks.regressor import fit_regressor
from medphantom.quality.stats.estimate import Estimate


def attribute_part(context: Context) -> Estimates:
    """Errors of prompted attribute values; empty if there were none."""
    data = context.data
    known = {spec.name for spec in data.synthetic.schema.attributes if spec.kind == "continuous"}
    requested = [
        spec for spec in data.real.schema.attributes if spec.name in known and _observed(data.synthetic, spec.name)
    ]
    found: list[Estimate] = []
    for place, spec in enumerate(requested):
        found += _attribute(context, spec, place, len(requested))
    return Estimates(estimates=tuple(found))


def _observed(cohort: Cohort, name: str) -> bool:
    return any(value is not None for value in cohort.attribute(name))


def _attribute(context: Context, spec: AttributeSpec, place: int, total: int) -> list[Estimate]:
    data, config = context.data, context.config.classifier
    real = {split: _numbers(data.real, spec.name, data.rows[split]) for split in ("train", "test")}
    try:
        reader = fit_regressor(
            data.images["train"],
            real["train"][:, None],
            num_features=NUM_FEATURES,
            config=config,
            seed=derive_seed(context.config.seed, "attribute", spec.name),
            work=context.work,
            name=f"regressor of {spec.name}",
            progress=stage(context.progress, place, total),
        )
    except UnsupportedClaim:
        return []
    synthetic = _numbers(data.synthetic, spec.name, range(len(data.synthetic)))
    sides = []
    for wanted, images, patients in (
        (synthetic, data.synthetic_images, np.arange(len(synthetic)).astype(str)),
        (real["test"], data.images["test"], np.asarray(data.patients["test"])),
    ):
        rows = np.flatnonzero(~np.isnan(wanted))
        read = reader.read(images[rows], config.device)[:, 0] if len(rows) else np.zeros(0)
        sides.append(ReadValues(wanted[rows], read, patients[rows]))
    return list(attribute_errors(spec.name, spec.unit, requested=sides[0], real=sides[1]))


def _numbers(cohort: Cohort, name: str, rows: Sequence[int]) -> Array:
    return np.array([np.nan if value is None else float(value) for value in cohort.attribute(name, rows)])


def text_part(context: Context) -> Estimates:
    """Similarity of images and texts by the configured encoders; empty without texts on both sides."""
    data, source = context.data, context.config.text_encoder
    if source is None or not (data.real.schema.has_text and data.synthetic.schema.has_text):
        return Estimates(estimates=())
    encoder, name, digest = load_text_image_encoder(source)
    sides = []
    for cohort, rows, images, patients in (
        (data.synthetic, list(range(len(data.synthetic))), data.synthetic_images, None),
        (data.real, data.rows["test"], data.images["test"], data.patients["test"]),
    ):
        texts = texts_of(cohort, rows)
        kept = [place for place, text in enumerate(texts) if text]
        owners = np.asarray(patients if patients is not None else [str(row) for row in rows])[kept]
        sides.append(_similarity(encoder, images[kept], [texts[place] or "" for place in kept], owners))
    return Estimates(estimates=tuple(text_similarity(name, digest, requested=sides[0], real=sides[1])))


def _similarity(
    encoder: Callable[[Array, Sequence[str]], tuple[Array, Array]], images: Array, texts: Sequence[str], patients: Array
) -> TextSimilarity:
    """Similarity of images to their own text, and to the next different text in the list."""
    if not len(texts):
        return TextSimilarity(np.zeros(0), np.zeros(0), patients)
    seen, read = encoder(images, texts)
    others = [_next_other(texts, place) for place in range(len(texts))]
    return TextSimilarity((seen * read).sum(axis=1), (seen * read[others]).sum(axis=1), patients)


def _next_other(texts: Sequence[str], place: int) -> int:
    total = len(texts)
    return next((k % total for k in range(place + 1, place + total) if texts[k % total] != texts[place]), place)
