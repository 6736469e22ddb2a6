"""A user's classifier as a plain callable: a TorchScript or ONNX file, or any function of images."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from medphantom.cohorts.preprocess import fit_to_size
from medphantom.core.errors import InputError
from medphantom.core.extras import require
from medphantom.core.records import Array, Frozen

IMAGES_PER_PASS = 64
SIZE_REMEDY = "give its input format with --size, --channels and --range"

Classifier = Callable[[Array], Any]


class ClassifierInput(Frozen):
    """The input format of a classifier.

    Attributes:
        size: side length or lengths of the images; ``None`` for those of the pairs.
        channels: number of channels, 1 or 3; ``None`` for that of the pairs.
        low: intensity value of black.
        high: intensity value of white.
    """

    size: tuple[Annotated[int, Field(ge=8)], ...] | None = None
    channels: Literal[1, 3] | None = None
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _black_below_white(self) -> ClassifierInput:
        if not self.low < self.high:
            raise ValueError(f"the value of black must lie below that of white, got {self.low:g} and {self.high:g}")
        return self

    def prepared(self, images_NC: Array) -> Array:
        """Convert images in -1…1, float32 ``(N, C, *size)``, to the input format of the classifier."""
        made = images_NC
        if self.size is not None and tuple(made.shape[2:]) != self.size:
            planes = [[fit_to_size(plane, self.size, "pad", border=-1.0) for plane in image] for image in made]
            made = np.asarray(planes, dtype=np.float32)
        if self.channels == 3 and made.shape[1] == 1:
            made = np.repeat(made, 3, axis=1)
        elif self.channels == 1 and made.shape[1] == 3:
            made = np.tensordot(made, np.array([0.299, 0.587, 0.114], dtype=np.float32), axes=(1, 0))[:, None]
        scaled: Array = ((made + 1) / 2 * (self.high - self.low) + self.low).astype(np.float32)
        return scaled


@dataclass(frozen=True)
class OutsideClassifier:
    """A classifier and the names of its outputs.

    Attributes:
        call: function from images ``(N, C, *size)``, float32, to outputs ``(N,)`` or ``(N, K)``.
        names: names of the K outputs; empty if they are only numbered.
    """

    call: Classifier
    names: tuple[str, ...] = ()

    def column(self, output: str) -> int:
        """Number of an output given by name or index.

        Raises:
            InputError: there is no output of that name.
        """
        if output in self.names:
            return self.names.index(output)
        if output.isdecimal():
            return int(output)
        known = ", ".join(self.names) or "it names none: give an index, or the names with --names"
        raise InputError(f"the classifier has no output {output!r}", f"known: {known}" if self.names else known)

    def read(self, images_NC: Array, column: int) -> Array:
        """One output of every image, float64 ``(N,)``.

        Raises:
            InputError: the classifier does not accept these images, or does not return a finite number for each.
        """
        parts = []
        for start in range(0, len(images_NC), IMAGES_PER_PASS):
            batch = images_NC[start : start + IMAGES_PER_PASS]
            parts.append(_checked(self.call(batch), batch.shape, column))
        return np.concatenate(parts) if parts else np.zeros(0)


def _checked(found: Any, shape: Sequence[int], column: int) -> Array:
    """One column of the classifier's output for a batch."""
    try:
        table = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("the classifier returned no array of numbers", "it must return (N,) or (N, K)") from None
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2 or len(table) != shape[0]:
        raise InputError(
            f"the classifier returned shape {np.shape(found)} for images {tuple(shape)}",
            "it must return (N,) or (N, K)",
        )
    if not column < table.shape[1]:
        raise InputError(
            f"the classifier has {table.shape[1]} outputs, but output {column} was requested",
            "outputs are numbered from 0",
        )
    if not np.isfinite(table[:, column]).all():
        raise InputError("the classifier returned NaN or infinity", SIZE_REMEDY)
    chosen: Array = table[:, column]
    return chosen


def require_packages(path: Path) -> None:
    """Refuse a file that needs a package which is not installed, before anything else is read.

    Raises:
        InputError: The file is an ONNX file and onnxruntime is not installed.
    """
    if path.suffix.lower() == ".onnx":
        require("onnx", path.name)


def load_classifier(path: Path, names: Sequence[str] = ()) -> OutsideClassifier:
    """Load a classifier from a TorchScript file, or from an ONNX file if its name ends with ``.onnx``.

    Python unpickles nothing. A TorchScript file is nevertheless a program with unrestricted use of processor and
    memory, so it should come from a trusted source.

    Args:
        path: path of the file.
        names: names of the outputs.

    Raises:
        InputError: the file is missing or of another kind, or onnxruntime is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "give a TorchScript or ONNX file")
    found = _onnx(path) if path.suffix.lower() == ".onnx" else _torchscript(path)
    return OutsideClassifier(found.call, tuple(names) or found.names)


def _torchscript(path: Path) -> OutsideClassifier:
    import torch

    wrong = InputError(f"{path} is no TorchScript file", "save it with torch.jit.save, or give an ONNX file")
    if not zipfile.is_zipfile(path):
        raise wrong
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith(("/constants.pkl", "/code/__torch__.py")) for name in archive.namelist()):
            raise wrong
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # torch would rather have torch.export, which runs Python
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]  # in torch's stubs
    except (RuntimeError, ValueError):
        raise wrong from None

    def call(images: Array) -> Any:
        try:
            with torch.inference_mode():
                answer = module(torch.from_numpy(images))
        except RuntimeError:
            raise InputError(f"{path.name} cannot take images {images.shape}", SIZE_REMEDY) from None
        if not isinstance(answer, torch.Tensor):
            raise InputError(f"{path.name} returned {type(answer).__name__}, no tensor", "return one tensor (N, K)")
        return answer.float().numpy()

    return OutsideClassifier(call)


def _onnx(path: Path) -> OutsideClassifier:
    require_packages(path)
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:  # its exceptions have no common base but this one
        raise InputError(f"{path} is no ONNX model that onnxruntime can read", "export it again") from None
    inputs, answers = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1:
        raise InputError(f"{path.name} takes {len(inputs)} inputs", "give a model of images alone")
    fixed = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None

    def call(images: Array) -> Any:
        step = fixed or len(images)
        parts = []
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            padded = np.concatenate([batch, np.repeat(batch[-1:], step - len(batch), axis=0)])
            try:
                found = session.run(None, {inputs[0].name: padded})
            except Exception:
                raise InputError(f"{path.name} cannot take images {images.shape}", SIZE_REMEDY) from None
            joined = found[0] if len(found) == 1 else np.concatenate([part.reshape(step, -1) for part in found], axis=1)
            parts.append(joined[: len(batch)] if len(joined) == step else joined)
        return np.concatenate(parts)

    return OutsideClassifier(call, tuple(answer.name for answer in answers) if len(answers) > 1 else ())
