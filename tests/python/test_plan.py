"""Whole networks through plans: the same answers as eager, whatever the graph holds."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.fx
from torch import Tensor, nn

import convship
from convship import _C
from convship.models import create_model

needs_loops = pytest.mark.skipif(
    _C.available_isas() == ["baseline"], reason="plans need vectors, which this CPU has none of"
)
pytestmark = needs_loops


def settle(network: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, so that folding them matters."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
            layer.weight.data.uniform_(0.7, 1.3, generator=generator)
            layer.bias.data.normal_(0, 0.1, generator=generator)
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):  # begins at 1e-6, where no mistake in a block shows
            parameter.data.uniform_(0.2, 0.5, generator=generator)
    return network.eval()


def shipped(network: nn.Module, folder: Path) -> convship.Model:
    path = folder / "network.pt"
    torch.jit.script(network.eval()).save(str(path))
    return convship.load(path, allow_plain=True)


def only(outputs: dict[str, Tensor]) -> Tensor:
    (output,) = outputs.values()
    return output


def check(network: nn.Module, model: convship.Model, x: Tensor, times: float = 8) -> None:
    """Compare with float64, as closely as eager float32 does but for a factor."""
    with torch.inference_mode():
        eager = network(x)
        exact = network.double()(x.double())
        network.float()
    ours = only(model.run(x))
    assert ours.shape == eager.shape
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    scale = float(exact.abs().max())
    error = float((ours - exact).abs().max())
    assert error <= times * float((eager - exact).abs().max()) + 1e-6 * scale


def check_each(
    network: nn.Module,
    model: convship.Model,
    x: Tensor,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    equal_nan: bool = False,
) -> None:
    """Compare several results with those of eager."""
    with torch.inference_mode():
        expected = network(x)
    for ours, eager in zip(model.run(x).values(), expected, strict=True):
        torch.testing.assert_close(ours, eager, rtol=rtol, atol=atol, equal_nan=equal_nan)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "squeezenet1_1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "densenet121",
        "efficientnet_b0",
        "regnet_y_400mf",
        "mnasnet0_5",
        "alexnet",
        "vgg11_bn",
        "shufflenet_v2_x0_5",
        "convnext_tiny",
    ],
)
def test_torchvision_networks_run_whole_by_a_plan(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = settle(create_model(name, num_classes=10))
    model = shipped(network, tmp_path)
    plan = model.plan(torch.rand(1, 3, 64, 64))
    assert plan["whole"], plan["left_to_libtorch"]
    assert plan["steps"]
    for batch, side in ((1, 64), (3, 75), (1, 64)):  # and back to the first size
        check(network, model, torch.rand(batch, 3, side, side) - 0.4)


def test_what_no_layer_serves_stays_with_libtorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = settle(create_model("googlenet", num_classes=10))
    path = tmp_path / "network.pt"
    torch.jit.script(network).save(str(path))
    model = convship.load(path, allow_plain=True)
    plan = model.plan(torch.rand(1, 3, 64, 64))
    assert plan["steps"]
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network(x)
    ours = next(iter(model.run(x).values()))
    assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)


class Layers(nn.Module):
    """A network from a function, with two convolutions to make a plan worth while."""

    def __init__(self, channels: int = 20) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)
        self.point = nn.Conv2d(channels, 33, 1)


class Residuals(Layers):
    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = self.second(a)
        b += a
        return torch.relu(b) + self.depthwise(a)


class InPlaceOnShared(Layers):
    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = torch.relu_(a)  # a is b from here on
        return self.second(a) + b


class ListsOfUneven(Layers):
    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        p = self.point(a)
        parts = [p, a]
        parts.append(self.second(a))
        twice = torch.cat([torch.cat(parts, 1), p], 1)
        return torch.nn.functional.silu(twice)


class PoolsOfAllKinds(Layers):
    def forward(self, x: Tensor) -> Tensor:
        f = torch.nn.functional
        a = f.max_pool2d(self.first(x), 3, 2, 1, ceil_mode=True)
        a = f.avg_pool2d(a, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        a = f.avg_pool2d(self.second(a), 2, 1, 1)
        return f.adaptive_avg_pool2d(f.relu6(self.depthwise(a)), (3, 5))


class Gates(Layers):
    def forward(self, x: Tensor) -> Tensor:
        f = torch.nn.functional
        a = f.hardswish(self.norm(torch.relu(self.first(x))))
        gate = torch.sigmoid(self.second(f.adaptive_avg_pool2d(a, 1)))
        return f.hardsigmoid(self.depthwise(gate * a)) * a.mean([2, 3], keepdim=True)


class Views(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(20 * 8 * 8, 7)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.max_pool2d(torch.relu(self.second(self.first(x))), 2)
        return self.head(a.contiguous().view(a.size(0), -1)) + self.head(a.reshape(-1, 1280))


class ChannelsLast(Layers):
    """Blocks of ConvNeXt, as torchvision and as its authors write them."""

    def __init__(self) -> None:
        super().__init__()
        self.channel_norm = nn.LayerNorm(20, eps=1e-6)
        self.plain_norm = nn.LayerNorm(20, elementwise_affine=False)
        self.wide, self.narrow = nn.Linear(20, 80), nn.Linear(80, 20, bias=False)
        self.outer = nn.Parameter(torch.rand(20, 1, 1))
        self.inner = nn.Parameter(torch.rand(20))
        self.head = nn.Linear(20, 7)

    def mix(self, x: Tensor, approximate: str) -> Tensor:
        hidden = nn.functional.gelu(self.wide(self.channel_norm(x)), approximate=approximate)
        return self.narrow(nn.functional.dropout(hidden, 0.5, training=False))

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.first(x))
        b = self.mix(self.depthwise(a).permute(0, 2, 3, 1), "none").permute(0, 3, 1, 2)
        b = self.outer * b
        b += a
        last = self.plain_norm(b.permute(0, -2, -1, 1).contiguous())
        last = last + self.inner * self.mix(last, "tanh")
        c = torch.nn.functional.gelu(self.second(last.permute(0, 3, 1, 2))) * self.outer
        return self.head(self.channel_norm(c.mean([2, 3])) * self.inner)


class Classifies(Layers):
    """As tutorials end."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(20, 7)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(torch.relu(self.second(self.first(x))).mean([2, 3]))
        return torch.log_softmax(logits, 1) + nn.functional.softmax(logits, dim=-1)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """As torchvision writes it."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class Shuffles(Layers):
    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.second(self.first(x)))
        left, right = shuffle(torch.cat([a, self.depthwise(a)], 1), 4).chunk(2, 1)
        b = shuffle(torch.cat([left, self.depthwise(right)], 1), 2)
        left, right = b.chunk(2, 1)
        return torch.cat([left, self.depthwise(right), b[:, :20]], 1)


class Slices(Layers):
    def __init__(self) -> None:
        super().__init__(channels=64)

    def forward(self, x: Tensor) -> Tensor:
        a = self.second(self.first(x))
        whole_blocks = torch.relu(a[:, 16:48])
        first, second, third = a.split([5, 40, 19], 1)
        pieces = torch.split(a, 30, dim=1)
        shuffled = torch.nn.functional.channel_shuffle(torch.cat([second, whole_blocks], 1), 6)
        b = torch.cat([a[:, -64:-32], shuffled, pieces[2], third.contiguous(), first], dim=1)
        return self.depthwise(b[:, 1:65]) + self.depthwise(b[:, -64:])


class SlicesOfLists(Layers):
    """As a transformer of windows does: pieces of sizes, which are lists and no tensors."""

    def forward(self, x: Tensor) -> Tensor:
        a = self.second(self.first(x))
        sides = a.shape[2:]
        whole: list[int] = []
        for size in a.shape[:-2] + sides:
            whole.append(size)
        return self.depthwise(a.reshape(whole))


@pytest.mark.parametrize(
    "make",
    [
        Residuals,
        InPlaceOnShared,
        ListsOfUneven,
        PoolsOfAllKinds,
        Gates,
        Views,
        ChannelsLast,
        Classifies,
        Shuffles,
        Slices,
    ],
)
def test_layers_mean_what_torch_means(make: Callable[[], Layers], tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = settle(make())
    model = shipped(network, tmp_path)
    x = torch.randn(2, 3, 16, 16)
    assert model.plan(x)["whole"]
    check(network, model, x)
    # Layouts of the caller's memory.
    check(network, model, x.to(memory_format=torch.channels_last))
    wide = torch.randn(2, 3, 16, 32)
    check(network, model, wide[..., ::2])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [ChannelsLast, Shuffles, Slices, Views])
def test_traced_graphs_are_served_too(make: Callable[[], Layers], tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = settle(make())
    x = torch.randn(2, 3, 16, 16)
    torch.jit.trace(network, x).save(str(tmp_path / "traced.pt"))
    model = convship.load(tmp_path / "traced.pt", allow_plain=True)
    assert model.plan(x)["whole"]
    check(network, model, torch.randn(3, 3, 16, 16))


KINDS = "conv conv point act add gate cat pool norm shuffle slice chunk".split()  # noqa: SIM905


def random_network(seed: int) -> nn.Module:
    """Layers in a random order, on tensors of one size, read once, often or by the caller."""
    draw = random.Random(seed)
    root = nn.Module()
    graph = torch.fx.Graph()
    made = [(graph.placeholder("x"), 3)]

    def layer(module: nn.Module, x: torch.fx.Node) -> torch.fx.Node:
        name = f"layer{len(graph.nodes)}"
        root.add_module(name, module)
        return graph.call_module(name, (x,))

    def same(channels: int) -> torch.fx.Node:
        return draw.choice([node for node, c in made[1:] if c == channels])

    f = torch.nn.functional
    for step in range(draw.randint(4, 16)):
        # Mostly the latest tensors; often enough much earlier ones.
        x, c = made[-1] if draw.random() < 0.5 else draw.choice(made[-4:])
        kind = draw.choice(KINDS)
        out = c
        if step == 0 or (c == 3 and kind != "point"):
            kind = "conv"
        if kind in ("conv", "point"):
            out = draw.choice([16, 20, 32, c])
            size = 3 if kind == "conv" else 1
            groups = 1
            if kind == "conv" and out == c and draw.random() < 0.5:
                groups = c // draw.choice([width for width in (1, 1, 2, 4, 8) if c % width == 0])
            node = layer(nn.Conv2d(c, out, size, padding=size // 2, groups=groups), x)
        elif kind == "act":
            act = draw.choice([torch.relu, torch.sigmoid, f.silu, f.hardswish, f.relu6])
            node = graph.call_function(act, (x,))
        elif kind == "add":
            node = graph.call_function(torch.add, (x, same(c)))
        elif kind == "gate":
            mean = graph.call_function(f.adaptive_avg_pool2d, (same(c), 1))
            node = graph.call_function(torch.mul, draw.choice([(x, mean), (mean, x)]))
        elif kind == "cat":
            others = draw.choices(made[1:], k=draw.randint(1, 2))
            out = c + sum(count for _, count in others)
            node = graph.call_function(torch.cat, ([x, *(other for other, _ in others)], 1))
        elif kind == "shuffle":
            groups = draw.choice([count for count in (1, 2, 3, 4, 5) if c % count == 0])
            node = graph.call_function(f.channel_shuffle, (x, groups))
        elif kind == "slice":
            begin = draw.choice([start for start in (0, 2, 16) if start < c])
            out = draw.choice([count for count in (1, 4, 16, c - begin) if begin + count <= c])
            channels = (slice(None), slice(begin, begin + out))
            node = graph.call_function(operator.getitem, (x, channels))
        elif kind == "chunk":
            node = graph.call_function(torch.chunk, (x, 2, 1))
            node = graph.call_function(operator.getitem, (node, 0))
            out = (c + 1) // 2
        elif kind == "pool":
            node = graph.call_function(f.max_pool2d, (x, 3, 1, 1))
        else:
            node = layer(nn.BatchNorm2d(c), x)
        made.append((node, out))
    results = [made[-1][0], *draw.sample([node for node, _ in made[1:-1]], draw.randint(0, 2))]
    graph.output(tuple(results))
    return settle(torch.fx.GraphModule(root, graph))


@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # of torch.fx
@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_networks_equal_eager(first: int, tmp_path: Path) -> None:
    served = 0
    for seed in range(first, first + 10):
        torch.manual_seed(seed)
        network = random_network(seed)
        model = shipped(network, tmp_path)
        x = torch.randn(2, 3, 9, 11)
        with torch.inference_mode():
            expected = network.double()(x.double())
        ours = list(model.run(x).values())
        served += bool(model.plan(x)["steps"])
        for number, (a, b) in enumerate(zip(ours, expected, strict=True)):
            scale = float(b.abs().max()) + 1e-3
            assert float((a - b).abs().max()) <= 2e-5 * scale, (seed, number, network.graph)
    assert served >= 8  # the smallest are left to LibTorch


def test_slices_of_lists_are_left_to_libtorch(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = settle(SlicesOfLists())
    model = shipped(network, tmp_path)
    check(network, model, torch.randn(2, 3, 16, 16))


class WritesIntoInput(Layers):
    def forward(self, x: Tensor) -> Tensor:
        a = self.second(self.first(torch.relu_(x)))
        return self.depthwise(a) + x.sum()


class KeepsBoth(Layers):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = torch.relu(self.second(self.first(x)))
        return a.flatten(1), self.depthwise(a)


class Branches(Layers):
    def forward(self, x: Tensor) -> Tensor:
        a = self.depthwise(torch.relu(self.second(self.first(x))))
        if bool(a.sum() > 0):
            a = torch.relu(self.point(self.second(torch.tanh(a))))
        return a


class WritesThroughOtherNames(Layers):
    """tanh_ is LibTorch's; what it writes is seen by all names of the tensor."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.depthwise(self.second(self.first(x)))
        b = torch.relu_(a)
        torch.tanh_(a)
        c = torch.relu(self.second(self.depthwise(b)))
        d = c.permute(0, 2, 3, 1).permute(0, 3, 1, 2)
        torch.tanh_(c)
        e = torch.relu(self.second(self.depthwise(d)))
        f = e.contiguous()
        torch.tanh_(e)
        return b, d, f


