"""Whole networks with accuracy fast: as close to their float64 results as eager, or nearly so."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import convship
from convship._torchvision import torchvision

# Of eager's own largest error: what the rule of docs/accuracy.md may add up to over the layers.
LIMIT = 4
IMAGES, SIZE = 8, 64


def network(name: str) -> nn.Module:
    """A network with the random weights that torchvision begins with, ready for inference."""
    model = torchvision.models.get_model(name, weights=None)
    if name == "vgg11":
        # Nine tenths of its weights, and no convolution among them.
        model.classifier = nn.Linear(512 * 7 * 7, 1000)
    return model.eval()


def largest_error(outputs: Tensor, exact: Tensor) -> float:
    return float((outputs.double() - exact).abs().max())


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_fused_network_is_within_four_times_eagers_error(name: str) -> None:
    eager = network(name)
    twofold = copy.deepcopy(eager).double()
    model, _ = convship.fuse(eager)
    assert any(isinstance(layer, convship.ConvPool2d) for layer in model.modules())
    images = torch.randn(IMAGES, 3, SIZE, SIZE)
    with torch.inference_mode():
        exact = twofold(images.double())
        limit = LIMIT * largest_error(eager(images), exact)
        outputs = model(images)
        # The limit has teeth: it is far below what half the digits give.
        assert largest_error(eager.bfloat16()(images.bfloat16()), exact) > 10 * limit
    assert 0 < largest_error(outputs, exact) <= limit
    assert torch.equal(outputs.argmax(1), exact.argmax(1))
