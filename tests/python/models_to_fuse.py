"""Models that fuse has to understand, and those that it has to leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune


class Digits(nn.Module):
    """As tutorials write it: functions, one pool for all, dropout as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.unused = nn.Linear(2, 2)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 8, 3, padding="same")
        self.pool = nn.MaxPool2d(2, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(self.conv2(x)).relu_()
        x = F.max_pool2d(torch.relu(self.conv3(x)), 3, stride=2, ceil_mode=True)
        x = F.dropout(x, 0.3, training=self.training)
        return self.head(x.mean((2, 3)))


class Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def features(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv(x), (2, 2)).relu()

    def channels(self) -> int:
        return self.conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class Branching(nn.Module):
    """Goes by the data, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.stem = Stem()
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(4, 4, 3), relu, nn.MaxPool2d(2)),
                nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)), relu),
            ]
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        block = self.blocks[0] if x.sum() > 0 else self.blocks[1]
        return self.pool(block(self.stem(x)))


class Siamese(nn.Module):
    """A block called twice, a weight held twice, a layer with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.one = nn.Conv2d(4, 4, 3)
        self.two = nn.Conv2d(4, 4, 3)
        self.two.weight = self.one.weight
        self.alias = self.one
        self.relu = nn.ReLU(inplace=True)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        one = self.pool1(self.relu(self.one(self.branch(a))))
        return one + self.pool2(self.relu(self.two(self.branch(b))))


class Slicing(nn.Module):
    """Uses a sequence in parts; `branches` on the data or does not."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.branches = branches
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.tail = Stem()

    def forward(self, x: Tensor) -> Tensor:
        if self.branches and x.sum() > 1e9:
            return self.tail.features(x)
        return self.features[:2](x)


class Iterating(Slicing):
    def forward(self, x: Tensor) -> Any:
        if self.branches and x.sum() > 1e9:
            return self.tail.conv(x)
        for layer in self.features:
            x = layer(x)
        return self.tail(x.mean(1, keepdim=True))


class Keeping(Stem):
    """Its forward leaves traces of its own, which fusing must not add to."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.last = self.conv(x)
        self.kept.append(x)
        return F.max_pool2d(self.last, 2)


class Switching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        pooled = self.pool(x)
        return (pooled, x) if self.training else pooled


class Calls(nn.Module):
    """conv, pool and what else is given; `steps` is its forward."""

    def __init__(self, steps: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(2, 2, 3), nn.ReLU(), nn.MaxPool2d(2)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.steps = steps

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)


class Optional(Calls):
    def forward(self, x: Tensor, scale: Any = None) -> Any:
        x = F.relu(self.conv(x))
        return self.pool(x) if scale is None else self.pool(x) * scale


class Skipping(Calls):
    def forward(self, x: Tensor, scale: Any = None) -> Any:
        x = self.conv(x)
        return self.pool(x if scale is None else x * scale)


class OwnConv(nn.Conv2d):
    pass


class OwnPool(nn.MaxPool2d):
    pass


def chain(*between: nn.Module, conv: nn.Module | None = None, pool: Any = None) -> nn.Sequential:
    return nn.Sequential(conv or nn.Conv2d(2, 2, 3), *between, pool or nn.MaxPool2d(2))


def with_no_grad(model: Any, x: Tensor) -> Any:
    with torch.no_grad():
        x = model.conv(x)
    return model.pool(x)


def without_no_grad(model: Any, x: Tensor) -> Any:
    with torch.no_grad():
        x = x + 1
    return F.max_pool2d(model.conv(x), 2)


def added_in_place(model: Any, x: Tensor) -> Any:
    y = model.pool(model.relu(model.conv(x))).flatten(1)
    y += 1
    return y


def hooked(name: str) -> nn.Sequential:
    model = chain(nn.ReLU())
    model.get_submodule(name).register_forward_hook(lambda *_: None)
    return model


def hooked_between() -> nn.Sequential:
    model = nn.Sequential(nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU()), nn.MaxPool2d(2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def tied() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), *chain(nn.BatchNorm2d(2), conv=nn.Conv2d(2, 2, 1)))
    model[1].weight = model[0].weight
    return model.eval()


def pruned() -> nn.Sequential:
    model = chain()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def masked() -> nn.Sequential:
    model = chain()
    model[0].register_buffer("mask", torch.ones(1))
    return model


