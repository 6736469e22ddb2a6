"""P values of utility studies in which synthetic images change nothing: how often is p below .05?

Trainings are simulated: a classifier's scores are the truth times a random skill, plus the difficulty of every patient
(the same for all trainings), plus noise of its own. Each study has new test patients, one arm of real trainings, and an
arm with the same distribution for each of several generators and seeds, predicted by the study's own code
(:mod:`medphantom.quality.utility.repeated`). The arms share the real trainings, as in a study.

It is compared with the rule that counts every difference to the shared real trainings as independent of the others.

    python -m benchmarks.utility_null
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import stats

from benchmarks.measuring import write_result
from medphantom.quality.stats.correction import holm
from medphantom.quality.utility.repeated import Predictions, RepeatedScore, mean_over, trained

PATIENTS, SEEDS, LABELS, RATIOS = 200, 5, 2, 2
FIGURES = ("p", "p_as_if_independent", "smallest_in_family")


def as_if_independent(found: RepeatedScore) -> float:
    """P of a difference, were all trainings of all generators compared with real trainings of their own."""
    values, patients = found.values, found.mean.variance(found.patients)
    seeds = float(values.var(ddof=1)) / values.size
    total = patients.value + seeds
    noise = patients.value**2 / patients.freedom + seeds**2 / (values.size - 1)
    return float(2 * stats.t.sf(abs(found.mean.value) / np.sqrt(total), total**2 / noise))


def study(generators: int, rng: np.random.Generator, *, spread: float) -> tuple[float, float, float]:
    """P of one label, arm and ratio, the same as if independent, and the smallest of a study by Holm."""
    truth = (rng.random((PATIENTS, LABELS)) < 0.3).astype(np.int8)
    hard = rng.normal(0, 1, (PATIENTS, LABELS))
    owners = np.arange(PATIENTS).astype(str)

    def arm(total: int) -> list[RepeatedScore]:
        skill = 1 + rng.normal(0, spread, (total, SEEDS, 1, LABELS))
        scores = truth * skill + hard + rng.normal(0, 0.5, (total, SEEDS, PATIENTS, LABELS))
        found = [trained(Predictions(scores), truth, label, owners) for label in range(LABELS)]
        return [one for one in found if one is not None]

    real = arm(1)
    cells, single = [], 1.0
    for ratio in range(RATIOS):
        mixed = arm(generators)
        apart = [one.less(other) for one, other in zip(mixed, real, strict=True)]
        single = as_if_independent(apart[0]) if ratio == 0 else single
        cells += [one.plain()[2] for one in (*apart, mean_over(apart))]
    corrected = [p for p in holm(cells) if p is not None]
    return cells[0], single, min(corrected)


def main() -> None:
    """Simulate and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--name", default="utility_null")
    given = parser.parse_args()
    started, rows = time.process_time(), []
    for spread in (0.0, 0.3, 1.0):
        for generators in (2, 10):
            rng = np.random.default_rng(1)
            found = np.array([study(generators, rng, spread=spread) for _ in range(given.studies)])
            below = dict(zip(FIGURES, (found < 0.05).mean(axis=0).tolist(), strict=True))
            rows.append({"luck": spread, "generators": generators, "studies": given.studies, "below_05": below})
            print(rows[-1], flush=True)
    settings = {"patients": PATIENTS, "seeds": SEEDS, "labels": LABELS, "ratios": RATIOS}
    write_result(given.name, {"settings": settings, "rows": rows, "processor_s": time.process_time() - started})


if __name__ == "__main__":
    main()
