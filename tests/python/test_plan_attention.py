"""Attention as people write it, and tensors in other dimensions than images have: whole in a
plan where layers say the same, and as eager in any case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_plan import check, check_each, needs_loops
from test_plan_layers import check_whole, load
from torch import Tensor, nn
from torch.nn import functional as F

import convship
from convship import _C
from convship._torchvision import torchvision

swin = torchvision.models.swin_transformer

pytestmark = needs_loops


class Attention(nn.Module):
    """Over the pixels of an image, between two convolutions; ``way`` is how it is written."""

    def __init__(self, way: str, channels: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.way = way
        self.heads = heads
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.last = nn.Conv2d(channels, 5, 1)
        self.register_buffer("bias", torch.randn(heads, 30, 30))
        self.register_buffer("temperature", torch.rand(heads, 1, 1) * 5)
        self.register_buffer("mask", torch.ones(30, 30, dtype=torch.bool).tril())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.way == "sdpa":
            return F.scaled_dot_product_attention(q, k, v)
        if self.way == "sdpa_causal":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if self.way == "sdpa_mask":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask)
        if self.way == "sdpa_keys":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask[-3:-2])
        if self.way == "sdpa_bias":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias, scale=0.3)
        if self.way == "einsum":
            scores = torch.einsum("bhid,bhjd->bhij", [q, k]) * 0.25
            return torch.einsum("bhij,bhjd->bhid", [scores.softmax(-1), v])
        if self.way == "turned":
            scores = (k @ q.transpose(-2, -1)).transpose(-2, -1) / 4
            return (v.transpose(2, 3) @ scores.softmax(3).transpose(2, 3)).transpose(2, 3)
        if self.way == "cosine":
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            return (scores * self.temperature + self.bias).softmax(-1) @ v
        scores = (q * 0.25) @ k.transpose(-2, -1)
        if self.way == "bias":
            scores = scores + self.bias
        return scores.softmax(dim=-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        n = tokens.shape[1]
        qkv = self.qkv(self.norm(tokens)).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = self.attend(q, k, v).transpose(1, 2).reshape(b, n, c)
        tokens = tokens + self.out(y)
        return self.last(tokens.transpose(1, 2).reshape(b, c, h, w))


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize(
    "way",
    [
        "sdpa",
        "sdpa_causal",
        "sdpa_mask",
        "sdpa_keys",
        "sdpa_bias",
        "einsum",
        "matmul",
        "bias",
        "turned",
        "cosine",
    ],
)
def test_attention_runs_whole(way: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(Attention(way), torch.randn(2, 3, 5, 6), tmp_path, how)


class SelfAttention(nn.Module):
    """Of images, as in SAGAN (Zhang et al., 2018) and diffusion's networks: products of
    [N, C, H * W] from either side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.q, self.k = nn.Conv2d(24, 8, 1), nn.Conv2d(24, 8, 1)
        self.v = nn.Conv2d(24, 24, 1)
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        b, c, h, w = x.shape
        q = self.q(x).reshape(b, -1, h * w).permute(0, 2, 1)
        k = self.k(x).reshape(b, -1, h * w)
        scores = F.softmax(torch.bmm(q, k) * 0.35, dim=2)
        y = torch.bmm(self.v(x).reshape(b, c, h * w), scores.permute(0, 2, 1))
        return self.last(x + y.reshape(b, c, h, w))


