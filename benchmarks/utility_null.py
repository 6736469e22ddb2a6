"""P values of utility studies in which synthetic images change nothing: how often is p below .05?

Trainings are drawn, not done: a classifier's scores are truth times its luck, plus what is hard about every patient
(alike for all trainings), plus noise of its own. Each study has new test patients, one arm of real trainings, and an
arm with the same distribution for each of several generators and seeds, judged by the study's own code
(:mod:`quality.utility.judging`). The arms share the real trainings, as in a study.

    python -m benchmarks.utility_null
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.measuring import write_result
from quality.ranking import holm
from quality.utility.judging import Guesses, Trained, mean_over, trained

PATIENTS, SEEDS, LABELS, RATIOS = 200, 5, 2, 2


def study(generators: int, rng: np.random.Generator, *, luck: float) -> tuple[float, float]:
    """P of one label and ratio, and the smallest p of a whole study after Holm's correction."""
    truth = (rng.random((PATIENTS, LABELS)) < 0.3).astype(np.int8)
    hard = rng.normal(0, 1, (PATIENTS, LABELS))
    owners = np.arange(PATIENTS).astype(str)

    def arm(total: int) -> list[Trained]:
        skill = 1 + rng.normal(0, luck, (total, SEEDS, 1, LABELS))
        scores = truth * skill + hard + rng.normal(0, 0.5, (total, SEEDS, PATIENTS, LABELS))
        found = [trained(Guesses(scores), truth, label, owners) for label in range(LABELS)]
        return [one for one in found if one is not None]

    real = arm(1)
    cells = []
    for _ in range(RATIOS):
        mixed = arm(generators)
        apart = [one.less(other) for one, other in zip(mixed, real, strict=True)]
        cells += [one.plain()[2] for one in (*apart, mean_over(apart))]
    corrected = [p for p in holm(cells) if p is not None]
    return cells[0], min(corrected)


def main() -> None:
    """Simulate and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--name", default="utility_null")
    given = parser.parse_args()
    started, rows = time.process_time(), []
    for luck in (0.0, 0.3):
        for generators in (2, 10):
            rng = np.random.default_rng(1)
            found = np.array([study(generators, rng, luck=luck) for _ in range(given.studies)])
            single, family = (found < 0.05).mean(axis=0)
            rows.append(
                {"luck": luck, "generators": generators, "studies": given.studies, "p_below_05": float(single),
                 "any_in_family_below_05": float(family)}
            )  # fmt: skip
            print(rows[-1], flush=True)
    write_result(given.name, {"rows": rows, "processor_s": time.process_time() - started})


if __name__ == "__main__":
    main()
