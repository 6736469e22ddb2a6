"""Check before fine-tuning a base to a private cohort whether it already reproduces images of that cohort.

A base that was trained on the same patients would reproduce their images, whatever fine-tuning guarantees. Some images
are therefore generated from the unchanged base, and the copy search looks for copies of the private cohort's training
images among them, with ``holdout`` as the reference.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from medphantom.cohorts.preprocess import Preprocess
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_prompts
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import InputError
from medphantom.core.folders import json_digest, kept, write_json
from medphantom.core.progress import Progress
from medphantom.flows.process.progress import watcher
from medphantom.flows.runs.hooks import hooks_of
from medphantom.generators.base import open_base
from medphantom.generators.base_bundle import base_bundle
from medphantom.generators.config import GeneratorConfig, SamplerConfig
from medphantom.generators.generate import generate
from medphantom.generators.networks import Base
from medphantom.generators.privacy import check_footing
from medphantom.quality.assessment.assess import screen_copies
from medphantom.quality.config import AssessConfig
from medphantom.quality.results.quality_report import CopySummary
from medphantom.shipped import is_shipped

DRAWN = 120
STEPS = 20


def check_base(
    cohort: Cohort, preprocess: Preprocess, config: GeneratorConfig, *, work: Path, progress: Progress | None = None
) -> CopySummary | None:
    """Search images of a base for copies of a private cohort.

    Nothing is searched, and ``None`` is returned, if nothing is fine-tuned, or the base ships with this program: those
    bases learned from simulated images alone, and their digests are known.

    Args:
        cohort: The private cohort to protect.
        preprocess: The preprocessing of the networks' input.
        config: The configuration of the generator, which names the base.
        work: The private folder in which the result of the search is kept; the generated images are removed.
        progress: The function that receives the number of finished images.

    Raises:
        InputError: The base is not available, its lineage rules out the requested guarantee, it does not read the
            requested prompts, there is nothing to search in, or the search finds copies of this cohort's images among
            its own.
    """
    if config.init_from is None:
        return None
    base = open_base(config.init_from, config.tuning)
    if is_shipped(base.source):
        watcher().note(f"train: {base.source} ships with this program and learned from no patient: no search in it")
        return None
    said = check_footing(config, cohort, base).line()
    if said is not None:
        watcher().note(f"train: privacy: {said}")
    if base.pipeline is not None and config.conditioning.reads != ("text",):
        from medphantom.generators.stable import TEXT_ALONE

        raise InputError(*TEXT_ALONE)
    if not cohort.rows("train") or not cohort.rows("holdout"):
        return accept_base(None, base.source)
    parts = [base.digest, cohort.digest, preprocess.model_dump(mode="json"), config.seed, config.threads, DRAWN, STEPS]
    file = work / f"base-check-{json_digest(parts)[:16]}.json"
    if (found := kept(CopySummary, file)) is not None:  # from before an interruption
        return accept_base(found, base.source)
    summary = _searched(cohort, preprocess, base, config, folder=work / "base-check", progress=progress)
    if summary is not None:
        write_json(file, summary.model_dump(mode="json"))
    acceptance = accept_base(summary, base.source)
    if base.files:
        watcher().note(f"train: weights of the base: {', '.join(base.files)}")
    watcher().note(f"train: base {acceptance.verdict}: {acceptance.reasons[0]} ({DRAWN} images of the base's own)")
    return acceptance


def _searched(
    cohort: Cohort,
    preprocess: Preprocess,
    base: Base,
    config: GeneratorConfig,
    *,
    folder: Path,
    progress: Progress | None,
) -> CopySummary | None:
    """Return the result of the search among images of the base, which are removed at the end."""
    bundle = base_bundle(base, preprocess, threads=config.threads)
    shutil.rmtree(folder, ignore_errors=True)
    drawn = generate(
        bundle,
        plan_prompts([Prompt()] * DRAWN, seed=config.seed),
        folder / "drawn",
        work=folder / "draw",
        sampler=SamplerConfig(steps=STEPS, guidance=1),
        progress=progress,
    )
    summary = screen_copies(
        cohort,
        drawn,
        preprocess,
        AssessConfig(),
        work=folder / "screen",
        hooks=hooks_of(bundle),
        progress=progress,
    )
    shutil.rmtree(folder, ignore_errors=True)
    return summary


def accept_base(summary: CopySummary | None, source: str) -> CopySummary:
    """Return the result of the search, unless it forbids the use of the base.

    Raises:
        InputError: There was nothing to search in, or the search found copies.
    """
    if summary is None:
        raise InputError(
            "the base cannot be checked: the cohort has no training or no holdout image", "give both a share"
        )
    if summary.verdict == "fail":
        raise InputError(
            f"base {source} draws images of this cohort: {summary.reasons[0]}",
            "use a base that never saw these patients",
        )
    return summary
