r"""Membership from the images alone, for sets that exist: whose patients are told from others, and whose luck that is.

Every pair is a real cohort and a synthetic one that was drawn for it. A set drawn from *another* cohort, whose division
of the same patients was another, says what the division alone does: its generator learned from both sides. Seconds a
pair::

    python -m benchmarks.membership runs/private_1/cohort=runs/private_1/synthetic \
        runs/generator_gate/cohort=runs/division_b/honest_0/synthetic
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import write_result
from cohorts.preprocess import Preprocess
from cohorts.store import Cohort
from quality.config import AssessConfig
from quality.estimate import Estimate
from quality.material import Material
from quality.parts import Context
from quality.privacy_part import membership_part


def figures(estimate: Estimate) -> list[float | None]:
    """Value and interval."""
    return [estimate.value, *(estimate.interval or ())]


def attacked(real: Path, synthetic: Path, size: int) -> dict[str, Any]:
    """What the attacks reach."""
    cohort = Cohort.open(real)
    material = Material(cohort, Cohort.open(synthetic), Preprocess(size=(size, size)))
    summary = membership_part(Context(material, AssessConfig(), synthetic, lambda *_: None)).summary
    if summary is None:
        raise RuntimeError(f"{real} has too few patients")
    (result,) = summary.results
    return {
        "auroc": figures(result.auroc),
        "blind": figures(summary.blind),
        "flagged": result.flagged,
        "members": result.auroc.n_synthetic,
        "others": result.auroc.n_real,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="COHORT=SYNTHETIC")
    parser.add_argument("--size", type=int, default=64, help="side of what is compared")
    options = parser.parse_args(arguments)
    found = {}
    for pair in options.pairs:
        real, _, synthetic = pair.partition("=")
        found[pair] = facts = attacked(Path(real), Path(synthetic), options.size)
        value, low, high = facts["auroc"]
        blind, blind_low, blind_high = facts["blind"]
        print(
            f"{pair}: {value:.3f} [{low:.3f}, {high:.3f}] of {facts['members']} and {facts['others']} patients, "
            f"blind {blind:.3f} [{blind_low:.3f}, {blind_high:.3f}]{', flagged' if facts['flagged'] else ''}",
            flush=True,
        )
    print(write_result("membership", {"pairs": found}))


if __name__ == "__main__":
    main()