class Pooled(nn.Module):
    """Keys and values of fewer positions, as in PVT (Wang et al., 2021); each a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.fewer = nn.Conv2d(32, 32, 2, stride=2)
        self.q, self.k = nn.Linear(32, 32), nn.Linear(32, 32)
        self.v = nn.Linear(32, 48)
        self.last = nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, h, w = x.shape[0], x.shape[2], x.shape[3]
        tokens = x.flatten(2).transpose(1, 2)
        few = self.fewer(x).flatten(2).transpose(1, 2)
        q = self.q(tokens).view(b, -1, 4, 8).transpose(1, 2)
        k = self.k(few).view(b, -1, 4, 8).transpose(1, 2)
        v = self.v(few).view(b, -1, 4, 12).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.transpose(1, 2).flatten(2).transpose(1, 2)
        return self.last(y.reshape(b, 48, h, w))


class MultiHead(nn.Module):
    """torch's module, with a class token and positions; ``head`` is what follows."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head
        self.patch = nn.Conv2d(3, 32, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.positions = nn.Parameter(torch.randn(1, 7, 32))
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.last = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        if self.head == "token":
            return self.last(x[:, 0])
        if self.head == "last":
            return self.last(x[:, -1])
        if self.head == "mean":
            return self.last(x.mean(1))
        if self.head == "others":
            return self.last(x[:, 1:].mean(dim=1))
        if self.head == "every second":
            return self.last(x[:, 1:-1:2]).mean(dim=1)
        return self.last(x)[:, 1:].transpose(1, 2).reshape(x.shape[0], 5, 2, 3)


class Windows(nn.Module):
    """Of neighbours (Swin, Liu et al., 2021), or of pixels far apart (MaxViT, Tu et al., 2022),
    with a bias for each head."""

    def __init__(self, far: bool) -> None:
        super().__init__()
        self.far = far
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.qkv = nn.Linear(32, 96)
        self.bias = nn.Parameter(torch.randn(2, 12, 12))
        self.last = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c, h, w = x.shape
        x = x.permute(0, 2, 3, 1)
        if self.far:  # 3 by 4 pixels that are 2 and 2 apart
            parts = x.view(b, 3, h // 3, 4, w // 4, c).permute(0, 2, 4, 1, 3, 5)
        else:
            parts = x.view(b, h // 3, 3, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        qkv = self.qkv(parts.reshape(-1, 12, c)).reshape(-1, 12, 3, 2, 16).permute(2, 0, 3, 1, 4)
        scores = (qkv[0] * 0.25) @ qkv[1].transpose(-2, -1) + self.bias
        y = (scores.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(-1, 12, c)
        if self.far:
            y = y.view(b, h // 3, w // 4, 3, 4, c).permute(0, 3, 1, 4, 2, 5)
        else:
            y = y.view(b, h // 3, w // 4, 3, 4, c).permute(0, 1, 3, 2, 4, 5)
        return self.last(y.reshape(b, h, w, c).permute(0, 3, 1, 2))


BLOCKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "images": (SelfAttention, (5, 6)),
    "pooled": (Pooled, (6, 8)),
    "token": (lambda: MultiHead("token"), (8, 12)),
    "last": (lambda: MultiHead("last"), (8, 12)),
    "mean": (lambda: MultiHead("mean"), (8, 12)),
    "others": (lambda: MultiHead("others"), (8, 12)),
    "every second": (lambda: MultiHead("every second"), (8, 12)),
    "image": (lambda: MultiHead("image"), (8, 12)),
    "windows": (lambda: Windows(False), (6, 8)),
}


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_with_attention_run_whole(name: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, (height, width) = BLOCKS[name]
    check_whole(make(), torch.randn(2, 3, height, width), tmp_path, how)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_transformers_of_torchvision_run_whole(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformer = torchvision.models.VisionTransformer(32, 8, 2, 4, 64, 96, num_classes=10)
    nn.init.normal_(transformer.heads[0].weight)
    mixed = torchvision.models.MaxVit(
        (64, 64), 16, 4, [16, 32], [2, 1], 8, stochastic_depth_prob=0.2, num_classes=10
    )
    for network, side in ((transformer, 32), (mixed, 64)):
        check_whole(network, torch.randn(2, 3, side, side), tmp_path, how)


def test_another_size_than_a_transformer_has_positions_for_is_refused_as_eager_does(
    tmp_path: Path,
) -> None:
    network = torchvision.models.VisionTransformer(32, 8, 1, 2, 32, 32).eval()
    model = load(network, torch.randn(1, 3, 32, 32), "script", tmp_path)
    with pytest.raises(Exception, match="Wrong image height"):
        model.run(torch.randn(1, 3, 40, 32))


class Swin(nn.Module):
    """torchvision's: whether windows are shifted, and their masks, depend on the image's sides."""

    def __init__(self, version: int) -> None:
        super().__init__()
        block, merging = (
            (swin.SwinTransformerBlock, swin.PatchMerging)
            if version == 1
            else (swin.SwinTransformerBlockV2, swin.PatchMergingV2)
        )
        self.network = swin.SwinTransformer(
            [4, 4],
            16,
            [2, 2],
            [2, 4],
            [7, 7],
            num_classes=10,
            block=block,
            downsample_layer=merging,
        )
        for parameter in self.parameters():  # some begin at zero, where no mistake shows
            if parameter.dim() == 1:
                nn.init.normal_(parameter, 0.1, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("version", [1, 2])
def test_shifted_windows_run_whole_on_images_of_any_size(
    version: int, how: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = Swin(version).eval()
    x = torch.randn(2, 3, 224, 224)
    model = load(network, x, how, tmp_path)
    # Each size has its own tables; a trace holds those of its own size alone.
    others = [torch.randn(1, 3, 96, side) for side in (120, 64, 121, 40, 50, 80, 100, 150, 180)]
    for image in [x, *(others if how == "script" else []), x[:1]]:
        plan = model.plan(image)
        assert plan["whole"], plan["left_to_libtorch"]
        check(network, model, image)


def test_shifted_windows_run_whole_on_images_of_the_size_that_the_file_tells(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = Swin(1).eval()
    x = torch.randn(1, 3, 96, 120)
    path = tmp_path / "m.pt"
    convship.export_model(network, path, samples=[x])
    model = convship.load(path)
    assert model.plan(x)["whole"]
    check(network, model, x)


class WrittenConstants(nn.Module):
    """Copies of a buffer, read and written to by turns; at last only if the image says so."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.last = nn.Conv2d(8, 8, 1)
        self.register_buffer("numbers", torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        copy = self.numbers.clone()
        shown = copy[2:6]
        before = copy * 2
        copy.relu_()
        y = F.conv2d(x, self.first.weight, copy)
        shown.add_(0.5)
        copy[: x.shape[2] - 4].mul_(-1.5)  # which no constant tells
        y = self.last(F.relu(y + before.view(1, 8, 1, 1))) * copy.view(1, 8, 1, 1)
        if bool(x.sum() > 0):
            shown.mul_(3.0)
        return y + copy.view(1, 8, 1, 1) + self.numbers.view(1, 8, 1, 1)


def test_constants_are_as_they_are_when_they_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = WrittenConstants().eval()
    x = torch.randn(1, 3, 6, 6).abs()
    model = load(network, x, "script", tmp_path)
    assert model.plan(x)["steps"]
    for image in (x, -x, x, -x):
        check(network, model, image)


class Branch(nn.Module):
    """By sizes: which layer, and whether a list changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.large, self.small = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, 4, 1)
        self.shift = [3, 2]

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        shift = self.shift.copy()
        if y.shape[2] <= 100:
            shift[0] = 0
        if sum(shift) > 2:
            y = torch.roll(self.large(y), shifts=(shift[0], -shift[1]), dims=(2, 3))
        else:
            y = torch.roll(self.small(y), shifts=(-shift[0], shift[1]), dims=(2, 3))
        return self.last(y)


def test_branches_by_size_are_those_of_each_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Branch().eval()
    model = load(network, torch.randn(1, 3, 8, 8), "script", tmp_path)
    packed = []
    for height in (224, 120, 100, 101, 9, 300, 16):
        x = torch.randn(2, 3, height, 24)
        assert model.plan(x)["whole"]
        check(network, model, x)
        packed.append(_C.packings()[0])
    # Both sides of the branch; what is common to them once.
    assert packed[0] == packed[1] < packed[2] == packed[-1]


def test_causal_attention_hides_the_positions_of_each_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Attention("sdpa_causal").eval()
    model = load(network, torch.randn(1, 3, 5, 6), "script", tmp_path)
    for sides in ((5, 6), (1, 9), (20, 7), (5, 6)):
        x = torch.randn(2, 3, *sides)
        assert model.plan(x)["whole"]
        check(network, model, x)


def test_wrong_images_leave_a_plan_that_sizes_decide_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Branch().eval()
    model = load(network, torch.randn(1, 3, 8, 8), "script", tmp_path)
    for x in (torch.randn(2, 4, 90, 24), torch.randn(2, 1, 300, 2)):
        with pytest.raises(ValueError, match="to have 3 channels"):
            model.run(x)
    x = torch.randn(2, 3, 90, 24)
    assert model.plan(x)["whole"]
    check(network, model, x)


class Tables(nn.Module):
    """A mask, written in steps and read in between; returned, too, or not."""

    def __init__(self, returned: bool) -> None:
        super().__init__()
        self.returned = returned
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        y = F.relu(self.first(x))
        table = y.new_zeros([x.shape[2], x.shape[3]])
        table[1:3] = 1.0
        before = table.flatten().unsqueeze(0) * 2
        table[:, 2:] = 3.0
        q = y.flatten(2).transpose(1, 2).unsqueeze(1)
        side = table.flatten()
        bias = (side.unsqueeze(0) - side.unsqueeze(1)).masked_fill(side.unsqueeze(0) == 3, -9.0)
        bias = bias + before
        table.add_(1)
        y = F.scaled_dot_product_attention(q, q, q, attn_mask=bias)
        y = y.squeeze(1).transpose(1, 2).reshape(x.shape[0], 16, x.shape[2], x.shape[3])
        return [self.last(y), before, table] if self.returned else [self.last(y)]


@pytest.mark.parametrize("returned", [False, True])
def test_tables_of_sizes_are_as_they_are_when_they_are_read(returned: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Tables(returned).eval()
    path = tmp_path / "m.pt"
    convship.export_model(network, path, samples=[torch.randn(1, 3, 14, 16)])
    model = convship.load(path)
    x = torch.randn(1, 3, 14, 16)
    assert ("attention" in str(model.plan(x)["steps"])) == (not returned)
    for width in (16, 13):
        check_each(network, model, torch.randn(1, 3, 14, width))


def test_features_that_no_size_tells_before_a_norm_stay_in_their_order(tmp_path: Path) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 12, 1)
            self.norm = nn.LayerNorm(12 * 24)

        def forward(self, x: Tensor) -> Tensor:
            y = self.second(F.relu(self.first(x)))
            return self.norm(y.flatten(1, 2).flatten(1, 2)).transpose(0, 0)

    torch.manual_seed(0)
    check_whole(Normed(), torch.randn(2, 3, 8, 6), tmp_path)
