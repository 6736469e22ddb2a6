"""Ten alterations of images, as pure functions, with which planted copies test the copy search.

The strength is drawn for each image from the range given with each function; a human observer can still recognise the
original image. Shapes: ``(N, C, *)`` float32 in -1…1, two or three spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medphantom.core.records import Array
from medphantom.quality.privacy.registration import similarity, smoothed, warp

Alteration = Callable[[Tensor, np.random.Generator], Tensor]


def _uniform(rng: np.random.Generator, low: float, high: float, total: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, total).astype(np.float32))


def _columns(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def as_it_is(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The images without alteration."""
    del rng
    return images


def mirrored(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images mirrored along the last axis, with left and right exchanged."""
    del rng
    return images.flip(-1)


def shifted(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images shifted by up to 6 % of each side."""
    spatial = tuple(images.shape[2:])
    sides = torch.tensor([float(side) for side in reversed(spatial)])
    moves = torch.from_numpy(rng.uniform(-0.06, 0.06, (len(images), len(spatial))).astype(np.float32)) * sides
    return warp(images, similarity(spatial, shift=moves))


def scaled(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images enlarged or reduced by up to 10 %."""
    return warp(images, similarity(tuple(images.shape[2:]), scale=torch.exp(_uniform(rng, -0.1, 0.1, len(images)))))


def turned(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images rotated by up to 8 degrees in the plane of the last two axes."""
    angles = _uniform(rng, -8, 8, len(images)) * math.pi / 180
    return warp(images, similarity(tuple(images.shape[2:]), turn=angles))


def cropped(images: Tensor, rng: np.random.Generator) -> Tensor:
    """A window of 85 to 93 % of each side, anywhere in the image, enlarged to the full size."""
    spatial = tuple(images.shape[2:])
    share = _uniform(rng, 0.85, 0.93, len(images))
    sides = torch.tensor([float(side) for side in reversed(spatial)])
    room = (1 - share).reshape(-1, 1) / 2 * sides / share.reshape(-1, 1)
    places = torch.from_numpy(rng.uniform(-1, 1, (len(images), len(spatial))).astype(np.float32))
    return warp(images, similarity(spatial, scale=1 / share, shift=places * room))


def recontrasted(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images with a gamma between 0.7 and 1.4 and a range of grey values reduced to 70 to 100 %."""
    gamma = torch.exp(_uniform(rng, math.log(0.7), math.log(1.4), len(images)))
    gain = _uniform(rng, 0.7, 1.0, len(images))
    unit = ((images + 1) / 2).clamp(0, 1) ** _columns(gamma, images)
    return (2 * unit - 1) * _columns(gain, images)


def blurred(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images with Gaussian blur whose standard deviation is 2 % of the shortest side."""
    del rng
    return smoothed(images, max(0.5, 0.02 * min(images.shape[2:])))


def noised(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images with Gaussian noise whose standard deviation is 5 % of the range of grey values."""
    noise = torch.from_numpy(rng.standard_normal(images.shape).astype(np.float32))
    return (images + 0.1 * noise).clamp(-1, 1)


def patched(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images in which a window of 30 to 40 % of each side is replaced by that of another image."""
    found = images.clone()
    spatial = images.shape[2:]
    for place in range(len(images)):
        share = float(rng.uniform(0.3, 0.4))
        window: list[slice] = []
        for side in spatial:
            width = max(1, round(share * side))
            start = int(rng.integers(0, side - width + 1))
            window.append(slice(start, start + width))
        other = (place + 1 + int(rng.integers(max(1, len(images) - 1)))) % len(images)
        inside: Any = (slice(None), *window)
        found[place][inside] = images[other][inside]
    return found


ALTERATIONS: dict[str, Alteration] = {
    "as it is": as_it_is,
    "mirrored": mirrored,
    "shifted": shifted,
    "scaled": scaled,
    "turned": turned,
    "cropped": cropped,
    "contrast": recontrasted,
    "blurred": blurred,
    "noised": noised,
    "patched": patched,
}
"""Alterations by the name used in reports."""


def altered(name: str, images_NC: Array, rng: np.random.Generator) -> Array:
    """Images ``(N, C, *)`` after the alteration of the given name."""
    found: Array = ALTERATIONS[name](torch.from_numpy(np.ascontiguousarray(images_NC)), rng).numpy()
    return found
