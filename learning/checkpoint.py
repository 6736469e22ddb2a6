"""Checkpoints: folders of safetensors and one JSON file that are written atomically and verified on reading.

accelerate's own ``save_state`` is not used because it pickles.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import (
    file_digest,
    json_digest,
    publishing,
    read_json,
    unchanged,
    work_folder,
    write_json,
)
from medphantom.core.guard import reading

FORMAT_VERSION = 1
STATE_FILE = "state.json"
KEPT = 2
_NAME = re.compile(r"step-(\d{9})")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified.

    Attributes:
        step: Number of optimiser steps done.
        state: Value that was passed as ``state`` to :func:`save_checkpoint`.
        groups: Mapping from name to state dict, on the CPU.
    """

    step: int
    state: dict[str, Any]
    groups: dict[str, dict[str, Tensor]]


def save_checkpoint(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    """Write ``folder/step-…`` atomically, then delete all but the last :data:`KEPT`.

    Args:
        folder: Folder of the checkpoints of one fit.
        step: Number of optimiser steps done.
        groups: Mapping from name to state dict; each becomes ``<name>.safetensors``.
        state: JSON values; floats are stored exactly.

    Raises:
        ResourceError: If the disk is full or cannot be written.
    """
    path = work_folder(folder) / f"step-{step:09d}"
    shutil.rmtree(path, ignore_errors=True)
    with publishing(path) as partial:
        files = {}
        for name, tensors in groups.items():
            file = partial / f"{name}.safetensors"
            content = save({key: _plain(tensor) for key, tensor in tensors.items()})
            file.write_bytes(content)  # not save_file, which does not report that the disk is full
            files[file.name] = hashlib.sha256(content).hexdigest()
        facts = {"format_version": FORMAT_VERSION, "step": step, "files": files, "state": dict(state)}
        write_json(partial / STATE_FILE, {**facts, "digest": json_digest(facts)})
    steps = _steps(folder)
    kept = [found for found in steps if found <= step][-KEPT:]  # later ones belong to a run that was rolled back
    for old in steps:
        if old not in kept:
            shutil.rmtree(folder / f"step-{old:09d}", ignore_errors=True)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the last intact checkpoint, or ``None``; each damaged one is logged as one warning."""
    for step in reversed(_steps(folder)):
        try:
            return _read(folder / f"step-{step:09d}", step)
        except ArtifactError as error:
            log.warning("%s; falling back to the previous checkpoint", error.what)
    return None


def _steps(folder: Path) -> list[int]:
    matches = (_NAME.fullmatch(path.name) for path in folder.glob("step-*"))
    return sorted(int(match.group(1)) for match in matches if match)


def _read(path: Path, step: int) -> Checkpoint:
    content = read_json(path / STATE_FILE)
    digest = content.pop("digest", None) if isinstance(content, dict) else None
    if digest is None or digest != json_digest(content) or content.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"{path / STATE_FILE} was altered")
    groups = {}
    for name, expected in content["files"].items():
        file = path / name
        with unchanged(file):
            if not file.is_file() or file_digest(file) != expected:
                raise ArtifactError(f"{file} is truncated or was altered")
            with reading(file):
                groups[file.stem] = load_file(file)
    if content["step"] != step:
        raise ArtifactError(f"{path} contains step {content['step']}")
    return Checkpoint(step, content["state"], groups)


def _plain(tensor: Tensor) -> Tensor:
    """Return a contiguous CPU copy with its own memory: safetensors refuses shared memory (tied weights)."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def refuse_other_settings(then: dict[str, Any], now: dict[str, Any], work: Path) -> None:
    """Raise :class:`ArtifactError` with one line on how the settings of a checkpoint differ from those of this fit."""
    differing = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
    if not differing:
        return
    shown = [
        f"{key} was {then.get(key)}, is {now.get(key)}"
        if not isinstance(now.get(key), dict) and key != "identity"
        else f"another {key}"
        for key in differing
    ]
    raise ArtifactError(
        f"the checkpoint in {work} belongs to another fit ({'; '.join(shown)})",
        f"remove {work} or restore the settings",
    )
