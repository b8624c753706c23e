"""Networks as people write them, of layers that classifiers of torchvision lack: whole in a
plan, or with all that plans serve in few parts; as eager."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_plan import check, check_each, needs_loops
from test_plan_layers import check_whole, load
from torch import Tensor, nn
from torch.nn import functional as F

pytestmark = needs_loops


def block(c_in: int, c_out: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
        nn.ReLU(inplace=True),
    )


class BlockAttention(nn.Module):
    """CBAM (Woo et al., 2018): a factor for each channel, then one for each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Conv2d(channels, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, channels, 1, bias=False)
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.shared(F.adaptive_avg_pool2d(x, 1))
        most = self.shared(F.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(mean + most)
        values, _ = torch.max(x, dim=1, keepdim=True)
        both = torch.cat([x.mean(1, keepdim=True), values], dim=1)
        return x * torch.sigmoid(self.spatial(both))


class ChannelAttention(nn.Module):
    """ECA (Wang et al., 2020): a sequence of the channels' means, convolved."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1)
        if self.way == "squeeze":
            y = self.conv(y.squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
            return x * torch.sigmoid(y).expand_as(x)
        if self.way == "permute":
            y = self.conv(y.squeeze(3).permute(0, 2, 1)).permute(0, 2, 1).unsqueeze(3)
            return torch.sigmoid(y) * x
        y = self.conv(y.flatten(1).unsqueeze(1)).view(x.size(0), -1, 1, 1)
        return x * torch.sigmoid(y)


class AttentionGate(nn.Module):
    """Attention U-Net (Oktay et al., 2018): an image of factors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(channels, 8, 1)
        self.x = nn.Conv2d(channels, 8, 1)
        self.psi = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        g = F.avg_pool2d(x, 3, 1, 1)
        return x * torch.sigmoid(self.psi(F.relu(self.g(g) + self.x(x))))


class PixelNorm(nn.Module):
    """Layer norm over channels, written out, as ConvNeXt's first code has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-3)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Elementwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5] * 20).view(1, 20, 1, 1))
        self.register_buffer("deviation", torch.linspace(0.5, 2, 20).view(20, 1, 1))
        self.register_buffer("one", torch.tensor([0.25]))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - self.mean) / self.deviation
        y = self.deviation - y * self.deviation
        y = 1 - (self.one + y)
        y = F.softplus(y) - torch.abs(x)
        z = y / (1 + y.square().mean((2, 3), keepdim=True))
        return z - z.mean(1, keepdim=True) + torch.amax(z, (2, 3), keepdim=True)


class CoordinateAttention(nn.Module):
    """Hou et al., 2021: a factor for each row and one for each column."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.both = block(20, 8, kernel=1)
        self.rows = nn.Conv2d(8, 20, 1)
        self.columns = nn.Conv2d(8, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2], x.shape[3]
        if self.way == "mean":
            rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        else:
            rows, columns = F.adaptive_avg_pool2d(x, (h, 1)), F.adaptive_avg_pool2d(x, (1, w))
        y = self.both(torch.cat([rows, columns.permute(0, 1, 3, 2)], dim=2))
        rows, columns = torch.split(y, [h, w], dim=2)
        columns = columns.permute(0, 1, 3, 2)
        return x * torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns))


