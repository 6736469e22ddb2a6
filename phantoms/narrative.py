"""One or two sentences of report per image, as a radiologist might dictate them, with no identity in them."""

from __future__ import annotations

from medphantom.core.randomness import stream
from medphantom.phantoms.factors import ImageFactors

_NORMAL = (
    "No acute cardiopulmonary abnormality.",
    "The lungs are clear. Heart size is normal.",
    "Clear lungs, no effusion or pneumothorax.",
)


def degree(severity: float) -> str:
    """Return the word for a severity."""
    return "small" if severity < 0.4 else "moderate" if severity < 0.7 else "large"


def report_of(image: ImageFactors) -> str:
    """Return a short report of one image that names every present finding with side and degree, and no absent one."""
    rng = stream(image.scanner.noise_seed, "narrative")

    def one(*ways: str) -> str:
        return ways[int(rng.integers(len(ways)))]

    said: list[str] = []
    if image.effusion.present:
        size, side = degree(image.effusion.severity), image.effusion.side
        said.append(one(f"{size} {side} pleural effusion", f"{size} pleural effusion on the {side}"))
    if image.pneumothorax.present:
        size, side = degree(image.pneumothorax.severity), image.pneumothorax.side
        said.append(one(f"{size} {side} pneumothorax", f"{size} {side}-sided pneumothorax with visible pleural line"))
    if image.consolidation.present:
        size, zone, side = degree(image.consolidation.severity), image.consolidation.zone, image.consolidation.side
        said.append(one(f"{size} consolidation in the {side} {zone} zone", f"{size} {side} {zone} zone opacity"))
    if image.nodule.present:
        size, side = degree(image.nodule.severity), image.nodule.side
        said.append(one(f"{size} nodule in the {side} lung", f"{size} {side} pulmonary nodule"))
    if image.cardiomegaly.present:
        grade = {"small": "mildly", "moderate": "moderately", "large": "markedly"}[degree(image.cardiomegaly.severity)]
        said.append(one(f"{grade} enlarged heart", f"cardiac silhouette {grade} enlarged"))
    if image.pacemaker.present:
        leads = "single" if image.pacemaker.severity < 0.5 else "dual"
        said.append(f"{leads}-lead pacemaker on the {image.pacemaker.side}")
    if not said:
        return one(*_NORMAL)
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in said)