@pytest.mark.parametrize("make", [WritesIntoInput, WritesThroughOtherNames, KeepsBoth, Branches])
def test_graphs_that_plans_serve_in_part(make: Callable[[], Layers], tmp_path: Path) -> None:
    torch.manual_seed(4)
    network = settle(make())
    model = shipped(network, tmp_path)
    x = torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        expected = network(x.clone())
    wanted = expected if isinstance(expected, tuple) else (expected,)
    given = x.clone()
    assert not model.plan(x.clone())["whole"]
    for ours, theirs in zip(model.run(given).values(), wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(given, x)  # the caller's memory is the caller's


class Remembers(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        a = self.depthwise(torch.relu(self.second(self.first(x))))
        self.calls = self.calls + 1
        return a * self.calls


class Prints(Layers):
    def forward(self, x: Tensor) -> Tensor:
        print("side effect")
        return self.depthwise(torch.relu(self.second(self.first(x))))


def test_side_effects_stay(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(1, 3, 12, 12)
    counting = shipped(settle(Remembers()), tmp_path)
    first, second = only(counting.run(x)), only(counting.run(x))
    assert torch.allclose(second, 2 * first)
    talking = shipped(settle(Prints()), tmp_path)
    talking.run(x)
    captured = capfd.readouterr()
    assert "side effect" in captured.out + captured.err


def test_inputs_that_no_plan_takes_are_answered_by_libtorch(tmp_path: Path) -> None:
    network = settle(Residuals())
    model = shipped(network, tmp_path)
    one = torch.randn(3, 12, 12)  # an image without a batch
    with torch.inference_mode():
        assert torch.allclose(only(model.run(one)), network(one), rtol=1e-4, atol=1e-5)
        empty = only(model.run(torch.empty(0, 3, 12, 12)))
    assert empty.shape == (0, 20, 12, 12)
    with pytest.raises(ValueError, match="channels"):
        model.run(torch.randn(1, 4, 12, 12))
    check(network, model, torch.randn(1, 3, 12, 12))  # still served after an error


def test_bits_do_not_depend_on_batch_or_threads(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = shipped(settle(create_model("resnet18", num_classes=10)), tmp_path)
    batch = torch.randn(4, 3, 64, 64)
    torch.set_num_threads(1)
    alone = torch.cat([only(model.run(image[None])) for image in batch])
    assert torch.equal(only(model.run(batch)), alone)
    torch.set_num_threads(2)
    assert torch.equal(only(model.run(batch)), alone)
    assert torch.equal(only(model.run(batch[:1])), alone[:1])


def test_special_values_travel_as_in_torch(tmp_path: Path) -> None:
    network = settle(Gates())
    model = shipped(network, tmp_path)
    x = torch.randn(1, 3, 16, 16)
    x[0, 1, 5, 5] = float("nan")
    with torch.inference_mode():
        expected = network(x)
    ours = only(model.run(x))
    assert torch.equal(ours.isnan(), expected.isnan())


def test_every_instruction_set_answers(tmp_path: Path) -> None:
    torch.manual_seed(6)
    network = settle(create_model("mobilenet_v3_small", num_classes=10))
    model = shipped(network, tmp_path)
    x = torch.rand(2, 3, 64, 64)
    active = _C.active_isa()
    try:
        for isa in _C.available_isas():
            _C.set_isa(isa)
            check(network, model, x)
            assert bool(model.plan(x)["steps"]) == (isa != "baseline")
    finally:
        _C.set_isa(active)
