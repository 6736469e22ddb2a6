from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from medphantom.generators.config import DenoiserConfig, GeneratorConfig, SamplerConfig


def test_recipes_are_read_without_loading_torch() -> None:
    code = (
        "import sys, medphantom.generators.config, medphantom.generators.facts; "
        "sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_configuration_survives_json() -> None:
    config = GeneratorConfig(seed=3, flip=True)
    assert GeneratorConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SamplerConfig(steps=0), r"steps\n.*greater than or equal to 1"),
        (lambda: SamplerConfig(guidance_interval=(0.8, 0.2)), "must be in the order low, high"),
        (lambda: SamplerConfig(solver="ddpm"), "solver"),
        (lambda: DenoiserConfig(channels=(48,), norm_groups=16, head_channels=32), "multiples of head_channels = 32"),
        (lambda: GeneratorConfig(surprise=1), "surprise"),
    ],
)
def test_wrong_settings_are_named(build, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        build()
