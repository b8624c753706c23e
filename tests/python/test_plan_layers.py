"""Layers of networks that make images or normalise by groups, in plans: as eager."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_plan import check, needs_loops, only, settle, shipped
from torch import Tensor, nn
from torch.nn import functional as F

import convship

pytestmark = needs_loops


def load(network: nn.Module, x: Tensor, how: str, folder: Path) -> convship.Model:
    if how == "script":
        return shipped(network, folder)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: that it fixes numbers
        traced = torch.jit.trace(network.eval(), x)
    path = folder / "traced.pt"
    traced.save(str(path))
    return convship.load(path, allow_plain=True)


def check_whole(network: nn.Module, x: Tensor, folder: Path, how: str = "script") -> None:
    model = load(network.eval(), x, how, folder)
    plan = model.plan(x)
    assert plan["whole"], plan["left_to_libtorch"]
    check(network, model, x)


def between(layer: nn.Module, channels: int = 20, out: int = 20) -> nn.Sequential:
    """Convolutions before and behind it make a plan worth while."""
    return nn.Sequential(nn.Conv2d(3, channels, 3), layer, nn.Conv2d(out, 5, 1))


def test_a_convolution_alone_is_worth_a_plan(tmp_path: Path) -> None:
    """LibTorch would take longer, whatever comes behind it."""
    network = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.FractionalMaxPool2d(2, (3, 4)))
    x = torch.randn(2, 3, 9, 11)
    plan = load(network.eval(), x, "trace", tmp_path).plan(x)
    assert [name.split(",")[0] for name, _ in plan["steps"]] == ["convolution 3x3"]
    assert "aten::fractional_max_pool2d" in plan["left_to_libtorch"]


def double_convolution(
    c_in: int, c_out: int, norm: Callable[[int], nn.Module], act: Callable[[], nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (c_in, c_out):
        layers += [nn.Conv2d(channels, c_out, 3, padding=1, bias=False), norm(c_out), act()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two levels, ``up`` from the lower to the upper; sides that do not fit are padded."""

    def __init__(
        self,
        up: nn.Module,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        act: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.first = double_convolution(3, 16, norm, act)
        self.down = nn.Sequential(nn.MaxPool2d(2), double_convolution(16, 32, norm, act))
        self.up = up
        self.last = nn.Sequential(double_convolution(32, 16, norm, act), nn.Conv2d(16, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.up(self.down(a))
        rows = a.size(2) - b.size(2)
        columns = a.size(3) - b.size(3)
        pads = [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
        return self.last(torch.cat([a, F.pad(b, pads)], 1))


UPS: dict[str, Callable[[], nn.Module]] = {
    "transposed": lambda: nn.ConvTranspose2d(32, 16, 2, stride=2),
    "bilinear": lambda: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(32, 16, 1)
    ),
    "nearest": lambda: nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(32, 16, 1)),
}


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("up", UPS)
def test_a_unet_runs_whole_at_every_size(up: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = settle(UNet(UPS[up]()))
    model = load(network, torch.randn(1, 3, 32, 32), how, tmp_path)
    for batch, height, width in ((1, 32, 32), (2, 33, 46), (1, 19, 17)):
        x = torch.randn(batch, 3, height, width)
        plan = model.plan(x)
        assert plan["whole"], plan["left_to_libtorch"]
        assert plan["steps"]
        check(network, model, x)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_unet_of_group_norm_and_leaky_relu_runs_whole(groups: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = settle(
        UNet(
            UPS["bilinear"](),
            norm=lambda channels: nn.GroupNorm(groups, channels),
            act=lambda: nn.LeakyReLU(0.1, inplace=True),
        )
    )
    check_whole(network, torch.randn(2, 3, 28, 35), tmp_path)


TRANSPOSED = [
    (kernel, stride, padding, more, groups)
    for kernel, stride, groups in itertools.product(
        [(2, 2), (3, 3), (4, 4), (5, 3), (7, 7)], [(1, 1), (2, 2), (3, 2)], [1, 2, 4]
    )
    for padding in [(0, 0), (1, 1), (2, 1)]
    for more in [(0, 0), (1, 0), (1, 1)]
    if all(s <= k and p <= k - s and m < s
           for k, s, p, m in zip(kernel, stride, padding, more, strict=True))
]  # fmt: skip


def test_transposed_convolutions_of_every_kind(tmp_path: Path) -> None:
    pick = random.Random(0)
    assert len(TRANSPOSED) > 100
    for case in pick.sample(TRANSPOSED, 40):
        kernel, stride, padding, more, groups = case
        torch.manual_seed(0)
        out = groups * pick.choice([1, 3, 8, 20])
        layer = nn.ConvTranspose2d(
            20, out, kernel, stride, padding, more, groups, bias=pick.random() < 0.7
        )
        x = torch.randn(pick.choice([1, 3]), 3, pick.randint(5, 12), pick.randint(5, 20))
        check_whole(
            nn.Sequential(nn.Conv2d(3, 20, 3), layer, nn.SiLU(), nn.Conv2d(out, 5, 1)), x, tmp_path
        )


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(20, 4, 2, stride=3),  # results that see nothing
        nn.ConvTranspose2d(20, 4, 3, stride=2, padding=2),
        nn.ConvTranspose2d(20, 4, 3, dilation=2),
    ],
)
def test_unusual_transposed_convolutions_are_still_right(
    layer: nn.ConvTranspose2d, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = between(layer, out=4)
    x = torch.randn(2, 3, 11, 13)
    check(network, load(network, x, "script", tmp_path), x)


class Resized(nn.Module):
    def __init__(self, resize: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.behind = nn.Conv2d(3, 20, 3), nn.Conv2d(20, 5, 1)
        self.resize = resize

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.resize(self.before(x)))


RESIZE: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest, down": lambda x: F.interpolate(x, size=(5, 4)),
    "nearest, a third more": lambda x: F.interpolate(x, scale_factor=1.3),
    "bilinear, a third more": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "bilinear, sizes": lambda x: F.interpolate(x, size=(31, 7), mode="bilinear"),
    "bilinear, sides apart": lambda x: F.interpolate(
        x, scale_factor=(2.0, 0.7), mode="bilinear", align_corners=False
    ),
    "bilinear, one row": lambda x: F.interpolate(
        x, size=(1, 9), mode="bilinear", align_corners=True
    ),
    "recomputed scale": lambda x: F.interpolate(
        x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True
    ),
    "like another": lambda x: F.interpolate(
        F.avg_pool2d(x, 3), size=[x.shape[2], x.shape[3]], mode="bilinear"
    ),
    "zeros": lambda x: F.pad(x, (0, 1, 2, 3)),
    "a number": lambda x: F.pad(x, (1, 0, 0, 2), value=0.5),
    "cut": lambda x: F.pad(x, (-1, -2, 3, -1)),
    "reflect": lambda x: F.pad(x, (3, 1, 2, 4), mode="reflect"),
    "replicate": lambda x: F.pad(x, (3, 1, 2, 4), mode="replicate"),
    "circular": lambda x: F.pad(x, (3, 1, 2, 4), mode="circular"),
    "columns alone": lambda x: F.pad(x, (1, 2)),
    "shuffle": lambda x: F.pixel_shuffle(torch.cat([x, x, x, x], 1), 2),
    "unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :9, :15], 3)[:, 71:91],
    "there and back": lambda x: F.pixel_shuffle(F.pixel_unshuffle(F.pad(x, (1, 0, 1, 0)), 2), 2),
    "numbers": lambda x: (x * 0.5 - 1) / 3 + x,
    "extremes": lambda x: torch.maximum(x, 0.5 * x) - x.min(-x),
    "extremes, spread": lambda x: torch.max(x, x.mean((2, 3), keepdim=True)) + torch.minimum(
        x.mean(1, keepdim=True), x
    ),
    "sums": lambda x: x.sum((2, 3), keepdim=True) * x + x.sum(1, keepdim=True),
    "norms": lambda x: F.normalize(x, dim=1) + F.normalize(x, dim=(2, 3)),
    "gated": lambda x: F.glu(torch.cat([x, 0.5 * x], 1), 1),
}  # fmt: skip


@pytest.mark.parametrize("case", RESIZE)
def test_resizing_and_padding(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(Resized(RESIZE[case]), torch.randn(2, 3, 13, 17), tmp_path, "trace")


@pytest.mark.parametrize(
    "layer",
    [
        nn.LeakyReLU(0.2),
        nn.LeakyReLU(-0.3),
        nn.PReLU(),
        nn.PReLU(20),
        nn.ELU(0.7),
        nn.SELU(),
        nn.CELU(),
        nn.RReLU(0.1, 0.4),
        nn.Tanh(),
        nn.Mish(),
        nn.Hardtanh(),
        nn.Hardtanh(-0.2, 0.3),
        nn.InstanceNorm2d(20),
        nn.InstanceNorm2d(20, affine=True),
        nn.GroupNorm(4, 20),
        nn.GroupNorm(1, 20, affine=False),
        nn.ZeroPad2d((1, 0, 2, 1)),
        nn.ReflectionPad2d(2),
        nn.ReplicationPad2d((0, 1, 2, 3)),
        nn.ConstantPad2d((1, 1, 0, 0), -1.5),
        nn.CircularPad2d(2),
        nn.Conv2d(20, 20, 4, padding="same"),
        nn.Conv2d(20, 20, 3, padding="same", dilation=2, groups=20),
        nn.Conv2d(20, 20, 3, padding="valid"),
        nn.Conv2d(20, 20, 3, padding=1, padding_mode="reflect"),
        nn.Upsample(scale_factor=2),
        nn.Upsample(size=(9, 8), mode="bilinear"),
        nn.UpsamplingNearest2d(scale_factor=3),
        nn.UpsamplingBilinear2d(size=(20, 20)),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_modules_scripted(layer: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if isinstance(layer, nn.PReLU):
        layer.weight.data.uniform_(-0.5, 0.5)
    check_whole(between(layer), torch.randn(2, 3, 13, 17), tmp_path)


def test_a_pool_behind_an_activation_takes_the_maximum_of_its_results(tmp_path: Path) -> None:
    """Those of a falling slope are not in the order of what went in."""
    for act in (nn.LeakyReLU(0.1), nn.LeakyReLU(-0.5), nn.Hardtanh(), nn.ELU(), nn.Mish()):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 20, 3), act, nn.MaxPool2d(2), nn.Conv2d(20, 4, 1))
        check_whole(network, torch.randn(1, 3, 15, 16), tmp_path)


def test_padding_of_zeros_becomes_part_of_the_convolution_behind_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(20, 8, 3, stride=2), nn.ReLU(),
        nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(8, 8, 3, groups=8), nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Conv2d(8, 64, 3), nn.ZeroPad2d((1, 2, 2, 1)), nn.Conv2d(64, 64, 4),
    )  # fmt: skip
    x = torch.randn(2, 3, 16, 18)
    model = load(network, x, "script", tmp_path)
    steps = str(model.plan(x)["steps"])
    assert steps.count("convolution") == 5, steps
    assert "pad" not in steps, steps
    check(network, model, x)


def test_values_around_zero_padding_are_not_read(tmp_path: Path) -> None:
    """Asymmetric padding ends where the image does, whatever lies behind it in memory."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ZeroPad2d((0, 2, 0, 2)), nn.Conv2d(4, 20, 3), nn.ReLU(), nn.Conv2d(20, 4, 1)
    )
    model = load(network, torch.randn(1, 4, 9, 9), "script", tmp_path)
    whole = torch.full((2, 4, 14, 15), torch.nan)
    whole[:, :, :9, :10] = torch.randn(2, 4, 9, 10)
    for x in (whole[:, :, :9, :10], whole.contiguous(memory_format=torch.channels_last)):
        image = x[:, :, :9, :10]
        assert torch.allclose(only(model.run(image)), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.GroupNorm(20, 20), (1, 3, 3, 3)),  # one value for each mean
        (nn.InstanceNorm2d(20), (1, 3, 3, 3)),
        (nn.ReflectionPad2d(4), (1, 3, 6, 6)),
        (nn.CircularPad2d(5), (1, 3, 6, 6)),
        (nn.ConstantPad2d(-3, 0.0), (1, 3, 6, 6)),
    ],
    ids=str,
)
def test_sizes_that_torch_refuses_are_refused_in_its_words(
    layer: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    network = between(layer).eval()
    model = load(network, torch.randn(1, 3, 20, 20), "script", tmp_path)
    x = torch.randn(shape)
    with pytest.raises((RuntimeError, ValueError)) as expected:
        network(x)
    words = str(expected.value).split("size")[0]  # torch.Size to eager, a list to scripts
    with pytest.raises((RuntimeError, ValueError)) as refused:
        model.run(x)
    assert words in str(refused.value)
    check(network, model, torch.randn(2, 3, 20, 21))  # and others go on


class Excitation(nn.Module):
    """Squeeze and excitation (Hu et al., 2018) as its authors and others write it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 20, 3), nn.Conv2d(20, 5, 1)
        self.gate = nn.Sequential(nn.Linear(20, 5), nn.ReLU(), nn.Linear(5, 20), nn.Sigmoid())
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        batch, channels = x.size(0), x.size(1)
        gate = self.gate(F.adaptive_avg_pool2d(x, 1).view(batch, channels))
        if self.way == "expand":
            return self.last(x * gate.view(batch, channels, 1, 1).expand_as(x))
        if self.way == "view":
            return self.last(x * gate.view(-1, 20, 1, 1))
        return self.last(x * gate.unsqueeze(2).unsqueeze(-1))


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("way", ["expand", "view", "unsqueeze"])
def test_gates_of_linear_layers(way: str, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(Excitation(way), torch.randn(2, 3, 9, 11), tmp_path, how)


class Rounds(nn.Module):
    """One convolution, again and again; a list of what each round makes, or of their sizes."""

    def __init__(self, collect: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3, padding=1)
        self.again = nn.Conv2d(20, 20, 3, padding=1)
        self.collect = collect

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        found: list[Tensor] = []
        sides: list[int] = []
        for i in range(3):
            x = F.leaky_relu(self.again(x), 0.1)
            sides.append(x.size(3) + i)
            if self.collect:
                found.append(x)
        if self.collect:
            x = torch.cat(found, 1)
        return F.interpolate(x, size=[sides[0], sides[2]])


@pytest.mark.parametrize("collect", [False, True])
def test_loops_of_known_rounds(collect: bool, tmp_path: Path) -> None:
    """In a loop, one value of the graph is a tensor of its own in each round."""
    torch.manual_seed(0)
    network = Rounds(collect).eval()
    x = torch.randn(2, 3, 9, 11)
    model = load(network, x, "script", tmp_path)
    assert collect or model.plan(x)["whole"]
    check(network, model, x)


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al., 2023), as its authors and as others write it."""

    def __init__(self, product: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 20, 3), nn.Conv2d(20, 5, 1)
        self.wide, self.narrow = nn.Linear(20, 40), nn.Linear(40, 20)
        self.weight, self.bias = nn.Parameter(torch.randn(40)), nn.Parameter(torch.randn(40))
        self.product = product

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.wide(self.first(x).permute(0, 2, 3, 1)))
        norms = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        response = x * (norms / (norms.mean(dim=-1, keepdim=True) + 1e-6))
        weight, bias = self.weight.view(1, 1, 1, -1), self.bias.view(1, 1, 1, -1)
        if self.product:
            x = x + torch.addcmul(bias, weight, response)
        else:
            x = weight * response + bias + x
        return self.last(self.narrow(x).permute(0, 3, 1, 2))


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("product", [False, True])
def test_global_response_normalisation(product: bool, how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(ResponseNorm(product), torch.randn(2, 3, 9, 11), tmp_path, how)


class Spread(nn.Module):
    """Numbers for each channel, spread over pixels whose channels come last."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.first, self.gate, self.way = nn.Conv2d(3, 20, 3), nn.Linear(20, 20), way

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).permute(0, 2, 3, 1)
        sums = torch.sum(x, (1, 2), keepdim=True)
        if self.way == "first":
            return sums * x
        if self.way == "gate":
            return self.gate(x.mean((1, 2)))[:, None, None, :] * x
        if self.way == "extremes":
            return torch.maximum(sums, x).flatten(1, 2)
        return sums + torch.amax(x, 3, keepdim=True)


@pytest.mark.parametrize("way", ["first", "gate", "extremes", "both"])
def test_an_operand_that_is_spread_does_not_tell_the_sides(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = Spread(way).eval(), torch.randn(2, 3, 9, 11)
    for how in ("script", "trace"):
        model = load(network, x, how, tmp_path)
        check(network, model, x)
        check(network, model, torch.randn(1, 3, 12, 8))


REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(dim=[]),
    "mean": lambda x: x.mean(dim=[]),
    "amax": lambda x: x.amax(),
    "norm": lambda x: x / x.norm(),
    "norm of none": lambda x: torch.linalg.vector_norm(x, 2, []),
    "norm of a type": lambda x: x / torch.norm(x, dtype=x.dtype),
    "sum of images": lambda x: x.sum(0, keepdim=True) + x,
}


@pytest.mark.parametrize("case", REDUCTIONS)
def test_reductions_over_all_images_stay_in_libtorch(case: str, tmp_path: Path) -> None:
    class Reduced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 20, 3)

        def forward(self, x: Tensor) -> Tensor:
            return REDUCTIONS[case](F.adaptive_avg_pool2d(torch.relu(self.first(x)), 1))

    torch.manual_seed(0)
    network, x = Reduced().eval(), torch.randn(2, 3, 9, 11)
    check(network, load(network, x, "trace", tmp_path), x)


