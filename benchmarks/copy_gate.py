"""The copy gate on real patients whom no model saw: false alarms of pseudo-releases, and recall of copies among them.

Patients are divided anew, ``--splits`` times, into training, holdout and released ones. Of each division,
pseudo-releases of a random half of the released patients are evaluated by the gate: as they are, blurred, noised and
through an autoencoder; and sets in which one row in a hundred is a copy of a training image, kind by kind. Run by hand,
an hour on a CPU::

    python -m benchmarks.copy_gate --cohort runs/private_8/cohort --bundle runs/mednist_base/bundle
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.measuring import write_result
from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.store import Cohort
from medphantom.core.randomness import derive_seed
from medphantom.core.records import Array
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.edits import edited
from medphantom.generators.generate import reconstruct
from medphantom.quality.config import CopyConfig
from medphantom.quality.data.evaluation_data import on_stored_grid
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.privacy.alterations import altered
from medphantom.quality.privacy.controls import Maker, plant
from medphantom.quality.privacy.neighbours import NeighbourSimilarity
from medphantom.quality.privacy.search import CopySearch, RealImages, evaluate_search

SHARES = (0.6, 0.1, 0.3)  # of the patients: training, holdout, released
COPIED = 0.01
LEVEL = 0.95

Found = dict[str, NeighbourSimilarity]


@dataclass
class Tally:
    """Counts of one kind.

    Attributes:
        sets: Number of sets that the gate evaluates.
        failed: of those.
        copies: put into them.
        flagged: of those.
        honest: images that are no copies.
        honest_flagged: of those.
        p_values: smallest p-value of each set.
    """

    sets: int = 0
    failed: int = 0
    copies: int = 0
    flagged: int = 0
    honest: int = 0
    honest_flagged: int = 0
    p_values: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The counts, and one-sided 95 % bounds by Clopper and Pearson."""
        found: dict[str, Any] = {"sets": self.sets, "failed": self.failed, "p_values": sorted(self.p_values)[:10]}
        found["failed_at_most"] = bound(self.failed, self.sets, "less")
        if self.copies:
            found |= {"copies": self.copies, "flagged": self.flagged, "recall": self.flagged / self.copies}
            found["recall_at_least"] = bound(self.flagged, self.copies, "greater")
            found["sets_seen_at_least"] = bound(self.failed, self.sets, "greater")
        found["honest_flagged"] = self.honest_flagged / max(1, self.honest)
        return found


def bound(hits: int, total: int, side: str) -> float:
    """One-sided 95 % bound: the upper one for ``less``, the lower one for ``greater``."""
    interval = stats.binomtest(hits, total, alternative=side).proportion_ci(LEVEL, method="exact")
    return float(interval.high if side == "less" else interval.low)


@dataclass(frozen=True)
class Division:
    """One division of the patients: the search, and released images with their patients."""

    search: CopySearch
    released: Array
    patients: Array


def divide(images: Array, patients: Array, config: CopyConfig, rng: np.random.Generator) -> Division:
    """Draw the patients for training, for the holdout and for the release."""
    names = rng.permutation(np.unique(patients))
    ends = np.cumsum([round(share * len(names)) for share in SHARES])[:2]
    train, holdout, released = (np.isin(patients, part) for part in np.split(names, ends))
    real = RealImages(images[train], images[holdout], images[:0], patients[train].tolist(), patients[holdout].tolist())
    network = filter_bank(int(released.sum()), "cpu").folds[0].network
    return Division(CopySearch(real, config, network, rng), images[released], patients[released])


def gate_result(division: Division, found: Found) -> tuple[bool, Array, float]:
    """Whether a set fails, which images are flagged, and the smallest p-value."""
    gate = evaluate_search(division.search, found, {})
    results = gate.summary.results
    p_values = [p for result in results for p in (result.single_p_value, result.dcr_share_p_value) if p is not None]
    return gate.summary.verdict == "fail", gate.flagged, min(p_values)


def searched(division: Division, images: Array, like: Array | None = None) -> Found:
    """Nearest-neighbour similarity of images; their features are moved as those of the set that they are put into."""
    network, search = division.search.network, division.search
    features = network.features(images)
    shift = search.shift(features if like is None else network.features(like))
    return search.find(images, features + shift, "")


