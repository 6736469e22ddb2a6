"""What can be set about a private fit. No torch here: recipes are read without loading it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medphantom.core.records import Frozen


class PrivateFitConfig(Frozen):
    """How a network is fitted under differential privacy (DP-SGD, Abadi et al. 2016), unit by unit.

    A *unit* is whoever is protected, with all their rows: two data sets are neighbours when one of them has one unit
    more. ``FitConfig.batch_size`` is the *expected* number of units per step.

    Attributes:
        epsilon: ε that the whole fit may spend, at most 100, beyond which it promises nothing; null: the same steps
            without noise, and without any guarantee, to compare with.
        delta: δ, which must lie below one over the number of units; ``auto``: a tenth of that.
        clip_norm: C, largest norm of one unit's gradient. Small, so that nearly every unit is clipped and counts alike:
            Adam does not see how large C is, only how large the noise is beside what is left (Bu et al. 2023).
        draws: K, how often a unit is looked at per step, over its rows, each time with noise and time of its own; its
            K gradients are averaged *before* they are clipped (Dockhorn et al. 2023, section 3.2).
        gradients: how a unit's gradient is found. ``passes``: one backward pass per unit, which is exact for every
            network. ``hooks``: many units per pass, by Opacus's hooks, checked against single passes before the first
            step. ``auto``: hooks where they are right for the network and a unit is looked at once, else passes.
        rows_at_once: rows in memory together; it does not change what a step sees.
    """

    epsilon: Annotated[float, Field(gt=0, le=100)] | None = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    clip_norm: Annotated[float, Field(gt=0)] = 0.03
    draws: Annotated[int, Field(ge=1, le=1024)] = 8
    gradients: Literal["auto", "passes", "hooks"] = "auto"
    rows_at_once: Annotated[int, Field(ge=1)] = 32
