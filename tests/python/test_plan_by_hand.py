"""Networks as libraries of them have it written, out of views and small operators: whole in
plans, as eager."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_plan import check, needs_loops
from test_plan_layers import check_whole, load
from test_plan_networks import block
from torch import Tensor, nn
from torch.nn import functional as F

pytestmark = needs_loops


class ConvolvedAttention(nn.Module):
    """Heads of a convolution's channels: each has its queries, keys and values side by side."""

    def __init__(self, heads: int, way: str) -> None:
        super().__init__()
        self.heads, self.way = heads, way
        self.qkv = nn.Conv2d(20, 60, 1)
        self.out = nn.Conv2d(20, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(x).view(n, self.heads, 3 * c // self.heads, -1)
        q, k, v = qkv.chunk(3, dim=2)
        if self.way == "operator":
            y = F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        else:
            scale = (c // self.heads) ** -0.5
            y = v @ (q.transpose(-2, -1) @ k * scale).softmax(dim=-1).transpose(-2, -1)
        return x + self.out(y.reshape(n, c, h, w))


class SharedKeys(nn.Module):
    """Shazeer, 2019: one head of keys and values for all heads of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Conv2d(20, 4 * 8, 1)
        self.k = nn.Conv2d(20, 8, 1)
        self.v = nn.Conv2d(20, 5, 1)
        self.out = nn.Conv2d(4 * 5, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q = self.q(x).reshape(n, 4, 8, -1).transpose(-1, -2)
        small = F.avg_pool2d(x, 2)
        k = self.k(small).reshape(n, 8, -1).transpose(1, 2).unsqueeze(1)
        v = self.v(small).reshape(n, 5, -1).transpose(1, 2).unsqueeze(1)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, h, w, 20).permute(0, 3, 1, 2))


class ChannelHeads(nn.Module):
    """Attention between a head's channels, as XCiT (El-Nouby et al., 2021), Restormer (Zamir et
    al., 2022) and DaViT (Ding et al., 2022) write it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.linear = nn.Linear(20, 60)
        self.conv = nn.Conv2d(20, 60, 1)
        self.temperature = nn.Parameter(torch.linspace(0.5, 2, 4).view(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.way == "restormer":
            q, k, v = self.conv(x).chunk(3, dim=1)
            q = F.normalize(q.reshape(n, 4, 5, h * w), dim=-1)
            k = F.normalize(k.reshape(n, 4, 5, h * w), dim=-1)
            scores = (q @ k.transpose(-2, -1)) * self.temperature
            return x + (scores.softmax(dim=-1) @ v.reshape(n, 4, 5, h * w)).reshape(n, c, h, w)
        y = self.linear(x.flatten(2).transpose(1, 2))
        if self.way == "davit":
            qkv = y.reshape(n, h * w, 3, 4, 5).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
            scores = (q * 0.3).transpose(-1, -2) @ k
            y = (scores.softmax(dim=-1) @ v.transpose(-1, -2)).transpose(-1, -2)
            y = y.transpose(1, 2).reshape(n, h * w, c)
        else:
            q, k, v = y.reshape(n, h * w, 3, 4, 5).permute(2, 0, 3, 4, 1).unbind(0)
            q = F.normalize(q, dim=-1) * self.temperature
            scores = q @ F.normalize(k, dim=-1).transpose(-2, -1)
            y = (scores.softmax(dim=-1) @ v).permute(0, 3, 1, 2).reshape(n, h * w, c)
        return x + y.transpose(1, 2).reshape(n, c, h, w)


class OpenHeads(nn.Module):
    """What a head has is what the others leave, -1, though positions are not told either."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(20, 20)
        self.kv = nn.Linear(20, 40)
        self.norm = nn.LayerNorm(20)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.norm(x.flatten(2).transpose(1, 2))
        n, positions, c = y.shape
        q = self.q(y).reshape(n, positions, self.heads, -1).permute(0, 2, 1, 3)
        kv = self.kv(y).reshape(n, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        k, v = kv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, positions, c)
        return x + y.transpose(1, 2).reshape(n, c, h, w)


class UnfoldedPatches(nn.Module):
    """MobileViT (Mehta and Rastegari, 2022): the pixels at one place of all patches see each
    other."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(20, 60)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        rows, columns = h // 2, w // 2
        x = x.reshape(n * c * rows, 2, columns, 2).transpose(1, 2)
        x = x.reshape(n, c, rows * columns, 4).transpose(1, 3).reshape(n * 4, rows * columns, -1)
        qkv = self.mix(x).reshape(n * 4, rows * columns, 3, 2, 10).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + y.transpose(1, 2).reshape(n * 4, rows * columns, c)
        x = x.contiguous().view(n, 4, rows * columns, -1)
        x = x.transpose(1, 3).reshape(n * c * rows, columns, 2, 2)
        return x.transpose(1, 2).reshape(n, c, h, w)


class MergedPatches(nn.Module):
    """Swin's patch merging (Liu et al., 2021): squares of pixels become channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(80)
        self.reduce = nn.Linear(80, 20, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduce(self.norm(x)).permute(0, 3, 1, 2)


class SelectiveKernels(nn.Module):
    """Li et al., 2019: a softmax over branches, for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList([block(20, 20), block(20, 20, kernel=5)])
        self.attend = nn.Sequential(nn.Conv2d(20, 8, 1), nn.ReLU(), nn.Conv2d(8, 40, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([branch(x) for branch in self.branches], dim=1)
        y = self.attend(x.sum(1).mean((2, 3), keepdim=True))
        n, c, h, w = y.shape
        share = torch.softmax(y.view(n, 2, c // 2, h, w), dim=1)
        return torch.sum(x * share, dim=1)


class SplitAttention(nn.Module):
    """ResNeSt (Zhang et al., 2020): the same of splits in groups; here their maximum and mean
    count, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(20, 60, 3, padding=1, groups=2)
        self.attend = nn.Conv2d(20, 60, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        n, _, h, w = y.shape
        y = y.reshape(n, 3, 20, h, w)
        gap = y.sum(dim=1) + y.amax(dim=1)
        share = self.attend(F.adaptive_avg_pool2d(gap, 1)).view(n, 2, 3, -1).transpose(1, 2)
        share = F.softmax(share, dim=1).reshape(n, -1).view(n, 3, 20, 1, 1)
        return (y * share).sum(dim=1) + y.mean(1, keepdim=True).squeeze(1)


class Ghost(nn.Module):
    """GhostNet (Han et al., 2020): all channels of what was joined, as a slice that is then
    written over."""

    def __init__(self) -> None:
        super().__init__()
        self.first = block(20, 10, kernel=1)
        self.cheap = nn.Conv2d(10, 10, 3, padding=1, groups=10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = torch.cat([y, self.cheap(y)], dim=1)[:, :20, :, :]
        z += x
        return z


class Squares(nn.Module):
    """Pixels as channels and channels as pixels, in orders that no operator has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(80, 80, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
        y = self.conv(y.reshape(n, 4 * c, h // 2, w // 2))
        y = y.view(n, 2, 2, c, h // 2, w // 2).permute(0, 3, 4, 1, 5, 2)
        return x + y.reshape(n, c, h, w)


class SamePadding(nn.Module):
    """Of a strided convolution as TensorFlow has it, worked out from each size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(20, 20, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            if isinstance(side, Tensor):  # while it is traced
                pad = torch.clamp((torch.ceil(side / 2) - 1) * 2 + 3 - side, min=0)
            else:
                pad = max((math.ceil(side / 2) - 1) * 2 + 3 - side, 0)
            pads += [pad // 2, pad - pad // 2]
        return self.conv(F.pad(x, pads))


class Moments(nn.Module):
    """Norms by variances: of all channels, and of each channel's pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, 20))

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1)
        y = y * torch.rsqrt(y.var(dim=-1, keepdim=True) + 1e-3) * self.weight
        y = y.permute(0, 3, 1, 2) / (x.std(dim=1, keepdim=True) + 0.1)
        spread = torch.var(x, dim=(2, 3), unbiased=False, keepdim=True)
        return (y - x.mean((2, 3), keepdim=True)) * torch.rsqrt(spread + 1e-3)


class NormedRows(nn.Module):
    """LeViT (Graham et al., 2021): batch norm of all positions of all images, and every other
    position of both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(20, 24, bias=False)
        self.norm = nn.BatchNorm1d(24)
        self.last = nn.Linear(24, 20)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.linear(x.flatten(2).transpose(1, 2))
        y = F.hardswish(self.norm(y.flatten(0, 1)).reshape_as(y))
        y = y.view(n, h, w, -1)[:, ::2, ::2].reshape(n, -1, 24)
        y = self.last(y).transpose(1, 2)
        return y.reshape(n, c, (h + 1) // 2, (w + 1) // 2)


class Summary(nn.Module):
    """A token of all positions before them, as CLIP's pool (Radford et al., 2021) makes it of
    their mean and CaiT (Touvron et al., 2021) of what layers before have left."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.token = nn.Parameter(torch.linspace(-1, 1, 20).view(1, 1, 20))
        self.kv = nn.Linear(20, 40)
        self.q = nn.Linear(20, 20)

    def attend(self, q: Tensor, x: Tensor) -> Tensor:
        n, positions, c = x.shape
        k, v = self.kv(x).reshape(n, positions, 2, 4, 5).permute(2, 0, 3, 1, 4).unbind(0)
        q = self.q(q).reshape(n, -1, 4, 5).permute(0, 2, 1, 3)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c)

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        if self.way == "mean":
            y = torch.cat([y.mean(dim=1, keepdim=True), y], dim=1)
            token = self.attend(y[:, :1], y)
        else:
            token = self.token.expand(x.shape[0], -1, -1)
            before = token.shape[1]
            token = token + self.attend(token, torch.cat([token, y], dim=1))
            y = torch.cat([token, y], dim=1)
            token = token + self.attend(y[:, :before], y)
        return x * token.transpose(1, 2).unsqueeze(3)


class Rotated(nn.Module):
    """Rotary positions (Su et al., 2021) of all but a class token: of neighbours, as EVA has
    them, or of the halves of a head, as DINOv3 has, which works them out from each size."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.token = nn.Parameter(torch.linspace(-1, 1, 20).view(1, 1, 20))
        self.qkv = nn.Linear(20, 60)
        self.register_buffer("steps", torch.tensor([1.0, 0.3, 0.1, 0.03, 0.01]) / 9)
        angles = torch.outer(torch.arange(96.0), self.steps)
        near = way == "neighbours"
        angles = angles.repeat_interleave(2, 1) if near else torch.cat([angles, angles], 1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def tables(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.way != "sizes":
            return self.cos, self.sin
        rows, columns = x.shape[2], x.shape[3]
        y = (torch.arange(rows, dtype=torch.float32) + 0.5) / rows
        x = (torch.arange(0, columns, dtype=torch.float32) + 0.5) / columns
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (grid[:, :1] + 2 * grid[:, 1:]) * self.steps
        both = torch.cat([angles.cos(), angles.sin()], dim=-1).tile(1, 2)
        cos, sin, again, _ = both.chunk(4, dim=-1)
        return torch.cat([cos, again], -1), torch.cat([sin, sin], -1)

    def rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.way != "neighbours":
            first, second = x.chunk(2, dim=-1)
            turned = torch.cat([-second, first], dim=-1)
        else:
            turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
        return x * cos + sin * turned

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        cos, sin = self.tables(x)
        y = x.flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(n, -1, -1), y], dim=1)
        qkv = self.qkv(y).reshape(n, 1 + h * w, 3, 2, 10).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q = torch.cat([q[:, :, :1], self.rotated(q[:, :, 1:], cos, sin)], dim=2).type_as(v)
        k = torch.cat([k[:, :, :1], self.rotated(k[:, :, 1:], cos, sin)], dim=2).type_as(v)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, 1 + h * w, c)
        return x + y[:, 1:].transpose(1, 2).reshape(n, c, h, w)


class ConstantImages(nn.Module):
    """With what a network has for each pixel, for each of its channels or for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("each", torch.linspace(-1, 2, 20 * 96).view(1, 20, 8, 12))
        self.register_buffer("pixel", torch.linspace(0.5, 2, 96).view(8, 12))
        self.register_buffer("group", torch.linspace(-2, 2, 4 * 96).view(4, 1, 96))

    def forward(self, x: Tensor) -> Tensor:
        y = self.each - x * self.pixel
        y = torch.maximum(y / self.pixel, torch.minimum(self.each * x, self.pixel))
        return (y.view(-1, 4, 5, 96) * self.group).reshape(-1, 20, 8, 12) - self.each


class Turned(nn.Module):
    """Convolutions of images with rows for columns, and of columns for channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(20, 20, (1, 3), padding=(0, 1))
        self.second = nn.Conv2d(8, 8, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x.transpose(2, 3)).transpose(2, 3)
        y = self.second(x.permute(0, 2, 3, 1))
        return x + y.permute(0, 3, 1, 2)


MIDDLES: dict[str, Callable[[], nn.Module]] = {
    "convolved_attention": lambda: ConvolvedAttention(2, "operator"),
    "convolved_scores": lambda: ConvolvedAttention(5, "scores"),
    "shared_keys": SharedKeys,
    "xcit": lambda: ChannelHeads("xcit"),
    "restormer": lambda: ChannelHeads("restormer"),
    "davit": lambda: ChannelHeads("davit"),
    "open_heads": lambda: OpenHeads(4),
    "one_open_head": lambda: OpenHeads(1),
    "unfolded_patches": UnfoldedPatches,
    "merged_patches": MergedPatches,
    "selective_kernels": SelectiveKernels,
    "split_attention": SplitAttention,
    "ghost": Ghost,
    "squares": Squares,
    "moments": Moments,
    "normed_rows": NormedRows,
    "summary_of_the_mean": lambda: Summary("mean"),
    "rotated_neighbours": lambda: Rotated("neighbours"),
    "rotated_halves": lambda: Rotated("half"),
    "rotated_by_sizes": lambda: Rotated("sizes"),
    "constant_images": ConstantImages,
    "turned": Turned,
}


OF_ONE_SIZE = {"turned", "rotated_neighbours", "rotated_halves", "constant_images"}


def between(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(block(3, 20), middle, nn.Conv2d(20, 5, 1)).eval()


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("middle", MIDDLES)
def test_what_is_written_out_runs_whole(middle: str, how: str, tmp_path: Path) -> None:
    check_whole(between(MIDDLES[middle]()), torch.randn(3, 3, 8, 12), tmp_path, how)


@pytest.mark.parametrize("middle", [name for name in MIDDLES if name not in OF_ONE_SIZE])
def test_it_is_right_at_other_sizes(middle: str, tmp_path: Path) -> None:
    """Whatever was taken for granted of the first size."""
    network = between(MIDDLES[middle]())
    model = load(network, torch.randn(1, 3, 8, 12), "script", tmp_path)
    for shape in [(1, 3, 8, 12), (2, 3, 4, 4), (1, 3, 16, 6), (3, 3, 2, 14), (1, 3, 8, 12)]:
        check(network, model, torch.randn(shape))


def test_same_padding_follows_each_size(tmp_path: Path) -> None:
    network = between(SamePadding())
    model = load(network, torch.randn(1, 3, 8, 12), "trace", tmp_path)
    for shape in [(1, 3, 8, 12), (2, 3, 9, 13), (1, 3, 5, 8)]:
        x = torch.randn(shape)
        assert model.plan(x)["whole"], model.plan(x)["left_to_libtorch"]
        check(network, model, x)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_token_that_is_no_constant_any_more(how: str, tmp_path: Path) -> None:
    """What the constant itself goes through is LibTorch's."""
    network = between(Summary("token"))
    x = torch.randn(3, 3, 8, 12)
    model = load(network, x, how, tmp_path)
    assert model.plan(x)["steps"]
    check(network, model, x)


def test_a_slice_of_some_channels_is_written_through(tmp_path: Path) -> None:
    """Beside the one of all of them, which is another name of the same."""

    class Through(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(x)
            y[:, :20] += 1
            y[:, 3:7] *= 2
            return y - x

    network = between(Through())
    x = torch.randn(2, 3, 8, 12)
    check(network, load(network, x, "script", tmp_path), x)
