"""Medphantom for notebooks and programs: ``import medphantom as mp`` gives the verbs of the command line as functions.

Example:
    >>> import medphantom as mp  # doctest: +SKIP
    >>> cohort = mp.ingest("images", "cohort", public_phrase="my public data")  # doctest: +SKIP
    >>> bundle = mp.train(cohort, "bundle", size=64)  # doctest: +SKIP
    >>> plan = mp.plan(bundle, counts={"effusion": 100})  # doctest: +SKIP
    >>> synthetic = mp.generate(bundle, plan, "synthetic")  # doctest: +SKIP
    >>> report = mp.assess(cohort, synthetic, "report", bundle=bundle)  # doctest: +SKIP

Settings that have no argument of their own are given as in a recipe, as dictionaries or as typed configurations:
``generator={"denoiser_fit": {"steps": 500}}`` or ``generator=GeneratorConfig(…)``. Long functions continue after an
interruption when they are called again. Names are loaded when they are used, so that the import itself is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medphantom import metrics
    from medphantom.cohorts.preprocess import Preprocess, network_images
    from medphantom.cohorts.store import Cohort
    from medphantom.conditioning.plan import SamplingPlan
    from medphantom.flows.operations.assess import assess
    from medphantom.flows.operations.augment import augment
    from medphantom.flows.operations.bases import bases
    from medphantom.flows.operations.compare import compare
    from medphantom.flows.operations.counterfactual import counterfactual
    from medphantom.flows.operations.export import export
    from medphantom.flows.operations.generate import generate, plan
    from medphantom.flows.operations.ingest import ingest
    from medphantom.flows.operations.init import init
    from medphantom.flows.operations.inspect import contact_sheet, inspect
    from medphantom.flows.operations.lineage import lineage
    from medphantom.flows.operations.merge import merge
    from medphantom.flows.operations.phantom import phantom
    from medphantom.flows.operations.places import loaded as open_bundle
    from medphantom.flows.operations.places import opened as open_cohort
    from medphantom.flows.operations.rank import rank
    from medphantom.flows.operations.search import search
    from medphantom.flows.operations.train import train
    from medphantom.flows.operations.utility import utility
    from medphantom.flows.operations.verify import verify
    from medphantom.flows.orchestration.run import control, demo, run
    from medphantom.flows.process.progress import watching
    from medphantom.generation import GeneratedImages, Generator
    from medphantom.generators.bundle import GeneratorBundle

__all__ = [
    "Cohort",
    "GeneratedImages",
    "Generator",
    "GeneratorBundle",
    "Preprocess",
    "SamplingPlan",
    "assess",
    "augment",
    "bases",
    "compare",
    "contact_sheet",
    "control",
    "counterfactual",
    "demo",
    "export",
    "generate",
    "ingest",
    "init",
    "inspect",
    "lineage",
    "merge",
    "metrics",
    "network_images",
    "open_bundle",
    "open_cohort",
    "phantom",
    "plan",
    "rank",
    "run",
    "search",
    "train",
    "utility",
    "verify",
    "watching",
]

_VERBS = [
    "assess",
    "augment",
    "bases",
    "compare",
    "counterfactual",
    "export",
    "generate",
    "ingest",
    "init",
    "inspect",
    "lineage",
    "merge",
    "phantom",
    "rank",
    "search",
    "train",
    "utility",
    "verify",
]
_HOMES = {
    **{verb: (f"flows.operations.{verb}", verb) for verb in _VERBS},
    "Cohort": ("cohorts.store", "Cohort"),
    "GeneratedImages": ("generation", "GeneratedImages"),
    "Generator": ("generation", "Generator"),
    "Preprocess": ("cohorts.preprocess", "Preprocess"),
    "GeneratorBundle": ("generators.bundle", "GeneratorBundle"),
    "SamplingPlan": ("conditioning.plan", "SamplingPlan"),
    "contact_sheet": ("flows.operations.inspect", "contact_sheet"),
    "control": ("flows.orchestration.run", "control"),
    "demo": ("flows.orchestration.run", "demo"),
    "metrics": ("metrics", ""),
    "network_images": ("cohorts.preprocess", "network_images"),
    "open_bundle": ("flows.operations.places", "loaded"),
    "open_cohort": ("flows.operations.places", "opened"),
    "plan": ("flows.operations.generate", "plan"),
    "run": ("flows.orchestration.run", "run"),
    "watching": ("flows.process.progress", "watching"),
}
"""Name → module below ``medphantom``, and what it is called there; the module itself where that is empty."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medphantom' has no attribute {name!r}")
    module, called = _HOMES[name]
    home = import_module(f"medphantom.{module}")
    found = globals()[name] = getattr(home, called) if called else home
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
