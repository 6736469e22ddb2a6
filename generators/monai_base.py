"""Latent diffusion models in MONAI formats as a base: its bundles, its checkpoints, and those of monai-generative.

A folder has the layout of MONAI's bundles: ``configs/*.json`` that define an ``AutoencoderKL``, a
``DiffusionModelUNet`` and a noise scheduler, and ``models/`` with their weights. Only literals of the configuration are
read, and references to literals (``@name``): nothing is instantiated from it, and no expression (``$…``) is evaluated.
Weights are read with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from medphantom.conditioning.conditioner import Conditioner
from medphantom.conditioning.config import EncoderSizes
from medphantom.conditioning.prompt import ConditionSchema
from medphantom.core.errors import InputError
from medphantom.core.folders import canonical_json, pixel_digest, read_json
from medphantom.generators.autoencoder import Autoencoder
from medphantom.generators.config import NoiseTable, Objective
from medphantom.generators.denoiser import Denoiser
from medphantom.generators.facts import LatentScaling

WEIGHTS = (".safetensors", ".pt", ".pth")
CONTEXT_DIM = 64
RENAMED = {"num_channels": "channels", "use_checkpointing": "use_checkpoint"}  # since monai-generative
SCHEDULES = {"linear_beta": "linear", "scaled_linear_beta": "scaled_linear"}
SCHEDULERS: dict[str, Any] = {kind.__name__: kind for kind in (DDPMScheduler, DDIMScheduler, PNDMScheduler)}
OTHER_PATHS = {"RFlowScheduler"}  # rectified flow, over time steps that MONAI may transform by the size of the image
FIRST_BETA, LAST_BETA = 1e-4, 0.02  # defaults of both schedules, in MONAI and monai-generative alike
PASSED_ON = {
    "num_train_timesteps": "steps",
    "beta_start": "start",
    "beta_end": "end",
    "prediction_type": "prediction",
}
LAYOUT = "a MONAI base needs configs/*.json with an AutoencoderKL, a DiffusionModelUNet and a scheduler, and models/"


class MonaiParts:
    """Content of a folder in the layout of MONAI's bundles.

    Args:
        source: Folder of the base.
        unit_range: Whether its autoencoder expects images in 0…1, as most of MONAI's do.

    Raises:
        InputError: If something is missing, is not a literal, or does not fit.
    """

    kind: Literal["monai"] = "monai"

    def __init__(self, source: str, *, unit_range: bool) -> None:
        self.source = source
        self._folder = Path(source)
        self._config = self._read_configs()
        self.objective = Objective(kind="ddpm", table=self._table(), times="uniform")
        codec, unet = self._arguments("AutoencoderKL"), self._arguments("DiffusionModelUNet")
        if unet.get("in_channels") != codec.get("latent_channels"):
            raise InputError(
                f"base {source}: the denoiser takes {unet.get('in_channels')} channels, but the "
                f"autoencoder's latents have {codec.get('latent_channels')}",
                "use a base without masks or other images as input beside the latent",
            )
        states = dict(self._states())
        self.autoencoder = Autoencoder(codec, patch=1, shortcut=False, unit_range=unit_range)
        self._load("autoencoder", self.autoencoder.net, states)
        schema, table = ConditionSchema(), self.objective.table
        sizes = EncoderSizes(dim=int(unet.get("cross_attention_dim") or CONTEXT_DIM))
        assert table is not None  # noqa: S101 - made above
        self.denoiser = Denoiser(unet, Conditioner(schema), sizes, levels=table.steps)
        self._load("denoiser", self.denoiser.net, states)
        beside_time: Any = self.denoiser.conditioning["to_time"]
        nn.init.zeros_(beside_time.weight)  # the pooled condition starts with no effect
        nn.init.zeros_(beside_time.bias)
        factor = self._scale_factor(states)
        channels = int(codec["latent_channels"])
        self.scaling = LatentScaling(mean=(0.0,) * channels, std=(1 / factor,) * channels)
        self.digest = self._digest()

    def _digest(self) -> str:
        facts = [self.objective.model_dump(mode="json"), self.scaling.model_dump(mode="json")]
        digest = hashlib.sha256(canonical_json(facts).encode())
        for arguments, net in (
            (self.autoencoder.arguments, self.autoencoder.net),
            (self.denoiser.arguments, self.denoiser.net),
        ):
            digest.update(canonical_json(arguments).encode())
            for name, tensor in sorted(net.state_dict().items()):
                digest.update(f"{name}\0{pixel_digest(tensor.detach().contiguous().numpy())}".encode())
        return digest.hexdigest()

    # ---- configuration ----

    def _read_configs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted((self._folder / "configs").glob("*.json"), key=lambda p: (p.stem != "inference", p.stem)):
            content = read_json(path)
            if isinstance(content, dict):
                found = {**content, **found}  # inference.json takes precedence
        if not found:
            raise InputError(f"{self.source} contains no configs/*.json", LAYOUT)
        return found

    def _definition(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        for value in self._config.values():
            if _target(value) in class_names:
                return {key: self._literal(key, item) for key, item in value.items() if not key.startswith("_")}
        raise InputError(f"{self.source} defines no {class_names[0]} in configs/", LAYOUT)

    def _literal(self, key: str, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("@"):
            name = value[1:]
            if name not in self._config:
                raise InputError(f"{self.source}: {key} refers to {name!r}, which configs/ do not define", LAYOUT)
            return self._literal(key, self._config[name])
        if isinstance(value, str) and value.startswith(("$", "%")):
            raise InputError(
                f"{self.source}: {key} is an expression, which is never evaluated", f"write its value for {key}"
            )
        return value

    def _arguments(self, name: str) -> dict[str, Any]:
        kind = {"AutoencoderKL": AutoencoderKL, "DiffusionModelUNet": DiffusionModelUNet}[name]
        known = inspect.signature(kind.__init__).parameters
        given = {RENAMED.get(key, key): value for key, value in self._definition((name,)).items()}
        unknown = sorted(key for key in given if key not in known)
        if unknown:
            raise InputError(f"{self.source}: MONAI's {name} has no argument {unknown[0]!r}", "remove it from configs/")
        return given

    def _table(self) -> NoiseTable:
        """Return the levels of the scheduler; a missing field has the default of its class."""
        kinds = {_target(value) for value in self._config.values()}
        others = sorted(kinds & OTHER_PATHS)
        if others:
            raise InputError(
                f"base {self.source} has the scheduler {others[0]}, which is not a table of noise levels",
                "use a base with a DDPM, DDIM or PNDM scheduler",
            )
        named = sorted(kinds & set(SCHEDULERS)) or [next(iter(SCHEDULERS))]
        tables = {self._table_of(name, self._definition((name,))) for name in named}
        if len(tables) > 1:
            raise InputError(
                f"base {self.source} has schedulers of different noise levels",
                "keep only that of the training in configs/",
            )
        return tables.pop()

    def _table_of(self, name: str, found: dict[str, Any]) -> NoiseTable:
        parameters = inspect.signature(SCHEDULERS[name].__init__).parameters
        values: dict[str, Any] = {"beta_start": FIRST_BETA, "beta_end": LAST_BETA}
        values |= {key: one.default for key, one in parameters.items() if key not in {"self", "schedule_args"}}
        unknown = sorted(key for key in found if key not in values)
        if unknown:
            raise InputError(
                f"base {self.source}: {unknown[0][:60]!r} of its {name} is not part of a table of noise levels",
                "write schedule, beta_start and beta_end, with these MONAI names",
            )
        values |= found
        schedule = values["schedule"]
        if schedule not in SCHEDULES:
            raise InputError(
                f"base {self.source} has the noise schedule {schedule!r}", f"known are {', '.join(SCHEDULES)}"
            )
        try:
            return NoiseTable(
                schedule=SCHEDULES[schedule], **{mine: values[theirs] for theirs, mine in PASSED_ON.items()}
            )
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InputError(f"base {self.source}: its scheduler's {field} has an unsupported type", LAYOUT) from None

    def _scale_factor(self, states: Mapping[str, Any]) -> float:
        for value in (self._config.get("scale_factor"), *(state.get("scale_factor") for state in states.values())):
            if isinstance(value, int | float | Tensor) and float(value) > 0:
                return float(value)
        raise InputError(
            f"base {self.source} does not give the scale factor of its latents",
            "write scale_factor into configs/inference.json (1.0 if there was none)",
        )

    # ---- weights ----

    def _states(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every weight file; a checkpoint with several state dicts yields each of them."""
        for path in sorted((self._folder / "models").glob("*")):
            if path.suffix not in WEIGHTS:
                continue
            try:
                content = (
                    load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
                )
            except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError):
                raise InputError(
                    f"{path} cannot be read as weights only", "save its state dict alone, preferably as safetensors"
                ) from None
            if isinstance(content, dict):
                yield path.name, content
                yield from ((f"{path.name}:{key}", part) for key, part in content.items() if isinstance(part, dict))

    def _load(self, what: str, net: nn.Module, states: Mapping[str, dict[str, Any]]) -> None:
        """Load a network from the first state dict that fits it, from MONAI or monai-generative."""
        for state in states.values():
            tensors = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
            if tensors and _fill(net, tensors):
                return
        if not states:
            kinds = sorted({path.suffix for path in (self._folder / "models").glob("*") if path.is_file()})
            said = f" ({', '.join(kinds)} cannot be read)" if kinds else ""
            raise InputError(
                f"{self.source}/models contains no weights{said}",
                f"provide the state dict of the {what} as {', '.join(WEIGHTS)}",
            )
        raise InputError(f"no file in {self.source}/models fits the {what} that configs/ define", LAYOUT)