_conv = nn.Conv2d

# A model, or how to make one, and why it is left.
LEFT: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: chain(nn.ReLU(), pool=nn.MaxPool2d(2, return_indices=True)), "return_indices=True"),
    (lambda: Calls(lambda m, x: F.max_pool2d(m.conv(x), 2, return_indices=True)), "return_indices"),
    (lambda: chain(pool=nn.MaxPool2d(2, dilation=2)), "the max pool has dilation 2"),
    (lambda: Calls(lambda m, x: torch.max_pool2d(m.conv(x), 2, 2, 0, 2)), "has dilation 2"),
    (lambda: chain(pool=nn.MaxPool2d(2, padding=2)), "pool_padding must be at most half"),
    (lambda: chain(conv=_conv(2, 2, 3, padding=1, padding_mode="circular")), "is circular"),
    (lambda: chain(conv=_conv(2, 2, (2, 3), padding="same")), "one more on one side"),
    (lambda: chain(conv=OwnConv(2, 2, 3)), "OwnConv is a subclass of it"),
    (lambda: chain(conv=nn.LazyConv2d(2, 3)), "run the model once first"),
    (lambda: chain(pool=OwnPool(2)), "OwnPool is a subclass of it"),
    (lambda: chain(conv=nn.ConvTranspose2d(2, 2, 3)), "comes from ConvTranspose2d 0"),
    (lambda: chain(conv=nn.utils.weight_norm(_conv(2, 2, 3))), "has hooks"),
    (lambda: chain(conv=parametrizations.weight_norm(_conv(2, 2, 3))), "has parametrizations"),
    (pruned, "has hooks"),
    (masked, "holds more than weight and bias"),
    (lambda: hooked("0"), "the Conv2d has hooks"),
    (lambda: hooked("1"), "the ReLU has hooks"),
    (lambda: hooked("2"), "the MaxPool2d has hooks"),
    (hooked_between, "the Sequential has hooks"),
    (lambda: chain(nn.BatchNorm2d(2), nn.ReLU()), "in training mode"),
    (lambda: chain(nn.BatchNorm2d(2, track_running_stats=False)).eval(), "track_running_stats"),
    (lambda: chain(nn.ReLU(), nn.BatchNorm2d(2)).eval(), "comes from ReLU 1"),
    (lambda: chain(nn.GroupNorm(1, 2)), "comes from GroupNorm 1"),
    (tied, "shares parameters"),
    (lambda: nn.Sequential(nn.MaxPool2d(2)), "is the input of the model"),
    (lambda: nn.MaxPool2d(2), "no forward that was traced calls it"),
    (lambda: Calls(lambda m, x: m.pool(m.relu(m.conv(x))) + m.conv(x)), "conv is called 2 times"),
    (lambda: Calls(lambda m, x: (x := m.conv(x)) + m.pool(x).sum()), "conv is used elsewhere too"),
    (lambda: Calls(lambda m, x: (m.pool(x := F.relu(m.conv(x))), x)), "relu() is used elsewhere"),
    (lambda: Calls(lambda m, x: m.pool(F.conv2d(x, m.conv.weight))), "write it as nn.Conv2d"),
    (lambda: Calls(lambda m, x: F.max_pool2d(m.conv(x), x.shape[2:])), "when forward runs"),
    (lambda: Calls(with_no_grad), "switches gradients"),
    (lambda: Calls(without_no_grad), "would have to be rewritten, but it switches gradients"),
    (lambda: Calls(added_in_place), "changes the result in place"),
    (lambda: chain(nn.ReLU()).append(nn.Dropout(inplace=True)), "3 changes the result in place"),
    (lambda: Optional(print), "has optional arguments"),
    (lambda: Skipping(print), "comes from mul, not from a convolution"),
    (
        lambda: Calls(lambda m, x: F.max_pool2d(m.conv(x), 2) * torch.ones(1)),
        "makes tensors that depend on no input",
    ),
    (
        lambda: Calls(lambda m, x: F.max_pool2d(m.conv(x), 2) * (2 if m.training else 3)),
        "computes with other values in training",
    ),
    (lambda: Calls(lambda m, x: m.pool(m.conv(x)) if x.sum() > 0 else x), "cannot be traced"),
]
