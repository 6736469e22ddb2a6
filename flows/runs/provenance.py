"""The check that an assessment compares the images of this generator with the patients it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medphantom.cohorts.store import Cohort
from medphantom.core.errors import InputError

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.quality.results.quality_report import QualityReport


def learned_from(bundle: GeneratorBundle, real: Cohort) -> bool:
    """Return whether a generator was trained on exactly the training images of a cohort."""
    from medphantom.generators.training_data import training_digest

    return training_digest(real) == bundle.facts.training_digest


def check_provenance(real: Cohort, synthetic: Cohort, bundle: GeneratorBundle) -> None:
    """Refuse to assess a generator by patients it was not trained on, or by images of another or unknown generator.

    Args:
        real: The cohort whose training images are searched for copies.
        synthetic: The generated images; their rows name their generator.
        bundle: The bundle of the generator.

    Raises:
        InputError: Cohort, images and generator do not belong together.
    """
    if not learned_from(bundle, real):
        raise InputError(
            f"the generator did not learn from the training images of {real.path}, so that a search for copies there "
            "says nothing about it",
            "give the cohort that it learned from, or leave the bundle out",
        )
    made = synthetic.manifest["bundle_digest"]
    others, nameless = int((made != bundle.digest).sum()), made.null_count()
    if others:
        raise InputError(
            f"{others} of {len(made)} synthetic images were drawn by another generator than the bundle",
            "give the bundle that drew them, or leave it out",
        )
    if nameless:
        raise InputError(
            f"{nameless} of {len(made)} synthetic images do not say which generator drew them, so that what the bundle "
            "promises is not known of them",
            "give the cohort that medphantom generate wrote, or leave the bundle out",
        )


def not_its_patients(report: QualityReport) -> QualityReport:
    """Return the report of a generator that was trained on other patients, with a verdict that screens nothing."""
    reason = "the generator did not learn from these training images, so that a search for copies of them says little"
    found = () if report.verdict == "screened" else report.verdict_reasons
    verdict = "fail" if report.verdict == "fail" else "inconclusive"
    return report.model_copy(update={"verdict": verdict, "verdict_reasons": (*found, reason)})