def pseudo_releases(
    division: Division, makers: Mapping[str, Maker], tallies: dict[str, Tally], *, sets: int, rng: np.random.Generator
) -> dict[str, Found]:
    """Evaluate sets of released patients; returns the similarity of all released images, by what was done to them."""
    kinds: dict[str, Array] = {"as it is": division.released}
    kinds |= {kind: altered(kind, division.released, rng) for kind in ("blurred", "noised")}
    kinds |= {kind: maker(division.released) for kind, maker in makers.items() if kind == "reconstructed"}
    found = {kind: searched(division, images) for kind, images in kinds.items()}
    names = np.unique(division.patients)
    for kind, similarity in found.items():
        tally = tallies.setdefault(kind, Tally())
        for _ in range(sets):
            rows = np.flatnonzero(np.isin(division.patients, rng.permutation(names)[: len(names) // 2]))
            failed, flagged, p_value = gate_result(division, {by: part.of(rows) for by, part in similarity.items()})
            tally.sets += 1
            tally.failed += failed
            tally.p_values.append(p_value)
            tally.honest += len(rows)
            tally.honest_flagged += int(flagged.sum())
    return found


def with_copies(
    division: Division,
    honest: Found,
    makers: Mapping[str, Maker],
    tallies: dict[str, Tally],
    *,
    sets: int,
    rng: np.random.Generator,
) -> None:
    """Evaluate sets in which one row in a hundred is a copy, kind by kind."""
    total = len(division.released)
    copies = max(1, round(COPIED * total))
    config = division.search.config.model_copy(update={"controls": sets * copies})
    for planted in plant(division.search.real.train, config, makers, rng):
        found = searched(division, planted.images, like=division.released)
        tally = tallies.setdefault(planted.kind, Tally())
        for number in range(sets):
            mine = np.arange(number * copies, (number + 1) * copies)
            kept = rng.permutation(total)[: total - copies]
            mixed = {by: NeighbourSimilarity.joined([found[by].of(mine), honest[by].of(kept)]) for by in found}
            failed, flagged, p_value = gate_result(division, mixed)
            tally.sets += 1
            tally.failed += failed
            tally.p_values.append(p_value)
            tally.copies += copies
            tally.flagged += int(flagged[:copies].sum())
            tally.honest += len(kept)
            tally.honest_flagged += int(flagged[copies:].sum())


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All divisions; the tally so far after each."""
    bundle = GeneratorBundle.load(Path(arguments.bundle))
    preprocess = bundle.facts.preprocess
    cohort = Cohort.open(arguments.cohort)
    preprocess = Preprocess.for_cohort(cohort, tuple(preprocess.size))
    rows = [row for split in ("train", "val", "holdout", "test") for row in cohort.rows(split)]
    images = on_stored_grid(network_images(cohort, rows, preprocess), preprocess)
    patients = np.asarray(cohort.patients(rows))
    makers: dict[str, Maker] = {
        "reconstructed": lambda part: on_stored_grid(reconstruct(bundle, part), preprocess),
        "edited": lambda part: on_stored_grid(edited(bundle, part), preprocess),
    }
    config = CopyConfig(core=(), significance=arguments.significance)
    releases: dict[str, Tally] = {}
    copied: dict[str, Tally] = {}
    for number in range(arguments.splits):
        rng = np.random.default_rng(derive_seed(arguments.seed, "division", number))
        division = divide(images, patients, config, rng)
        honest = pseudo_releases(division, makers, releases, sets=arguments.releases, rng=rng)
        with_copies(division, honest["as it is"], makers, copied, sets=arguments.sets, rng=rng)
        everything = Tally(
            sets=sum(t.sets for t in releases.values()),
            failed=sum(t.failed for t in releases.values()),
            honest=sum(t.honest for t in releases.values()),
            honest_flagged=sum(t.honest_flagged for t in releases.values()),
        )
        yield {
            "divisions": number + 1,
            "training_images": len(division.search.real.train),
            "holdout_images": division.search.subsets.size,
            "released_images": len(division.released),
            "pseudo_releases": {"all": everything.summary(), **{k: t.summary() for k, t in releases.items()}},
            "one_in_a_hundred_copied": {kind: tally.summary() for kind, tally in copied.items()},
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True, help="a generator that saw none of these patients")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--releases", type=int, default=5, help="pseudo-releases of each kind and division")
    parser.add_argument("--sets", type=int, default=4, help="sets with copies of each kind and division")
    parser.add_argument("--significance", type=float, default=CopyConfig().significance)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    settings = {key: value for key, value in vars(given).items() if key not in {"cohort", "bundle"}}
    result: dict[str, Any] = {}
    for result in measure(given):
        releases = result["pseudo_releases"]["all"]
        print(f"{result['divisions']}: {releases['failed']} of {releases['sets']} pseudo-releases fail", flush=True)
    for kind, counts in result["one_in_a_hundred_copied"].items():
        print(
            f"{kind:14s} {counts['flagged']} of {counts['copies']} copies flagged (at least "
            f"{counts['recall_at_least']:.3f}), {counts['failed']} of {counts['sets']} sets fail"
        )
    print(write_result("copy_gate", {"settings": settings, **result}))


if __name__ == "__main__":
    main()