class StripPooling(nn.Module):
    """Hou et al., 2020: sums of what rows and what columns have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Conv2d(20, 20, (3, 1), padding=(1, 0))
        self.columns = nn.Conv2d(20, 20, (1, 3), padding=(0, 1))
        self.both = nn.Conv2d(20, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        rows = self.rows(F.adaptive_avg_pool2d(x, (shape[2], 1))).expand(shape)
        columns = self.columns(F.adaptive_max_pool2d(x, (1, shape[3])))
        columns = columns.expand(-1, -1, shape[2], shape[3])
        return x * torch.sigmoid(self.both(F.relu(rows + columns)))


class Bands(nn.Module):
    """Rows and columns one after the other, and apart again."""

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.cat([x, F.relu6(x), F.max_pool2d(x, (1, 3))], 3)
        left, right = torch.split(wide, [4, wide.shape[3] - 4], dim=3)
        high = torch.cat([F.relu(right), right[:, :, 1:3] - right.amax(2, keepdim=True)], 2)
        return high - high.mean(3, keepdim=True) * left[:, :, :1, :1]


class Split(nn.Module):
    """YOLOv8's C2f: a list of pieces that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = nn.ModuleList([block(10, 10), block(10, 10)])
        self.out = nn.Conv2d(40, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        pieces = list(x.chunk(2, 1))
        for each in self.rounds:
            pieces.append(pieces[-1] + each(pieces[-1]))
        return self.out(torch.cat(pieces, 1))


MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "cbam": lambda: BlockAttention(20),
    "eca_squeeze": lambda: ChannelAttention("squeeze"),
    "eca_permute": lambda: ChannelAttention("permute"),
    "eca_view": lambda: ChannelAttention("view"),
    "attention_gate": lambda: AttentionGate(20),
    "pixel_norm": lambda: PixelNorm(20),
    "elementwise": Elementwise,
    "split": Split,
    "coordinate_mean": lambda: CoordinateAttention("mean"),
    "coordinate_pool": lambda: CoordinateAttention("pool"),
    "strip": StripPooling,
    "bands": Bands,
    "softmax": lambda: nn.Softmax(dim=1),
    "log_softmax": lambda: nn.LogSoftmax(dim=1),
    "adaptive_max_pool": lambda: nn.AdaptiveMaxPool2d((3, 2)),
}


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("middle", MIDDLES)
def test_blocks_run_whole_between_convolutions(middle: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(block(3, 20), MIDDLES[middle](), nn.Conv2d(20, 5, 1)).eval()
    check_whole(network, torch.randn(3, 3, 9, 11), tmp_path, how)


class Sequences(nn.Module):
    """Of one dimension: what hears sound or reads sensors."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(2, 20, 9, 2, 4),
            nn.BatchNorm1d(20),
            nn.ReLU(),
            nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(20, 33, 3, padding="same", dilation=2, bias=False),
            nn.BatchNorm1d(33),
            nn.LeakyReLU(0.1),
            nn.AvgPool1d(2),
        )
        self.residual = nn.Conv1d(33, 33, 3, padding=1, groups=33)
        self.last = nn.Linear(66, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = F.relu(x + self.residual(x))
        mean = F.adaptive_avg_pool1d(x, 1).squeeze(-1)
        return self.last(torch.cat([mean, torch.amax(x, 2)], 1))


@pytest.mark.parametrize("how", ["script", "trace"])
def test_sequences_run_whole(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Sequences().eval()
    model = load(network, torch.randn(2, 2, 100), how, tmp_path)
    for shape in [(2, 2, 100), (1, 2, 41)]:
        x = torch.randn(shape)
        assert model.plan(x)["whole"], model.plan(x)["left_to_libtorch"]
        check(network, model, x)
    # Any steps in memory; and the result is a sequence where the last layer's is.
    check(network, model, torch.randn(2, 100, 2).transpose(1, 2))
    features = load(network.features, torch.randn(2, 2, 100), how, tmp_path)
    check(network.features, features, torch.randn(2, 2, 100))


class Decoder(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.linear = nn.Linear(10, 8 * 5 * 7)
        self.norm = nn.BatchNorm1d(8 * 5 * 7)
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 20, 4, 2, 1), nn.ReLU())
        self.last = nn.Conv2d(20, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        y = F.relu(self.norm(self.linear(z)))
        if self.way == "view":
            y = y.view(-1, 8, 5, 7)
        elif self.way == "reshape":
            y = y.reshape(z.size(0), 8, 5, -1)
        else:
            y = torch.unflatten(y, 1, [8, 5, 7])
        return torch.tanh(self.last(self.up(y)))


class PooledPower(nn.Module):
    """GeM (Radenovic et al., 2018): a mean of powers, of a learned exponent."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 3.2)
        self.epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        powers = x.clamp(min=self.epsilon).pow(self.p)
        return F.adaptive_avg_pool2d(powers, 1).pow(1.0 / self.p)


class FilterNorm(nn.Module):
    """Filter response normalization (Singh and Krishnan, 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(1, 20, 1, 1))
        self.shift = nn.Parameter(torch.randn(1, 20, 1, 1))
        self.threshold = nn.Parameter(torch.randn(1, 20, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(dim=(2, 3), keepdim=True) + 1e-6)
        x = torch.max(x * self.gain + self.shift, self.threshold)
        x = torch.minimum(x, torch.tensor(1.5))
        return self.threshold / (1 + torch.maximum(self.gain, x))


class ByHand(nn.Module):
    """GELU, its approximation and softmax, as written before torch had them, or without it."""

    def forward(self, x: Tensor) -> Tensor:
        exact = x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))
        inner = math.sqrt(2 / math.pi) * (exact + 0.044715 * torch.pow(exact, 3))
        close = 0.5 * exact * (1 + torch.tanh(inner))
        powers = torch.exp(close - close.amax(1, keepdim=True))
        return torch.log(1e-3 + powers / powers.sum(1, keepdim=True))


@pytest.mark.parametrize("layer", [PooledPower, FilterNorm, ByHand])
@pytest.mark.parametrize("how", ["script", "trace"])
def test_functions_of_each_value(layer: type[nn.Module], how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(block(3, 20), layer(), nn.Conv2d(20, 6, 1)).eval()
    check_whole(network, torch.randn(2, 3, 14, 10), tmp_path, how)


@pytest.mark.parametrize("way", ["view", "reshape", "unflatten"])
@pytest.mark.parametrize("how", ["script", "trace"])
def test_decoders_make_images_of_vectors(way: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(Decoder(way).eval(), torch.randn(3, 10), tmp_path, how)


class Heads(nn.Module):
    """A detector's: what no plan makes stands between what plans do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 20), block(20, 40, 2))
        self.down = block(40, 40, 2)
        self.near = nn.Conv2d(40, 3 * 5, 3, padding=1)
        self.far = nn.Conv2d(40, 3 * 5, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.body(x)
        near = self.near(a).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 5)
        far = self.far(self.down(a)).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 5)
        rows = torch.cat([near, far], 1)
        return torch.softmax(rows[..., :3], -1), rows[..., 3:] * math.pi