def _target(value: Any) -> str:
    """Return the class name in a definition, without its module."""
    return str(value.get("_target_", "")).rpartition(".")[2] if isinstance(value, dict) else ""


def _fill(net: Any, tensors: dict[str, Tensor]) -> bool:
    """Load a state dict of MONAI or monai-generative; return whether it fits, weight by weight."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError:
        old = dict(tensors)
        _forget(net)  # MONAI's import leaves missing weights at their random initial values
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                net.load_old_state_dict(old)
        except (KeyError, RuntimeError, AttributeError):
            return False
        if any(".proj_attn." not in name for name in old) or not _known(net):
            return False
        if isinstance(net, AutoencoderKL):
            _unapply_projection(net, tensors)
    return True


@torch.no_grad()
def _forget(net: nn.Module) -> None:
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))


def _known(net: nn.Module) -> bool:
    return not any(bool(tensor.isnan().any()) for tensor in net.state_dict().values() if tensor.is_floating_point())


@torch.no_grad()
def _unapply_projection(net: nn.Module, old: Mapping[str, Tensor]) -> None:
    """Neutralise ``proj_attn``, which monai-generative's autoencoder has but never applies; MONAI does (issue 8030)."""
    if not any(".proj_attn." in name for name in old):
        return
    for name, module in net.named_modules():
        if name.endswith(".attn.out_proj") and isinstance(module, nn.Linear):
            nn.init.eye_(module.weight)
            nn.init.zeros_(module.bias)
