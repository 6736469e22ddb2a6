"""Does an assessment judge what it says: the images of this generator, against the patients whom it learned from?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cohorts.errors import InputError
from cohorts.store import Cohort

if TYPE_CHECKING:
    from generators.bundle import GeneratorBundle


def check_provenance(real: Cohort, synthetic: Cohort, bundle: GeneratorBundle) -> None:
    """Refuse to judge a generator by patients whom it did not learn from, or by images of another one.

    Args:
        real: cohort whose training images are searched for copies.
        synthetic: what was drawn; a folder that somebody else made names no generator.
        bundle: the generator.

    Raises:
        InputError: they do not belong together.
    """
    from generators.training_data import training_digest

    if training_digest(real) != bundle.facts.training_digest:
        raise InputError(
            f"the generator did not learn from the training images of {real.path}, so that a search for copies there "
            "says nothing about it",
            "give the cohort that it learned from, or leave the bundle out",
        )
    made = synthetic.manifest["bundle_digest"].to_list()
    others = sum(digest is not None and digest != bundle.digest for digest in made)
    if others:
        raise InputError(
            f"{others} of {len(made)} synthetic images were drawn by another generator than the bundle",
            "give the bundle that drew them, or leave it out",
        )
