"""``counterfactual``: patients' images as they would be, had a finding or an attribute been another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.records import SPLITS
from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.core.errors import InputError
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, loaded, opened, refuse_existing
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.recipe_file import section

if TYPE_CHECKING:
    from medphantom.generators.bundle import GeneratorBundle
    from medphantom.generators.config import CounterfactualConfig


@checked
def counterfactual(
    bundle: GeneratorBundle | Folder,
    cohort: Cohort | Folder,
    changes: Sequence[str],
    out: Folder,
    *,
    split: str = "test",
    limit: int | None = None,
    method: Mapping[str, Any] | CounterfactualConfig | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Draw counterfactuals: edits of real patients' images, which are as private as those.

    Args:
        bundle: The generator.
        cohort: Real cohort.
        changes: ``name=value``, e.g. ``["effusion=absent"]``, ``["age=70"]``, ``["age=20:80"]``.
        out: Cohort of pairs to make.
        split: Split whose images are edited: ``train``, ``val``, ``holdout`` or ``test``.
        limit: Largest number of images, in stored order.
        method: Fields of :class:`medphantom.generators.config.CounterfactualConfig`, e.g. ``{"guidance": 3.0}``.
        progress: Called with the number of steps.

    Raises:
        InputError: ``split`` is no split, ``out`` exists, or the intervention changes nothing.
        PromptError: An intervention on what the generator never saw.
    """
    from medphantom.conditioning.prompt import Intervention
    from medphantom.generators.config import CounterfactualConfig as Config
    from medphantom.generators.counterfactual_cohort import changed_rows, publish_counterfactuals

    if split not in SPLITS:
        raise InputError(f"--split {split} is no split", f"one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit must be ≥ 1, got {limit}", "leave it out for all images")
    config = section(Config, method, "counterfactual")
    refuse_existing(Path(out))
    real, maker = opened(cohort), loaded(bundle)
    intervention = Intervention.parse(changes, maker.facts.conditions)
    rows = changed_rows(maker, real, real.rows(split), intervention)[:limit]
    shown = progress or watcher().stage("counterfactual")
    return publish_counterfactuals(maker, real, rows, intervention, config, out=Path(out), progress=shown)