def test_constants_that_do_not_fit_are_refused_by_the_call(tmp_path: Path) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.wrong = nn.Conv2d(3, 8, 3), nn.Parameter(torch.randn(3, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return x + self.wrong if x.size(2) > 10 else x

    network = Wrong().eval()
    model = load(network, torch.randn(1, 3, 9, 9), "script", tmp_path)
    check(network, model, torch.randn(1, 3, 9, 9))
    with pytest.raises(ValueError, match="must match the size"):
        model.run(torch.randn(1, 3, 20, 20))


class Pyramid(nn.Module):
    """Pooled to several sizes (Zhao et al., 2017); two lists of tensors become one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 20, 3), nn.Conv2d(40, 5, 1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Conv2d(20, 5, 1), nn.ReLU())
            for side in (1, 2, 3, 6)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        sides = [x.size(2), x.size(3)]
        made = [F.interpolate(stage(x), size=sides, mode="bilinear") for stage in self.stages]
        return self.last(torch.cat([x] + made, 1))  # noqa: RUF005 - as scripts have it


@pytest.mark.parametrize("how", ["script", "trace"])
def test_lists_of_tensors_are_joined(how: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    check_whole(Pyramid(), torch.randn(2, 3, 15, 18), tmp_path, how)


@pytest.mark.parametrize("largest", [False, True])
def test_extremes_of_nan_are_nan(largest: bool, tmp_path: Path) -> None:
    class Extremes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 20, 1), nn.Conv2d(2, 20, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x[:, :2]), self.b(x[:, 2:])
            return torch.maximum(a, b) if largest else torch.minimum(a, b)

    network = Extremes().eval()
    for channel in (0, 3):
        x = torch.randn(1, 4, 3, 5)
        x[0, channel, 1, 2] = torch.nan
        found = only(load(network, x, "trace", tmp_path).run(x))
        assert torch.equal(found.isnan(), network(x).isnan())
        assert found[0, :, 1, 2].isnan().all()


class Branches(nn.Module):
    """What is done depends on sizes, and so on the call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 20, 3), nn.Conv2d(20, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        if x.size(2) > 10:
            x = F.max_pool2d(x, 2)
        if x.dim() == 4:
            x = F.avg_pool2d(x, 2)
        return self.last(x)


def test_branches_on_sizes_are_taken_in_every_call(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Branches().eval()
    model = load(network, torch.randn(1, 3, 8, 8), "script", tmp_path)
    for side in (8, 20, 9, 13):
        check(network, model, torch.randn(1, 3, side, side))


@pytest.mark.parametrize("dilation", [2, 3, (1, 4), 30])
@pytest.mark.parametrize("padding", [0, 1])
def test_dilated_convolutions(
    dilation: int | tuple[int, int], padding: int, tmp_path: Path
) -> None:
    """``fast`` transforms them place by place; padding alone is not multiplied."""
    torch.manual_seed(0)
    channels = 64
    pads = [padding * d for d in (dilation if isinstance(dilation, tuple) else (dilation,) * 2)]
    side = 26 if padding else 70
    network = nn.Sequential(
        nn.Conv2d(3, channels, 1),
        nn.Conv2d(channels, channels, 3, padding=pads, dilation=dilation),
        nn.ReLU(),
        nn.Conv2d(channels, 4, 1),
    )
    check_whole(network, torch.randn(2, 3, side, side - 3), tmp_path)


def test_segmentation_of_torchvision_runs_whole(tmp_path: Path) -> None:
    """Scripted, it hands tensors on in dictionaries and resizes to the input's size."""
    from convship._torchvision import torchvision

    torch.manual_seed(0)
    make = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large
    network = settle(make(weights=None, weights_backbone=None, num_classes=3))
    model = shipped(network, tmp_path)
    for height, width in ((64, 64), (65, 97)):
        x = torch.randn(1, 3, height, width)
        plan = model.plan(x)
        assert "aten::conv2d" not in plan["left_to_libtorch"], plan["left_to_libtorch"]
        with torch.inference_mode():
            expected = network(x)["out"]
        assert torch.allclose(only(model.run(x)), expected, rtol=1e-4, atol=1e-4)


class Huge(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 20, 3), nn.Conv2d(20, 5, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        sides = [x.size(2) << 40, x.size(3) << 40]
        x = torch.relu(self.first(x))
        if self.scale > 0:
            return self.last(F.interpolate(x, scale_factor=[self.scale, self.scale]))
        return self.last(F.interpolate(x, size=sides))


@pytest.mark.parametrize("scale", [1e7, 1e300, 0.0])
def test_sizes_beyond_any_memory_are_an_error(scale: float, tmp_path: Path) -> None:
    model = load(Huge(scale).eval(), torch.randn(1, 3, 8, 8), "script", tmp_path)
    with pytest.raises((RuntimeError, ValueError, OverflowError, MemoryError)):
        model.run(torch.randn(1, 3, 8, 8))


def test_images_without_a_batch_are_answered_by_libtorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = between(nn.LeakyReLU())
    model = shipped(network, tmp_path)
    assert model.plan(torch.randn(1, 3, 12, 12))["whole"]
    x = torch.randn(3, 12, 12)
    assert torch.allclose(only(model.run(x)), network(x), rtol=1e-4, atol=1e-5)
