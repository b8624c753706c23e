"""Networks by name."""

from __future__ import annotations

import pytest
import torch

from convship.models import CifarNet, LeNet5, create_model, model_names


def test_lenet5_has_lecuns_size():
    assert sum(p.numel() for p in LeNet5().parameters()) == 61_706
    assert LeNet5(in_channels=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (45, 61)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_cifarnet_takes_any_size(height, width, in_channels):
    model = CifarNet(7, in_channels).eval()
    assert model(torch.zeros(2, in_channels, height, width)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "googlenet"])
def test_torchvision_classifier_gets_the_classes(name):
    model = create_model(name, num_classes=5).train()
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_names_list_own_and_torchvisions():
    names = model_names()
    assert {"lenet5", "cifarnet", "resnet18", "mobilenet_v3_small"} <= set(names)
    assert not any("fasterrcnn" in name or "fcn" in name for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet6",), "unknown name 'lenet6'; known: lenet5, cifarnet, alexnet"),
        (("lenet5", 1), "num_classes must be at least 2, got 1"),
        (("resnet18", 10, 1), "resnet18 takes 3 channels"),
        (("lenet5", 10, 1, "DEFAULT"), "lenet5 has no trained weights"),
        (("resnet18", 10, 3, "V9"), "unknown weights 'V9' for resnet18; known: DEFAULT, IMAGENET"),
    ],
)
def test_wrong_arguments_fail(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(*arguments)
