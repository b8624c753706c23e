"""Networks by name: LeNet5, CifarNet and torchvision's classifiers."""

from __future__ import annotations

from torch import Tensor, nn

from convship.nn import ConvPool2d

__all__ = ["CifarNet", "LeNet5", "create_model", "model_names"]

_OWN = ("lenet5", "cifarnet")


class LeNet5(nn.Module):
    """LeCun's network for 32x32 images: two conv-pool layers, three linear ones.

    Args:
        num_classes: Number of outputs.
        in_channels: 1 for gray images, 3 for colour.

    Shape:
        input [N, in_channels, 32, 32] to logits [N, num_classes].

    Example:
        >>> import torch
        >>> LeNet5()(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvPool2d(in_channels, 6, 5)
        self.conv2 = ConvPool2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv2(self.conv1(images)).flatten(1)
        features = self.fc1(features).relu()
        features = self.fc2(features).relu()
        logits: Tensor = self.fc3(features)
        return logits


class CifarNet(nn.Module):
    """A small, quick network for colour images of any size from 8x8.

    Three conv-pool layers, batch norm after the pool: there it sees a quarter of the data, and
    convolution, ReLU and pool stay one fused step. Then a plain convolution with batch norm and a
    global maximum, so that any input size fits.

    Args:
        num_classes: Number of outputs.
        in_channels: 1 for gray images, 3 for colour.

    Shape:
        input [N, in_channels, H, W] to logits [N, num_classes].

    Example:
        >>> import torch
        >>> CifarNet(num_classes=5)(torch.zeros(2, 3, 48, 64)).shape
        torch.Size([2, 5])
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        # Few channels at full size: there, time goes by bytes, not by multiplications.
        self.features = nn.Sequential(
            ConvPool2d(in_channels, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            ConvPool2d(16, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            ConvPool2d(64, 128, 3, padding=1),
            nn.BatchNorm2d(128),
            nn.Conv2d(128, 192, 3, padding=1, bias=False),
            nn.BatchNorm2d(192),
            nn.ReLU(inplace=True),
            nn.AdaptiveMaxPool2d(1),
        )
        self.classifier = nn.Linear(192, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def create_model(
    name: str, num_classes: int = 10, in_channels: int = 3, weights: str | None = None
) -> nn.Module:
    """Return the network called `name`, for `num_classes` classes.

    Args:
        name: "lenet5", "cifarnet" or one of torchvision's classifiers; see `model_names`.
        num_classes: Number of outputs.
        in_channels: 1 for gray images, 3 for colour; torchvision's take 3 only.
        weights: For torchvision's: which trained weights to start from, such as "DEFAULT". Their
            last layer is replaced, with fresh weights, where it has other than `num_classes`.

    Raises:
        ValueError: An unknown name or weights, or arguments that do not fit the network.

    Example:
        >>> create_model("lenet5", num_classes=10, in_channels=1).fc3.out_features
        10
    """
    if num_classes < 2:
        raise ValueError(f"model: num_classes must be at least 2, got {num_classes}")
    if in_channels not in (1, 3):
        raise ValueError(f"model: in_channels must be 1 or 3, got {in_channels}")
    if name in _OWN:
        if weights is not None:
            raise ValueError(f"model: {name} has no trained weights, got weights {weights!r}")
        return (LeNet5 if name == "lenet5" else CifarNet)(num_classes, in_channels)
    check_name(name)
    if in_channels != 3:
        raise ValueError(f"model: {name} takes 3 channels, got in_channels {in_channels}")
    return _torchvision_model(name, num_classes, weights)


def check_name(name: str) -> None:
    """Raise ValueError, listing the known names, unless `create_model` knows `name`."""
    if name not in _OWN and name not in model_names():
        raise ValueError(f"model: unknown name {name!r}; known: {', '.join(model_names())}")


def model_names() -> list[str]:
    """Return every name that `create_model` takes.

    Example:
        >>> {"lenet5", "cifarnet", "resnet18"} <= set(model_names())
        True
    """
    from convship._torchvision import torchvision

    return [*_OWN, *torchvision.models.list_models(module=torchvision.models)]


def _torchvision_model(name: str, num_classes: int, weights: str | None) -> nn.Module:
    from convship._torchvision import torchvision

    # Two of them return auxiliary outputs in training; one set of logits is enough here.
    has_auxiliary = name in ("googlenet", "inception_v3")
    if weights is None:
        options = {"aux_logits": False, "init_weights": True} if has_auxiliary else {}
        fresh: nn.Module = torchvision.models.get_model(name, num_classes=num_classes, **options)
        return fresh
    known = [entry.name for entry in torchvision.models.get_model_weights(name)]
    if weights not in (*known, "DEFAULT"):
        raise ValueError(
            f"model: unknown weights {weights!r} for {name}; known: DEFAULT, {', '.join(known)}"
        )
    model: nn.Module = torchvision.models.get_model(name, weights=weights)
    if has_auxiliary:
        model.aux_logits = False  # type: ignore[assignment]
    _replace_last_layer(model, num_classes)
    return model


def _replace_last_layer(model: nn.Module, num_classes: int) -> None:
    """Give the last linear layer (squeezenet: 1x1 convolution) `num_classes` outputs."""
    named = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and not name.startswith(("aux", "AuxLogits"))
    ]
    name, layer = named[-1]
    fresh: nn.Module
    if isinstance(layer, nn.Linear):
        if layer.out_features == num_classes:
            return
        fresh = nn.Linear(layer.in_features, num_classes, bias=layer.bias is not None)
    else:
        if layer.out_channels == num_classes:
            return
        fresh = nn.Conv2d(layer.in_channels, num_classes, 1)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, fresh)
