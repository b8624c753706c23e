"""Graphs that plans could get wrong without any layer being wrong: names, views, overloads,
sizes that are refused. Each was, once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest
import torch
from test_plan import needs_loops, shipped
from torch import Tensor, nn
from torch.nn import functional as F

import convship

pytestmark = needs_loops


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 64, 3, padding=1)
        self.b = nn.Conv2d(64, 64, 3, padding=1)
        self.c = nn.Conv2d(64, 8, 3, padding=1)
        self.e = nn.Conv2d(3, 64, 3, padding=1)
        self.k1 = nn.Conv2d(64, 64, 1)


class BroadcastSum(Graph):
    """Of two sizes, and with two results."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.b(F.relu(self.a(x)))
        g = F.adaptive_avg_pool2d(z, 1)
        return self.c(F.relu(z + g)), F.softmax(g.flatten(1), 1)


class TwoResults(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.leaky_relu(self.b(F.relu(self.a(x))), 0.1)
        return self.c(y), y


class PaddedPointwise(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(F.relu(self.a(x)), [0, 1, 0, 1])
        return self.c(F.relu(self.k1(y)))


class PaddedPixel(Graph):
    """Where both sides are one, each is still itself."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(F.adaptive_avg_pool2d(F.relu(self.a(x)), 1), [1, 2, 3, 4])
        return self.c(F.relu(self.k1(y)))


class PaddedFarAway(Graph):
    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Conv2d(64, 64, 3, dilation=12)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.d(F.pad(F.relu(self.a(x)), [12, 14, 12, 14])))


class ScaledToItself(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        y = self.b(F.interpolate(y, scale_factor=1.05) + y)
        y = F.interpolate(y, scale_factor=1.05, mode="bilinear")
        return self.c(F.interpolate(F.max_pool2d(y, 3), scale_factor=2.3))


class IntoOther(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        z = self.b(y)
        torch.sigmoid(y, out=z)
        return self.c(z)


class LongerList(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        pads = [1, 1]
        same = pads
        pads += [2, 2]
        return self.c(F.pad(y, same))


class FactorForEachRow(Graph):
    """As many rows as channels: LibTorch's freezing takes them for channels (2.13)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factors", torch.randn(1, 64, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(F.pad(x, [0, 0, 0, 64 - x.shape[2]])) * self.factors
        return self.c(self.b(y) + self.factors[0])


class InPlaceOnSlice(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.a(x))
        z = x[:]
        z.relu_()
        return self.c(y + self.e(z)), x.exp()


class ViewOfView(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        first = y[:, :32]
        some = first[:, :16]
        some.exp_()
        return self.c(y)


class SiblingViews(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        first = y[:, :32]
        some = y[:, 16:48]
        some.exp_()
        return first + 1


class CopiedOrNot(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        z = y.contiguous(memory_format=torch.channels_last)
        z.relu_()
        return self.c(y + z)


class ShuffledByOne(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.a(x)))
        n, c, h, w = y.size(0), y.size(1), y.size(2), y.size(3)
        z = y.view(n, 1, c, h, w).transpose(1, 2).reshape(n, c, h, w)
        z.relu_()
        return self.c(y), z


class NothingInSecondRound(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        before: Optional[Tensor] = y  # noqa: UP045 (as TorchScript reads it)
        for _ in range(y.size(1) // 16 + 1):
            if before is not None:
                y = y + before
                before = None
            else:
                y = torch.sigmoid(y)
                before = y
        return self.c(y)


class OtherLayoutInSecondRound(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        z = y.permute(0, 2, 3, 1)
        for i in range(y.size(1) // 16):
            z = F.gelu(z) * 2 + 1
            if i == 0:
                z = z.permute(0, 3, 1, 2)
        return self.c(z)


class BatchOfAnother(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = self.b(F.relu(self.a(x[:4])))
        b = x[4:]
        w = self.b(F.relu(self.a(b)))
        return u.view(b.size(0), -1), w


class AroundWhatIsCutOff(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        return self.c(F.pad(y, [0, 0, -2, 2], mode="circular"))


class ManyNumbers(Graph):
    """Twice as many sums a round, were each not kept."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        h = x.size(2)
        for _ in range(y.size(1) - 4):
            h = (h + h) % 97
        return self.c(F.pad(y, [h % 3, int(y.size(1) == 64), 0, 1]))


class TinyDivisor(Graph):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(F.relu(self.a(x))) * 1e-30 / 1e-39)


class WrittenBehindReader(Graph):
    """What no plan serves reads what is written over behind it."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.a(x)))
        middle = torch.median(y, 3)[0]
        torch.relu_(y)
        return self.c(y), middle


class WrittenThroughView(Graph):
    """What no plan serves writes through another shape."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        y.permute(3, 2, 1, 0).add_(1.5)
        return self.c(F.relu(self.k1(y)))


class CopiedAndWritten(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.a(x)))
        before = y.to(torch.bfloat16)
        torch.relu_(y)
        return self.c(F.relu(self.k1(y))), (before.float() < -0.01).float().mean()


class ViewedAndWritten(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.a(x)))
        last = y.permute(0, 2, 3, 1)
        torch.relu_(y)
        return self.c(F.relu(self.k1(y))), last.cumsum(3)


class StackedList(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        found: list[Tensor] = []
        found.append(self.b(y))
        found.append(self.k1(y))
        both = torch.stack(found, 1).sum(1)
        return self.c(F.relu(both))


class GrowingPieces(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        pieces = list(y.chunk(2, 1))
        also = pieces
        pieces.append(self.k1(y))
        return self.c(torch.cat([pieces[0], also[1]], 1)) * len(also)


class SizesForOthers(Graph):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.max_pool2d(F.relu(self.a(x)), 2))
        steps = torch.arange(y.size(2) * y.shape[-1]).view(1, 1, y.size(2), -1)
        return self.c(F.relu(self.k1(y))), steps * torch.ones(y.shape[1], 1, 1)


class AroundUnserved(Graph):
    """Two branches: one by plans, one that needs what no plan serves, and their sum."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        turned = torch.relu_(self.b(torch.flip(y, [3])))
        straight = torch.relu_(self.k1(self.b(y)))
        return self.c(turned + straight)


class HalfOfAList(Graph):
    """A list of one tensor of a plan and one that LibTorch makes, for what no plan serves."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        z = self.b(F.relu(self.b(torch.flip(y, [3]))))
        return torch.stack([z, y])


class ElementWritten(Graph):
    """What stays behind writes to what a list holds that a plan reads."""

    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Conv2d(128, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.b(F.relu(self.a(x)))
        both = [y, F.relu(y)]
        y.exp_()  # which torch.jit.freeze forgets where nobody reads y itself
        return self.d(torch.cat(both, 1)), y


class PieceWritten(Graph):
    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Conv2d(128, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(F.relu(self.a(x)))
        pieces = list(self.b(y).chunk(2, 1))
        pieces.append(y)
        y.relu_()
        return self.d(torch.cat(pieces, 1))


class ChunksWritten(Graph):
    def forward(self, x: Tensor) -> Tensor:
        z = self.b(F.relu(self.a(x)))
        u, v = z.chunk(2, 1)
        both = [u, v]
        u.exp_()
        return self.c(torch.cat(both, 1))


class InputWritten(Graph):
    def __init__(self) -> None:
        super().__init__()
        self.d = nn.Conv2d(67, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = [F.relu(self.a(x)), x]
        x.add_(1)
        return self.d(torch.cat(both, 1))


class TinyDivisors(Graph):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tiny", torch.full((64, 1, 1), 1e-39))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(F.relu(self.a(x))) * 1e-3 / self.tiny)


class ZeroKeepsItsSign(Graph):
    def forward(self, x: Tensor) -> Tensor:
        return 1 / (F.hardtanh(self.c(F.relu(self.a(x)))) * 0)


class LargerThanItsPlace(Graph):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        g = F.adaptive_avg_pool2d(y, 1)
        y *= g
        y -= g.mean(1, keepdim=True)
        return self.c(y)


GRAPHS = [
    graph for graph in list(globals().values())
    if isinstance(graph, type) and issubclass(graph, Graph) and graph is not Graph
]  # fmt: skip


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.__name__)
def test_graphs_answer_as_eager_does(graph: type[Graph], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = graph().eval()
    model = shipped(network, tmp_path)
    shapes = [(6, 3, 8, 8), (6, 3, 9, 11)]
    if graph is TwoResults:
        shapes += [(0, 3, 8, 8), (3, 8, 8)]
    for shape in shapes:
        x = torch.randn(shape)
        with torch.no_grad():
            expected = network(x.clone())
        ours = list(model.run(x.clone()).values())
        expected = list(expected) if isinstance(expected, tuple) else [expected]
        assert len(ours) == len(expected)
        for mine, theirs in zip(ours, expected, strict=True):
            assert mine.shape == theirs.shape
            scale = float(theirs.abs().max()) if theirs.numel() else 1.0
            atol = 1e-5 * max(scale, 1) if scale < float("inf") else 0
            assert torch.allclose(mine, theirs, rtol=1e-4, atol=atol)


class NoThirdSide(Graph):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 1)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(F.adaptive_avg_pool1d(self.conv(x), 1).squeeze(3))
        return self.linear(y)


class NoFifthDimension(Graph):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(F.relu(self.a(x)))[:, :, :, :, :])


class NoRoom(Graph):
    """torch does not write what is larger than its place."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        g = F.adaptive_avg_pool2d(y, 1)
        g *= y
        return self.c(g)


@pytest.mark.parametrize("graph", [NoThirdSide, NoFifthDimension, NoRoom])
def test_graphs_that_torch_refuses_are_refused(graph: type[Graph], tmp_path: Path) -> None:
    network = graph().eval()
    model = shipped(network, tmp_path)
    x = torch.randn((2, 3, 9) if graph is NoThirdSide else (2, 3, 4, 5))
    with pytest.raises((RuntimeError, IndexError)):
        network(x)
    with pytest.raises(ValueError, match="the network cannot run on input"):
        model.run(x)


# A stride of 0 ended the process, chunk went on for ever, some were answered.
REFUSED = [
    "torch.conv2d(y, w, None, [0, 0])",
    "torch.conv2d(y, w, None, [1, 1], [-1, -1])",
    "torch.conv2d(y, w, None, [1, 1], [0, 0], [0, 0])",
    f"torch.conv2d(y, w, None, [1, 1], [{2**63 - 1}, 0])",
    f"torch.conv2d(y, w, None, [{2**62}, 1], [{2**62}, 0])",
    "torch.conv1d(y.flatten(2), w[:, :, 0], None, [0])",
    "torch.max_pool2d(y, [3, 3], [0, 1])",
    f"torch.max_pool2d(y, [{2**62}, 1], [1, 1], [{2**61}, 0])",
    "torch.rrelu(y, 0.9, 0.1)",
    f"y.chunk({2**63 - 1}, 1)[0]",
]


@pytest.mark.parametrize("expression", REFUSED)
def test_numbers_that_torch_refuses_are_refused(expression: str, tmp_path: Path) -> None:
    class Convolutions(nn.Module):  # anew: torch keeps what is defined for a class
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3, padding=1)
            self.second = nn.Conv2d(8, 8, 3)

    network = torch.jit.script(Convolutions().eval())
    network.define(f"""
def forward(self, x):
    w = self.second.weight
    y = torch.relu(self.first(x))
    return {expression}
""")
    x = torch.randn(1, 3, 16, 16)
    with pytest.raises(RuntimeError):
        network(x)
    path = tmp_path / "model.pt"
    network.save(str(path))
    model = convship.load(path, allow_plain=True)
    with pytest.raises(ValueError, match="the network cannot run on input"):
        model.run(x)


class Rounds(nn.Module):
    """A layer for each of them would be a quarter of a million."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        for _ in range(64):
            for _ in range(64):
                for _ in range(64):
                    x = x + 0.5
        return x


def test_loops_in_loops_are_left_as_they_are(tmp_path: Path) -> None:
    network = Rounds().eval()
    model = shipped(network, tmp_path)
    x = torch.randn(1, 3, 4, 4)
    (answer,) = model.run(x).values()
    assert dict(model.plan(x)["left_to_libtorch"]) == {"prim::Loop": 1}
    assert torch.allclose(answer, network(x), rtol=1e-3)
