"""Counterfactuals beside the true ones: simulated radiographs of which every other image can be drawn.

Removals (a finding present becomes absent) and continuous factors have one true counterfactual: the error against it is
given inside the region that the finding changes and outside of it, beside that of changing nothing and beside the
autoencoder's round trip of the truth. Additions have many, since the prompt does not specify place and severity. They
are measured against the nearest of many true additions, beside another true one, and by whether what changes lies where
the finding can be. Run by hand, on a run folder of a recipe that simulates radiographs::

    python -m benchmarks.counterfactual_truth runs/counterfactual --guidance 1 2 3 --limit 60 --sheet truth.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import write_result
from benchmarks.sheet import contact_sheet
from benchmarks.simulated_truth import Oracle, Simulation, masked_l1, nearest_draw, with_finding, without
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.prompt import Intervention
from medphantom.core.errors import MedphantomError
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import CounterfactualConfig
from medphantom.generators.counterfactual import Counterfactuals, counterfactual_images
from medphantom.generators.generate import reconstruct
from medphantom.phantoms.factors import FINDINGS, factor_column, with_factor
from medphantom.quality.config import ClassifierConfig
from medphantom.quality.networks.regressor import r_squared
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.means import Means

SHEET_ROWS = 3
ROUGHLY = 0.05  # of the range of a continuous factor is left out at either end


@dataclass
class Bench:
    """What every measurement needs; ``sheet`` collects rows of pictures."""

    bundle: GeneratorBundle
    cohort: Cohort
    simulation: Simulation
    oracle: Oracle
    limit: int
    draws: int
    seed: int
    means: Means
    split: str = "test"
    sheet: list[tuple[str, list[Array]]] = field(default_factory=list)

    def rows(self, finding: str | None, *, present: bool) -> list[int]:
        """Images of the split that show a finding, or do not; all where none is named."""
        rows = self.cohort.rows(self.split)
        factors = self.simulation.of(self.cohort, rows)
        chosen = [r for r, f in zip(rows, factors, strict=True) if finding is None or f.labels[finding] == present]
        return chosen[: self.limit]

    def made(
        self, rows: Sequence[int], actions: Sequence[Intervention], config: CounterfactualConfig
    ) -> Counterfactuals:
        """Counterfactuals of rows."""
        return counterfactual_images(self.bundle, self.cohort, rows, actions, config, back=False)


def removals(bench: Bench, finding: str, config: CounterfactualConfig) -> Iterator[Estimate]:
    """A finding taken away, beside the same patient without it."""
    rows = bench.rows(finding, present=True)
    if not rows:
        return
    found = bench.made(rows, [Intervention(labels={finding: False})] * len(rows), config)
    before = bench.simulation.of(bench.cohort, rows)
    after = [without(image, finding) for image in before]
    regions = np.stack([bench.simulation.region(a, b) for a, b in zip(before, after, strict=True)])[:, None]
    case = Case(bench, rows, found, bench.simulation.all_seen(after), f"{finding} absent")
    case.show()
    yield from case.effects(finding, present=False)
    yield from case.errors("error_inside", regions)
    yield from case.errors("error_outside", ~regions)


@dataclass(frozen=True)
class Case:
    """Counterfactuals of one intervention beside the true ones."""

    bench: Bench
    rows: Sequence[int]
    found: Counterfactuals
    truth: Array
    label: str

    @property
    def patients(self) -> Array:
        """Patient of each pair."""
        return np.asarray(self.bench.cohort.patients(self.rows))

    def show(self) -> None:
        """Keep the first pairs for the contact sheet."""
        for place in range(min(SHEET_ROWS, len(self.found))):
            images = (self.found.source, self.found.factual, self.found.counterfactual, self.truth)
            self.bench.sheet.append((self.label, [images_N[place] for images_N in images]))

    def effects(self, finding: str, *, present: bool) -> Iterator[Estimate]:
        """What the oracle sees in the counterfactual, in the image before, and in the truth."""
        hits, before, real = (
            self.bench.oracle.sees(images, finding) == present
            for images in (self.found.counterfactual, self.found.source, self.truth)
        )
        share = self.bench.means.share
        words = "counterfactuals in which the oracle sees what was asked for; floor: of the true counterfactuals"
        yield share("effectiveness", f"share of {words}", hits, self.patients, floor=real, label=self.label)
        words = "share of images in which the oracle sees it already: what a method reaches by doing nothing"
        yield share("effectiveness_of_nothing", words, before, self.patients, label=self.label)

    def errors(self, name: str, mask: Array) -> Iterator[Estimate]:
        """Mean absolute error to the truth within a mask, beside that of changing nothing and of the factual image."""
        kept = mask.reshape(len(mask), -1).any(axis=1)
        floor = masked_l1(reconstruct(self.bench.bundle, self.truth), self.truth, mask)[kept]
        for part, images, what in (
            ("", self.found.counterfactual, "counterfactual"),
            ("_of_nothing", self.found.source, "image itself, nothing changed,"),
            ("_of_factual", self.found.factual, "factual image"),
        ):
            yield self.bench.means.mean(
                f"{name}{part}",
                f"mean absolute difference of the {what} to the true counterfactual, in network values; floor: of the "
                "true counterfactual through the autoencoder",
                masked_l1(images, self.truth, mask)[kept],
                self.patients[kept],
                floor=floor,
                label=self.label,
            )


def additions(bench: Bench, finding: str, config: CounterfactualConfig) -> Iterator[Estimate]:
    """A finding added: near one of many true additions, and where the finding can be?"""
    rows = bench.rows(finding, present=False)
    if not rows:
        return
    found = bench.made(rows, [Intervention(labels={finding: True})] * len(rows), config)
    drawn = bench.oracle.draws(finding, 2 * bench.draws)
    rng = np.random.default_rng(derive_seed(bench.seed, "additions", finding))
    near: dict[str, list[float]] = {"counterfactual": [], "nothing": [], "another": []}
    plausible, areas, truths = [], [], []
    for place, image in enumerate(bench.simulation.of(bench.cohort, rows)):
        chosen = rng.permutation(len(drawn))[: bench.draws + 1]
        others = [with_finding(image, finding, drawn[k]) for k in chosen]
        images = bench.simulation.all_seen(others)
        regions = np.stack([bench.simulation.region(image, other) for other in others[:-1]])[:, None]
        pool, union = images[:-1], regions.any(axis=0)
        distance, which = nearest_draw(found.counterfactual[place], pool, regions)
        near["counterfactual"].append(distance)
        near["nothing"].append(nearest_draw(found.source[place], pool, regions)[0])
        near["another"].append(nearest_draw(images[-1], pool, regions)[0])
        truths.append(pool[which])
        change = np.abs(found.counterfactual[place] - found.factual[place])
        plausible.append(bool(change[:, union[0]].sum() >= 0.5 * change.sum() > 0))
        areas.append(float(union.mean()))
    case = Case(bench, rows, found, np.stack(truths), f"{finding} present")
    label, patients = case.label, case.patients
    case.show()
    yield from case.effects(finding, present=True)
    floor = np.array(near["another"])
    for part, values in (("", near["counterfactual"]), ("_of_nothing", near["nothing"])):
        words = (
            f"mean absolute difference to the nearest of {bench.draws} true additions, where that one differs from the "
            "image, in network values; floor: of another true addition"
        )
        yield bench.means.mean(f"nearest_addition{part}", words, np.array(values), patients, floor=floor, label=label)
    words = "share of images in which at least half of the change lies where the simulator can put the finding"
    note = f"these places are {float(np.mean(areas)):.2f} of the image"
    yield bench.means.share("plausible_place", words, np.array(plausible), patients, label=label, note=note)


def numbers(bench: Bench, path: str, config: CounterfactualConfig) -> Iterator[Estimate]:
    """A continuous factor set to a value drawn for each image."""
    label, rows = factor_column(path), bench.rows(None, present=True)
    spec = bench.bundle.facts.conditions
    limits = next(((s.low, s.high) for s in spec.continuous if s.name == label), (None, None))
    if limits[0] is None or limits[1] is None or not rows:
        return
    margin = ROUGHLY * (limits[1] - limits[0])
    action = Intervention(ranges={label: (limits[0] + margin, limits[1] - margin)})
    actions = [action.drawn(bench.seed, name) for name in bench.cohort.manifest["image_id"][rows]]
    requested = np.array([float(one.attributes[label]) for one in actions])
    found = bench.made(rows, actions, config)
    images = bench.simulation.of(bench.cohort, rows)
    truth = bench.simulation.all_seen(
        [with_factor(f, path, v) for f, v in zip(images, requested.tolist(), strict=True)]
    )
    case = Case(bench, rows, found, truth, label)
    case.show()
    patients = case.patients
    read = {
        name: bench.oracle.reads(images_N, path)
        for name, images_N in (("", found.counterfactual), ("_of_nothing", found.source), ("truth", truth))
    }
    for part in ("", "_of_nothing"):

        def score(chosen: Array, values: Array = read[part]) -> float | None:
            return r_squared(requested[chosen], values[chosen])

        yield Estimate(
            name=f"r2{part}",
            estimand="R² of what the oracle reads about what was asked for; floor: read off the true counterfactuals",
            value=r_squared(requested, read[part]),
            interval=bench.means.bootstrap("r2", label + part, score, patients),
            method="percentile bootstrap by patient",
            n_synthetic=len(rows),
            floor=r_squared(requested, read["truth"]),
            better="higher",
            label=label,
        )
    yield from case.errors("error", np.ones((len(rows), 1, *truth.shape[2:]), dtype=bool))


def printed(estimates: list[Estimate]) -> list[Estimate]:
    """The same, printed."""
    for one in estimates:
        floor = "" if one.floor is None else f"   floor {one.floor:.4f}"
        value = "refused" if one.value is None else f"{one.value:.4f}"
        between = "" if one.interval is None else f" [{one.interval[0]:.4f}, {one.interval[1]:.4f}]"
        print(f"{one.label}  {one.name} {value}{between}{floor}", flush=True)
    return estimates


def measure(
    bench: Bench,
    config: CounterfactualConfig,
    of_factors: CounterfactualConfig,
    findings: Sequence[str],
    factors: Sequence[str],
) -> list[Any]:
    """All estimates of one setting."""
    found: list[Estimate] = []
    for finding in findings:
        found += printed([*removals(bench, finding, config), *additions(bench, finding, config)])
    for path in factors:
        found += printed(list(numbers(bench, path, of_factors)))
    return [estimate.model_dump(mode="json", exclude_none=True) for estimate in found]


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run on simulated radiographs")
    parser.add_argument("--method", nargs="+", default=["inversion"], help="several are compared")
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0], help="several are compared")
    parser.add_argument("--factor-guidance", type=float, help="of continuous factors; by default the same")
    parser.add_argument("--strength", type=float, nargs="+", default=[0.8], help="several are compared")
    parser.add_argument("--locality", type=float, nargs="+", default=[0.17], help="several are compared")
    parser.add_argument("--split", default="test", help="whose images: val to choose by, test to report")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--drift", type=float, default=0.0)
    parser.add_argument("--findings", nargs="*", default=list(FINDINGS))
    parser.add_argument("--factors", nargs="*", help="dotted; by default those that the recipe names")
    parser.add_argument("--limit", type=int, default=60, help="images per intervention")
    parser.add_argument("--draws", type=int, default=64, help="true additions per image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--oracle-patients", type=int, default=16_000)
    parser.add_argument("--oracle-seed", type=int, default=90_001)
    parser.add_argument("--oracle-steps", type=int, default=3000)
    parser.add_argument("--work", type=Path, help="checkpoints of the oracle; by default in the run's work folder")
    parser.add_argument("--sheet", type=Path, help="PNG with some pairs")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, write the result file and the contact sheet; returns what was measured."""
    chosen = arguments_of(given)
    bundle, cohort = GeneratorBundle.load(chosen.run / "bundle"), Cohort.open(chosen.run / "cohort")
    simulation = Simulation.of_run(chosen.run, cohort, bundle.facts.preprocess)
    oracle = Oracle(
        simulation,
        patients=chosen.oracle_patients,
        seed=chosen.oracle_seed,
        config=ClassifierConfig(steps=chosen.oracle_steps, batch_size=64),
        work=chosen.work or chosen.run / "work" / "oracle",
    )
    means = Means(500, derive_seed(chosen.seed, "truth"))
    bench = Bench(bundle, cohort, simulation, oracle, chosen.limit, chosen.draws, chosen.seed, means, chosen.split)
    print(f"oracle: {oracle.facts}", flush=True)
    settings = []
    for method, guidance, strength, locality in product(
        chosen.method, chosen.guidance, chosen.strength, chosen.locality
    ):
        own: dict[str, Any] = {"locality": locality} if method != "sdedit" else {}
        own |= {"drift": chosen.drift} if method == "latent_drifting" else {}
        config = CounterfactualConfig(
            method=method, guidance=guidance, strength=strength, steps=chosen.steps, seed=chosen.seed, **own
        )
        factors = simulation.options.factors if chosen.factors is None else chosen.factors
        mild = chosen.factor_guidance
        of_factors = config if mild is None else config.model_copy(update={"guidance": mild})
        estimates = measure(bench, config, of_factors, chosen.findings, factors)
        used = {"config": config.model_dump(mode="json"), "factor_guidance": of_factors.guidance}
        settings.append({**used, "estimates": estimates})
    result = {
        "bundle": bundle.digest,
        "cohort": cohort.digest,
        "arguments": {name: str(value) for name, value in vars(chosen).items() if name not in {"run", "work", "sheet"}},
        "oracle": oracle.facts,
        "settings": settings,
    }
    if chosen.sheet is not None:
        contact_sheet(bench.sheet).save(chosen.sheet)
    write_result("counterfactual_truth", result)
    return result


if __name__ == "__main__":
    try:
        main()
    except MedphantomError as error:
        raise SystemExit(str(error)) from None
