"""Schedulers of diffusers as tables of noise levels: interpreted by their class and its defaults, or refused.

The *training* settings of a scheduler define the meaning of a network: noise levels, and what it predicts. The
*sampling* settings (spacing and offset of time steps, Karras, exponential or beta sigmas, order and kind of a solver,
clipping, thresholding, final levels) belong to its solver, which is replaced here, and are ignored on purpose.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
from pydantic import ValidationError

from medphantom.core.errors import InputError
from medphantom.generators.config import NoiseTable

DISCRETE = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
)
"""Classes whose levels are a table of betas (Ho et al. 2020).

Other classes are refused: flow matching, sigmas of EDM, and consistency models (LCM, TCD), whose networks were
distilled.
"""
PASSED_ON = {
    "num_train_timesteps": "steps",
    "beta_schedule": "schedule",
    "beta_start": "start",
    "beta_end": "end",
    "prediction_type": "prediction",
}
OTHER_LEVELS: dict[str, tuple[Any, ...]] = {
    "trained_betas": (None,),
    "rescale_betas_zero_snr": (False, None),  # Lin et al. 2023: the last level has no signal
    "use_flow_sigmas": (False, None),  # a straight path instead of the table
    "timestep_type": ("discrete",),  # continuous: the network is told log sigma / 4 (Karras et al. 2022)
    "variance_type": (None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}
"""Fields that change the meaning of a network, with their neutral values. A learned variance doubles its output."""
FITTING = "use a base trained on a discrete table of noise levels, predicting noise or velocity"


def table_of(config: Mapping[str, Any], source: str) -> NoiseTable:
    """Return the noise levels that a ``scheduler_config.json`` describes.

    Args:
        config: Content of the file; a missing field has the default of its class, which differs between classes.
        source: Name of the base in messages.

    Raises:
        InputError: If a class, a field or a value does not define a table of noise levels.

    Example:
        >>> table_of({"_class_name": "DDPMScheduler"}, "a base").end
        0.02
        >>> table_of({"_class_name": "HeunDiscreteScheduler"}, "a base").end
        0.012
    """
    name = config.get("_class_name")
    if not isinstance(name, str):
        raise InputError(
            f"the scheduler of base {source} does not name its class",
            "write _class_name into scheduler/scheduler_config.json, as diffusers writes it",
        )
    if name not in DISCRETE:
        raise InputError(
            f"base {source} has the scheduler {name[:60]!r}, whose network was not trained on a table of noise levels",
            FITTING,
        )
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    values = {key: config.get(key, one.default) for key, one in parameters.items() if key != "self"}
    for key, harmless in OTHER_LEVELS.items():
        value = config.get(key, values.get(key, harmless[0]))
        if value not in harmless:
            said = "levels of its own" if isinstance(value, list | dict) else repr(value)
            raise InputError(
                f"base {source} has a scheduler with {key} {said[:60]}, which is not a supported table of noise levels",
                FITTING,
            )
    try:
        return NoiseTable.model_validate({mine: values[theirs] for theirs, mine in PASSED_ON.items()})
    except ValidationError as error:
        mine = str(error.errors()[0]["loc"][0])
        theirs = next(key for key, value in PASSED_ON.items() if value == mine)
        said = repr(values[theirs])[:60]
        raise InputError(
            f"base {source} has a scheduler with {theirs} {said}, which is not a supported table of noise levels",
            FITTING,
        ) from None
