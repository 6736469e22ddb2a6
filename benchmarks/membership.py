r"""Membership from the images alone, for existing sets: whose patients are detected, and how many by false alarm.

Every pair is a real cohort and a synthetic one that was drawn for it. A set drawn from *another* cohort, whose division
of the same patients was another, says what the division alone does: its generator learned from both sides. Seconds a
pair::

    python -m benchmarks.membership runs/private_1/cohort=runs/private_1/synthetic \
        runs/generator_gate/cohort=runs/division_b/honest_0/synthetic

``--divisions N`` divides the patients of the first cohort anew N times: some are released as they are, and are as good
as synthetic images; the others are divided at random into members and non-members, and there is nothing to find.
The share of divisions in which it is flagged all the same is its rate of false alarms.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import write_result
from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.store import Cohort
from medphantom.quality.assessment.parts import Context
from medphantom.quality.assessment.privacy_part import membership_part
from medphantom.quality.config import AssessConfig
from medphantom.quality.data.evaluation_data import EvaluationData
from medphantom.quality.networks.fixed_networks import filter_bank
from medphantom.quality.privacy.membership import Patients, auroc, relative_similarity
from medphantom.quality.stats.estimate import Estimate
from medphantom.quality.stats.intervals import proportion_interval


def figures(estimate: Estimate) -> list[float | None]:
    """Value and interval."""
    return [estimate.value, *(estimate.interval or ())]


def attacked(real: Cohort, synthetic: Cohort, preprocess: Preprocess, config: AssessConfig) -> dict[str, Any]:
    """What the attack on the images reaches."""
    data = EvaluationData(real, synthetic, preprocess)
    summary = membership_part(Context(data, config, synthetic.path, lambda *_: None)).summary
    if summary is None:
        raise RuntimeError(f"{real.path} has too few patients")
    result = next(found for found in summary.results if found.target == "images")
    return {
        "auroc": figures(result.auroc),
        "blind": figures(summary.blind),
        "flagged": result.flagged,
        "members": result.auroc.n_synthetic,
        "others": result.auroc.n_real,
    }


def words_of(facts: dict[str, Any]) -> str:
    """What :func:`attacked` found, on a line."""
    (value, low, high), (blind, blind_low, blind_high) = facts["auroc"], facts["blind"]
    return (
        f"{value:.3f} [{low:.3f}, {high:.3f}] of {facts['members']} and {facts['others']} patients, "
        f"blind {blind:.3f} [{blind_low:.3f}, {blind_high:.3f}]{', flagged' if facts['flagged'] else ''}"
    )


def false_alarms(path: Path, size: int, divisions: int) -> dict[str, Any]:
    """In how many random divisions of patients, of whom no generator learned, the attack is flagged."""
    cohort = Cohort.open(path)
    rows = cohort.rows()
    bank = filter_bank(len(rows), "cpu").folds[0].network
    preprocess = Preprocess(size=(size, size))
    features = np.concatenate(
        [bank.features(network_images(cohort, rows[at : at + 256], preprocess)) for at in range(0, len(rows), 256)]
    )
    patients = np.asarray(cohort.patients(rows))
    names, rng = np.unique(patients), np.random.default_rng(0)
    flagged, values = 0, []
    for _ in range(divisions):
        order = rng.permutation(names)
        released, members = order[: len(names) // 4], order[len(names) // 4 : 3 * len(names) // 4]
        out = np.isin(patients, released)
        whose = [str(name) for name in patients[~out]]
        scores = relative_similarity(features[~out], features[out], whose)
        value, (low, _) = auroc(Patients.of(scores, whose, np.isin(patients[~out], members)))
        values.append(value)
        flagged += low > AssessConfig().membership.limit
    low, high = proportion_interval(flagged, divisions, "exact")
    print(
        f"{flagged} of {divisions} divisions flagged: {flagged / divisions:.3f} [{low:.3f}, {high:.3f}]; AUROC "
        f"{np.mean(values):.3f}, from division to division ±{np.std(values, ddof=1):.3f}"
    )
    return {"divisions": divisions, "flagged": flagged, "interval": [low, high], "auroc": values}


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="COHORT=SYNTHETIC")
    parser.add_argument(
        "--divisions", type=int, default=0, help="number of random divisions of the patients of the first cohort"
    )
    parser.add_argument("--size", type=int, default=64, help="side of what is compared")
    options = parser.parse_args(arguments)
    found = {}
    for pair in options.pairs:
        real, _, synthetic = pair.partition("=")
        size = Preprocess(size=(options.size, options.size))
        found[pair] = attacked(Cohort.open(real), Cohort.open(synthetic), size, AssessConfig())
        print(f"{pair}: {words_of(found[pair])}", flush=True)
    by_division = {}
    if options.divisions:
        by_division = false_alarms(Path(options.pairs[0].partition("=")[0]), options.size, options.divisions)
    print(write_result("membership", {"pairs": found, "by_chance": by_division}))


if __name__ == "__main__":
    main()
