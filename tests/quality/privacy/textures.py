"""Made-up images whose detail tells them apart."""

from __future__ import annotations

import numpy as np
import torch


def textures(total: int, spatial: tuple[int, ...], seed: int) -> np.ndarray:
    """Images that share a common form and differ in smooth detail of their own, in -1…1."""
    rng = np.random.default_rng(seed)
    common = np.random.default_rng(1000).standard_normal((1, 1, *[max(2, side // 8) for side in spatial]))
    own = rng.standard_normal((total, 1, *[max(2, side // 4) for side in spatial]))
    mode = "bilinear" if len(spatial) == 2 else "trilinear"
    parts = [
        torch.nn.functional.interpolate(torch.from_numpy(part).float(), spatial, mode=mode, align_corners=False)
        for part in (common, own)
    ]
    return (parts[0] + 0.6 * parts[1]).clamp(-2.5, 2.5).div(2.5).numpy()
