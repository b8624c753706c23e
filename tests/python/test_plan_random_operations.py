"""What plans make of tensors in any order of dimensions, drawn at random, beside eager float64.

Views, slices, products, norms and attention between two convolutions and the end of a network
that may answer with anything: no image needs to come out, so parts of it are LibTorch's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_plan import needs_loops
from test_plan_layers import load
from torch import Tensor, nn
from torch.nn import functional as F

pytestmark = needs_loops

MOST_NUMBERS, MOST_DIMENSIONS, MOST_POSITIONS = 2_000_000, 6, 200
COUNT = 6000 if os.environ.get("CONVSHIP_TEST_FULL") == "1" else 120

Step = Callable[["Drawn", Tensor], Tensor]


class Drawn(nn.Module):
    """Two convolutions, then steps that were drawn one after the other for the shape so far."""

    def __init__(self, seed: int, sides: tuple[int, int]) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.image = torch.Size((2, 12, *sides))
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 1)
        self.names: list[str] = []
        self.steps: list[Step] = []
        x = torch.zeros(self.image)
        for _ in range(self.draw.randint(1, 7)):
            name = self.draw.choice(sorted(KINDS))
            step = KINDS[name](self, x.shape)
            if step is None:
                continue
            x = step(self, x)
            self.names.append(f"{name} to {tuple(x.shape)}")
            self.steps.append(step)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.relu(self.first(x)))
        for step in self.steps:
            x = step(self, x)
        return x

    def dimension(self, shape: torch.Size) -> int:
        return self.draw.randrange(len(shape))

    def constant(self, *shape: int) -> str:
        """The name of a new buffer."""
        name = f"constant_{len(self._buffers)}"
        self.register_buffer(name, torch.randn(shape) + 0.1)
        return name


def permute(net: Drawn, shape: torch.Size) -> Step:
    order = list(range(len(shape)))
    net.draw.shuffle(order)
    return lambda _, x: x.permute(order)


def transpose(net: Drawn, shape: torch.Size) -> Step:
    a, b = net.dimension(shape), net.dimension(shape)
    return lambda _, x: x.transpose(a, b)


def split(net: Drawn, shape: torch.Size) -> Step | None:
    d = net.dimension(shape)
    part = net.draw.choice([p for p in range(1, shape[d] + 1) if shape[d] % p == 0])
    sizes = [*shape[:d], shape[d] // part, part, *shape[d + 1 :]]
    if net.draw.random() < 0.4:
        sizes[net.draw.randrange(len(sizes))] = -1
    return None if len(sizes) > MOST_DIMENSIONS else lambda _, x: x.reshape(sizes)


def join(net: Drawn, shape: torch.Size) -> Step | None:
    if len(shape) < 2:
        return None
    d = net.draw.randrange(len(shape) - 1)
    return lambda _, x: x.flatten(d, d + 1)


def unsqueeze(net: Drawn, shape: torch.Size) -> Step | None:
    d = net.draw.randint(0, len(shape))
    return None if len(shape) == MOST_DIMENSIONS else lambda _, x: x.unsqueeze(d)


def squeeze(net: Drawn, shape: torch.Size) -> Step | None:
    d = net.dimension(shape)
    return (lambda _, x: x.squeeze(d)) if shape[d] == 1 and len(shape) > 1 else None


def image(net: Drawn, shape: torch.Size) -> Step | None:
    as_many = shape.numel() == net.image.numel()
    return (lambda net, x: x.reshape(net.image)) if as_many else None


def tokens(net: Drawn, shape: torch.Size) -> Step | None:
    return (lambda _, x: x.flatten(2).transpose(1, 2)) if len(shape) == 4 else None


def select(net: Drawn, shape: torch.Size) -> Step | None:
    d = net.dimension(shape)
    at = net.draw.choice([0, -1, net.draw.randrange(shape[d])])
    return (lambda _, x: x.select(d, at)) if len(shape) > 1 else None


def slices(net: Drawn, shape: torch.Size) -> Step:
    d = net.dimension(shape)
    begin = net.draw.randrange(shape[d])
    end = net.draw.choice([None, net.draw.randint(begin + 1, shape[d])])
    cut = (slice(None),) * d + (slice(begin, end, net.draw.choice([1, 1, 2, 3])),)
    return lambda _, x: x[cut]


def chunk(net: Drawn, shape: torch.Size) -> Step | None:
    d, number = net.dimension(shape), net.draw.randrange(2)
    return (lambda _, x: x.chunk(2, d)[number]) if shape[d] % 2 == 0 else None


def roll(net: Drawn, shape: torch.Size) -> Step:
    d, by = net.dimension(shape), net.draw.randint(-2, 2)
    return lambda _, x: x.roll(by, d)


def cat(net: Drawn, shape: torch.Size) -> Step | None:
    d = net.dimension(shape)
    enough = shape.numel() >= MOST_NUMBERS
    return None if enough else lambda _, x: torch.cat([x, x * 0.5], d)


def activation(net: Drawn, shape: torch.Size) -> Step:
    function = net.draw.choice([torch.sigmoid, torch.relu, torch.tanh])
    return lambda _, x: function(x)


def linear(net: Drawn, shape: torch.Size) -> Step:
    weight = net.constant(net.draw.choice([shape[-1], 6, 24]), shape[-1])
    return lambda net, x: F.linear(x, getattr(net, weight) / shape[-1] ** 0.5)


def layer_norm(net: Drawn, shape: torch.Size) -> Step:
    weight, bias = net.constant(shape[-1]), net.constant(shape[-1])
    return lambda net, x: F.layer_norm(x, shape[-1:], getattr(net, weight), getattr(net, bias))


def with_constant(net: Drawn, shape: torch.Size) -> Step:
    sides = [side if net.draw.random() < 0.5 else 1 for side in shape]
    name = net.constant(*sides[net.dimension(shape) :])
    function = net.draw.choice([torch.add, torch.mul, torch.sub])
    return lambda net, x: function(x, getattr(net, name))


def with_transposed(net: Drawn, shape: torch.Size) -> Step | None:
    a, b = net.dimension(shape), net.dimension(shape)
    return (lambda _, x: x + x.transpose(a, b)) if shape[a] == shape[b] else None


def square(net: Drawn, shape: torch.Size) -> Step:
    return lambda _, x: x * x


def reduction(net: Drawn, shape: torch.Size) -> Step | None:
    count = net.draw.choice([1, 1, 2, 3])
    over, keep = net.draw.sample(range(len(shape)), min(count, len(shape))), net.draw.random() < 0.5
    function = net.draw.choice([torch.mean, torch.sum, torch.amax, torch.linalg.vector_norm])
    if len(over) == len(shape) and not keep:
        return None
    return lambda _, x: function(x, dim=over, keepdim=keep)


def with_reduction(net: Drawn, shape: torch.Size) -> Step:
    over = net.draw.sample(range(len(shape)), net.draw.randint(1, min(2, len(shape))))
    function = net.draw.choice([torch.mul, torch.add, torch.maximum, torch.minimum])
    first = net.draw.random() < 0.5
    return lambda _, x: (
        function(x.mean(over, True), x) if first else function(x, x.mean(over, True))
    )


def softmax(net: Drawn, shape: torch.Size) -> Step:
    d = net.dimension(shape)
    return lambda _, x: x.softmax(d)


def attention(net: Drawn, shape: torch.Size) -> Step | None:
    if len(shape) < 3 or shape[-2] >= MOST_POSITIONS:
        return None
    if net.draw.random() < 0.5:
        return lambda _, x: F.scaled_dot_product_attention(x, x, x)
    return lambda _, x: (x @ x.transpose(-2, -1) * 0.2).softmax(-1) @ x


KINDS: dict[str, Callable[[Drawn, torch.Size], Step | None]] = {
    function.__name__: function
    for function in (
        *(permute, transpose, split, join, unsqueeze, squeeze, image, tokens, select, slices),
        *(chunk, roll, cat, activation, linear, layer_norm, with_constant, with_transposed),
        *(square, reduction, with_reduction, softmax, attention),
    )
}


@pytest.mark.parametrize(
    ("sides", "first"),
    [
        *(((12, 8), first) for first in range(0, COUNT, 20)),
        *(((224, 224), first) for first in range(0, COUNT // 3, 20)),  # guessed at, so whole plans
    ],
)
def test_drawn_operations_are_those_of_eager(
    sides: tuple[int, int], first: int, tmp_path: Path
) -> None:
    served = 0
    for seed in range(first, first + 20):
        torch.manual_seed(seed)
        network = Drawn(seed, sides).eval()
        x = torch.randn(2, 3, *sides)
        with torch.no_grad():
            single = network(x)
            model = load(network, x, "trace", tmp_path)
            exact = network.double()(x.double())
        (ours,) = model.run(x).values()
        served += bool(model.plan(x)["steps"])
        # Norms of equal numbers, and products of products, lose digits to any order of sums.
        allowed = 20 * (single - exact).abs().max() + 2e-6 * exact.abs().max() + 1e-7
        assert ours.shape == exact.shape, (seed, network.names)
        assert (ours - exact).abs().max() <= allowed, (seed, network.names)
    assert served >= 10
