"""Feature networks and classifiers on the ``meta`` device, where a tensor that was left on the CPU is an error."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medphantom.quality.config import ClassifierConfig
from medphantom.quality.networks.classifier import ClassifierLearner, SmallCNN
from medphantom.quality.networks.filters import FilterBank, VolumeFilterBank

META = torch.device("meta")


@pytest.mark.parametrize(("network", "shape"), [(FilterBank, (3, 1, 32, 32)), (VolumeFilterBank, (3, 1, 16, 16, 16))])
def test_fixed_networks_read_there(network: type[nn.Module], shape: tuple[int, ...]) -> None:
    assert network().to(META)(torch.rand(shape, device=META)).device == META


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 32, 32), (3, 1, 16, 16, 16)])
def test_classifiers_learn_there(shape: tuple[int, ...], exclusive: bool) -> None:
    network = SmallCNN(1, 8, 2, min(shape[2:])).to(META)
    learner = ClassifierLearner(network, exclusive, ClassifierConfig())
    batch = {
        "images": torch.rand(shape, device=META),
        "targets": torch.ones(shape[0], 2, dtype=torch.int8, device=META),
    }
    loss = learner.loss(batch, torch.Generator().manual_seed(0))["loss"]
    loss.backward()
    assert loss.device == META
    assert {p.grad.device for p in network.parameters() if p.grad is not None} == {META}
