"""Networks that mix positions by layers of weights, whole in plans: as eager."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_plan import check, needs_loops
from test_plan_layers import check_whole, load
from torch import Tensor, nn
from torch.nn import functional as F

pytestmark = needs_loops

POSITIONS, CHANNELS = 12, 20  # of images of 9 rows and 12 columns, in patches of 3


class Patches(nn.Module):
    """Patches as a row of positions, [N, P, C], through `blocks`, and what they say in all."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 3)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(CHANNELS)
        self.head = nn.Linear(CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))


def perceptron(features: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, features))


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(CHANNELS), nn.LayerNorm(CHANNELS)])
        self.positions = perceptron(POSITIONS, 33)
        self.channels = perceptron(CHANNELS, 40)

    def forward(self, x: Tensor) -> Tensor:
        for i, norm in enumerate(self.norms):
            y = norm(x)
            if i == 0:
                x = x + self.positions(y.transpose(1, 2)).transpose(1, 2)
            else:
                x = x + self.channels(y)
        return x


class Convolved(nn.Module):
    """The same of convolutions of one step, as some write it: positions are channels there."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.positions = nn.Sequential(
            nn.Conv1d(POSITIONS, 33, 1), nn.GELU(), nn.Conv1d(33, POSITIONS, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.positions(self.norm(x)) + x


class Affine(nn.Module):
    """ResMLP (Touvron et al., 2021): factors for channels in place of norms, some of them
    while the last dimension still counts through positions."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, CHANNELS))
        self.shift = nn.Parameter(torch.linspace(-1, 1, CHANNELS))
        self.factor = nn.Parameter(torch.linspace(-1, 2, CHANNELS))
        self.positions = nn.Linear(POSITIONS, POSITIONS)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addcmul(self.shift, self.scale, x)
        y = self.positions(y.transpose(1, 2)).transpose(1, 2)
        return x + self.factor * y


class Gated(nn.Module):
    """gMLP (Liu et al., 2021): half of the channels, mixed, are factors of the others."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first = nn.Linear(CHANNELS, 2 * CHANNELS)
        self.norm = nn.LayerNorm(CHANNELS)
        self.conv = nn.Conv1d(POSITIONS, POSITIONS, 1)
        self.linear = nn.Linear(POSITIONS, POSITIONS)
        self.last = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.gelu(self.first(x)).chunk(2, dim=-1)
        right = self.norm(right)
        if self.way == "conv":
            right = self.conv(right)
        else:
            right = self.linear(right.permute(0, 2, 1)).permute(0, 2, 1)
        return x + self.last(left * right)


class Sides(nn.Module):
    """Vision Permutator (Hou et al., 2021): layers over rows, columns and channels of images,
    of which some follow each other."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(3, 7)
        self.columns = nn.Linear(4, 4)
        self.channels = nn.Linear(CHANNELS, CHANNELS)
        self.norm = nn.LayerNorm(7)

    def forward(self, x: Tensor) -> Tensor:
        y = self.columns(x)  # [N, C, H, W]
        y = F.silu(self.rows(y.transpose(2, 3)))  # [N, C, W, 7]
        y = self.norm(y).transpose(2, 3)
        z = self.channels(y.permute(0, 2, 3, 1))
        return y * torch.sigmoid(z.permute(0, 3, 1, 2))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "mixer": lambda: Patches(Mixer(), Mixer()),
    "convolutions": lambda: Patches(Convolved(), Convolved()),
    "affine": lambda: Patches(Affine(), Affine()),
    "gated_conv": lambda: Patches(Gated("conv"), Gated("conv")),
    "gated_linear": lambda: Patches(Gated("linear"), Gated("linear")),
    "sides": lambda: nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, 3), Sides(), nn.Conv2d(CHANNELS, 4, (3, 1))
    ),
}


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("name", BLOCKS)
def test_layers_over_positions_run_whole(name: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(BLOCKS[name]().eval(), torch.randn(3, 3, 9, 12), tmp_path, how)


@pytest.mark.parametrize("way", ["linear", "sum"])
def test_positions_come_out_as_eager_has_them(way: str, tmp_path: Path) -> None:
    """[N, C, P] of what a layer over positions made, or [N, P, C] of its sum."""

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, CHANNELS, 3, 3)
            self.positions = perceptron(POSITIONS, 33)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).flatten(2)
            y = self.positions(x)
            return y if way == "linear" else (x + y).transpose(1, 2)

    torch.manual_seed(0)
    network = Features().eval()
    x = torch.randn(2, 3, 9, 12)
    model = load(network, x, "trace", tmp_path)
    assert model.plan(x)["steps"]
    check(network, model, x)


def test_another_number_of_positions_is_refused_as_eager_does(tmp_path: Path) -> None:
    network = BLOCKS["mixer"]().eval()
    model = load(network, torch.randn(1, 3, 9, 12), "trace", tmp_path)
    other = torch.randn(1, 3, 12, 12)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network(other)
    with pytest.raises(ValueError, match="cannot run on input"):
        model.run(other)
    check(network, model, torch.randn(2, 3, 9, 12))
