"""A scheduler is what its class says: the levels here are those of diffusers' own object, field by field."""

from __future__ import annotations

import warnings
from typing import Any

import diffusers
import pytest
import torch

from medphantom.core.errors import InputError
from medphantom.generators.config import Objective
from medphantom.generators.noise_tables import DISCRETE, table_of
from medphantom.generators.objective import alpha_sigma


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("given", [{}, {"beta_schedule": "scaled_linear", "beta_end": 0.012}])
def test_missing_fields_have_the_defaults_of_their_class(name: str, given: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # diffusers hands tensors to numpy functions
        scheduler = getattr(diffusers, name)(**given)
    table = table_of({"_class_name": name, **given}, "a base")
    levels = torch.arange(1, table.steps + 1) / table.steps
    alpha, _ = alpha_sigma(Objective(kind="ddpm", table=table, times="uniform"), levels)
    torch.testing.assert_close(alpha.square(), scheduler.alphas_cumprod, atol=1e-5, rtol=1e-4)
    assert table.prediction == scheduler.config.prediction_type


@pytest.mark.parametrize(
    "given",
    [
        {"timestep_spacing": "trailing", "steps_offset": 1},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"thresholding": True, "sample_max_value": 2.0},
        {"clip_sample": True, "set_alpha_to_one": False, "skip_prk_steps": True},
        {"solver_order": 3, "algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
        {"variance_type": "fixed_large"},
    ],
)
def test_what_only_sampling_reads_changes_no_level(given: dict[str, Any]) -> None:
    for name in ("DDPMScheduler", "DPMSolverMultistepScheduler"):
        assert table_of({"_class_name": name, **given}, "a base") == table_of({"_class_name": name}, "a base")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"beta_schedule": "linear"}, "does not name its class; write _class_name"),
        ({"_class_name": "EDMEulerScheduler"}, "has the scheduler 'EDMEulerScheduler', whose network was not"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
            "was not trained on a table of noise levels",
        ),
        ({"_class_name": "LCMScheduler"}, "was not trained on a table of noise levels"),
        ({"_class_name": "SomebodysScheduler"}, "was not trained on a table of noise levels"),
        ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "with rescale_betas_zero_snr True"),
        ({"_class_name": "DDPMScheduler", "trained_betas": [0.1, 0.2]}, "with trained_betas levels of its own"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "sample"}, "with prediction_type 'sample'"),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"}, "with beta_schedule 'sigmoid'"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "with variance_type 'learned_range'"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "with timestep_type 'continuous'"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "with use_flow_sigmas True"),
        ({"_class_name": "DDPMScheduler", "beta_start": None}, "with beta_start None"),
    ],
)
def test_other_noise_paths_are_refused_in_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        table_of(config, "a base")
    assert "\n" not in str(caught.value)