@pytest.mark.parametrize("how", ["script", "trace"])
def test_what_no_plan_serves_does_not_keep_what_is_behind_it(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Heads().eval()
    x = torch.randn(2, 3, 16, 20)
    model = load(network, x, how, tmp_path)
    left = dict(model.plan(x)["left_to_libtorch"])
    assert not any("conv" in name or "relu" in name for name in left), left
    check_each(network, model, x)


def test_sums_of_operands_of_other_sizes_are_not_fused_and_still_planned(tmp_path: Path) -> None:
    """Global context (Cao et al., 2019): the residual of a convolution has one pixel."""

    class Context(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 20, 3)
            self.b = nn.Conv2d(20, 20, 1)
            self.c = nn.Conv2d(20, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.a(x))
            return self.c(F.relu(self.b(y) + F.adaptive_avg_pool2d(y, 1)))

    torch.manual_seed(0)
    network = Context()
    check_whole(network, torch.randn(2, 3, 9, 8), tmp_path)
    check_whole(network, torch.randn(2, 3, 3, 3), tmp_path)  # here the sizes agree


class Expanded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 20, 3, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = F.relu(self.a(x))
        n, c, h, w = y.shape
        pixel, row = F.adaptive_avg_pool2d(y, 1), y.amax(2, keepdim=True)
        spread = pixel.expand(n, c, h, w)
        return [
            spread * y.mean(3, keepdim=True).expand(-1, -1, -1, w),
            spread + pixel,
            row.expand_as(y) * 2,
            row - spread,
            y.mean(1, keepdim=True).expand(-1, c, -1, -1) / (1 + row.expand_as(y)),
            F.relu(row.expand(n, c, 5, w)),
        ]


@pytest.mark.parametrize("how", ["script", "trace"])
def test_expanded_tensors_have_their_size_whatever_they_meet(how: str, tmp_path: Path) -> None:
    network = Expanded().eval()
    model = load(network, torch.randn(2, 3, 6, 7), how, tmp_path)
    for shape in [(2, 3, 6, 7), (1, 3, 1, 4), (3, 3, 5, 1)]:
        check_each(network, model, torch.randn(shape))


def test_a_value_with_many_ways_to_what_it_is_made_of_is_planned_soon(tmp_path: Path) -> None:
    """Twice as many with every layer: looked at one by one, loading would not end."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 6, 3)
            self.b = nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            given = F.avg_pool2d(x, 3, 1)
            y = self.a(x)
            for _ in range(100):
                y = 0.5 * (y + torch.tanh(y))
                given = torch.maximum(given, torch.sigmoid(given))
            return self.b(y * given.mean(1, keepdim=True))

    class Squares(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            side = x.size(3)
            for _ in range(100):
                side = side * side
            return self.a(x).view(x.size(0), 6, side + x.size(2) * x.size(3))

    torch.manual_seed(0)
    check_whole(Steps().eval(), torch.randn(2, 3, 6, 7), tmp_path)
    model = load(Squares().eval(), torch.randn(2, 3, 6, 4), "script", tmp_path)
    assert [tuple(y.shape) for y in model.run(torch.randn(2, 3, 6, 4)).values()] == [(2, 6, 24)]


def test_expanded_in_a_loop_is_what_it_was_in_its_round(tmp_path: Path) -> None:
    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 20, 3, padding=1)
            self.b = nn.Conv2d(20, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = torch.sigmoid(self.a(x))
            last = y.mean(3, keepdim=True).expand_as(y)
            now = last
            for _ in range(20):  # fewer are unrolled
                row = (y * now).amax(2, keepdim=True)
                more = row.expand_as(y)
                y = torch.sigmoid(y * last + more)
                last = now
                now = more
            return self.b(y)

    torch.manual_seed(0)
    network = Rounds().eval()
    x = torch.randn(2, 3, 6, 7)
    check(network, load(network, x, "script", tmp_path), x)


def test_special_values_through_softmax_and_maxima(tmp_path: Path) -> None:
    class Special(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(5, 5, 1, groups=5, bias=False)
            self.b = nn.Conv2d(5, 5, 1, groups=5, bias=False)
            numbers = [0.5, -0.0, -math.inf, math.nan, math.inf]
            self.register_buffer("numbers", torch.tensor(numbers).view(5, 1, 1))

        def forward(self, x: Tensor) -> list[Tensor]:
            y = self.b(self.a(x))
            return [
                torch.softmax(y, 1),
                torch.log_softmax(y, 1),
                torch.amax(y, 1, keepdim=True),
                F.softplus(y),
                torch.exp(y),
                torch.log(y),
                torch.erf(y),
                torch.sqrt(y),
                torch.rsqrt(y),
                torch.reciprocal(y),
                y**3,
                y.pow(-2),
                y.pow(11),
                y.pow(1 / 3),
                y.pow(-0.7),
                torch.maximum(y, self.numbers),
                torch.min(torch.tensor(0.5), y),
                self.numbers / y,
            ]

    network = Special().eval()
    with torch.no_grad():
        network.a.weight.fill_(1)
        network.b.weight.fill_(1)
    x = torch.zeros(1, 5, 4, 5)
    for at, value in enumerate([math.nan, math.inf, -math.inf, 1e30, -1e30, 88, -104, 20, 20.01]):
        x[0, at % 5, at // 5, at % 4] = value
    x[0, :, 2, 4] = -math.inf
    x[0, :, 3] = torch.randn(5, 5) * 100
    model = load(network, x, "script", tmp_path)
    assert not dict(model.plan(x)["left_to_libtorch"])
    check_each(network, model, x, rtol=1e-5, atol=1e-37, equal_nan=True)
