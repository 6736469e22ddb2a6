"""Configuration of a private fit. It does not import torch, so recipes are read without loading it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medphantom.core.records import Frozen


class PrivateFitConfig(Frozen):
    """Configuration of a fit under differential privacy (DP-SGD, Abadi et al. 2016), unit by unit.

    A *unit* is the entity that is protected, with all its rows: two data sets are neighbours if one of them has one
    unit more. ``FitConfig.batch_size`` is the *expected* number of units per step.

    Attributes:
        epsilon: ε that the whole fit may spend, at most 100, beyond which the guarantee is void of meaning; with null
            the same steps are taken without noise and without any guarantee, for comparison.
        delta: δ of the guarantee, which must lie below one over the number of units; ``auto`` is a tenth of that.
        clip_norm: C, the largest norm of one unit's gradient. It should be small, so that nearly every unit is clipped
            and has the same weight: Adam does not depend on C, only on the noise relative to the clipped gradients (Bu
            et al. 2023).
        draws: K, the noise multiplicity: how many gradients of a drawn unit are computed per step, over its rows, each
            with its own diffusion time and noise; they are averaged *before* clipping (Dockhorn et al. 2023,
            section 3.2).
        gradients: Method for a unit's gradient. ``passes`` is one backward pass per unit, which is exact for every
            network. ``hooks`` processes many units per pass by Opacus's hooks, checked against single passes before the
            first step. ``auto`` uses hooks where they are correct for the network and K is 1, else passes.
        rows_at_once: Number of rows in memory together; the result does not depend on it.
    """

    epsilon: Annotated[float, Field(gt=0, le=100)] | None = 8.0
    delta: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    clip_norm: Annotated[float, Field(gt=0)] = 0.03
    draws: Annotated[int, Field(ge=1, le=1024)] = 8
    gradients: Literal["auto", "passes", "hooks"] = "auto"
    rows_at_once: Annotated[int, Field(ge=1)] = 32
