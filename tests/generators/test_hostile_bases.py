"""Bases whose files are forged: one line each, no request to anybody, no network larger than the weights beside it."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet

from medphantom.conditioning.pretrained_text import PretrainedReader
from medphantom.core.errors import InputError
from medphantom.generators.base import open_base
from tests.generators.stable_tiny import make_pipeline
from tests.generators.test_monai_base import CODEC, UNET, write_base


@pytest.fixture
def stable(tmp_path: Path) -> Path:
    return make_pipeline(tmp_path / "stable")


@pytest.fixture
def monai(tmp_path: Path) -> Path:
    codec, unet = AutoencoderKL(**CODEC, channels=[8, 16]), DiffusionModelUNet(**UNET, channels=[16, 32])
    return write_base(tmp_path / "monai", codec, unet, old=False)


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def refusal(base: Path) -> str:
    with pytest.raises(InputError) as raised:
        open_base(str(base))
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet", {"block_out_channels": [2**20, 2**21], "norm_num_groups": 8}),
        ("unet", {"layers_per_block": 10**6}),
        ("unet", {"cross_attention_dim": 2**40}),
        ("vae", {"block_out_channels": [2**22, 2**22]}),
        ("text_encoder", {"num_hidden_layers": 10**7}),
        ("text_encoder", {"vocab_size": 2**45}),
    ],
)
def test_a_pipeline_is_no_larger_than_its_weights(stable: Path, part: str, values: dict[str, Any]) -> None:
    change(stable / part / "config.json", **values)
    line = refusal(stable)
    assert "describes a larger network than the weights in it" in line or "cannot be had" in line


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("diffusion_def", {"channels": [2**20, 2**21]}),
        ("diffusion_def", {"num_res_blocks": 10**6}),
        ("diffusion_def", {"cross_attention_dim": 2**40}),
        ("autoencoder_def", {"channels": [2**30, 2**31]}),
        ("autoencoder_def", {"channels": "16"}),
        ("autoencoder_def", {"spatial_dims": {}}),
    ],
)
def test_a_monai_base_is_no_larger_than_its_weights(monai: Path, name: str, values: dict[str, Any]) -> None:
    file = monai / "configs" / "inference.json"
    content = json.loads(file.read_text())
    change(file, **{name: content[name] | values})
    assert str(monai) in refusal(monai)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tokenizer/merges.txt", "#version: 0.2\na b c d\nx y\n"),
        ("tokenizer/vocab.json", '{"a": [[]], "b": -1}'),
        ("tokenizer/special_tokens_map.json", '{"bos_token": ' + "[" * 900 + "]" * 900 + "}"),
        ("unet/config.json", "[]"),
        ("unet/config.json", "{}"),
        ("vae/config.json", "7"),
        ("text_encoder/config.json", "null"),
        ("scheduler/scheduler_config.json", "[1]"),
    ],
)
def test_what_a_library_raises_is_one_line(stable: Path, file: str, text: str) -> None:
    (stable / file).write_text(text)
    assert str(stable) in refusal(stable)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_folder_never_sends_anybody_to_a_hub(stable: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers takes a configuration that is a text for the name of another model, and fetches that one."""
    requested: list[Any] = []

    def record(*where: Any, **_: Any) -> Any:
        requested.append(where)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", record)
    (stable / part / "config.json").write_text('"somebody/else"')
    refusal(stable)
    assert requested == []


def test_libraries_say_nothing(stable: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("transformers").setLevel(logging.WARNING)
    change(stable / "unet" / "config.json", **{"\x1b[31mred": 1})
    change(stable / "text_encoder" / "config.json", num_hidden_layers=4)
    capfd.readouterr()
    assert "of its weights are missing" in refusal(stable)
    assert capfd.readouterr() == ("", "")


def test_a_text_encoder_is_no_larger_than_its_weights(stable: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    (stable / "text_encoder").rename(encoder)
    for file in (stable / "tokenizer").iterdir():
        (encoder / file.name).write_bytes(file.read_bytes())
    assert PretrainedReader(str(encoder), 77).width == 32
    change(encoder / "config.json", num_hidden_layers=10**7)
    with pytest.raises(InputError, match="describes a larger network than the weights in it"):
        PretrainedReader(str(encoder), 77)
