"""bfloat16 and int8 files: narrow numbers are multiplied, and torch gives the same answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from models_for_tests import LABELS
from native_for_tests import run
from torch import Tensor, nn

import convship
from convship import _C
from convship.bundle import describe
from convship.cli import main
from convship.data import TensorImages
from convship.precision import narrow
from convship.precision.layers import Bfloat16Operands, Int8Operands
from convship.verify import verify_model

NARROW = ("bfloat16", "int8")


class Block(nn.Module):
    """Batch norms, residuals, a depthwise and a grouped convolution, pooling, ConvNeXt's layers."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 24, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
        )
        self.pooled = convship.ConvPool2d(24, 32, 3, padding=1)
        self.one = nn.Conv2d(32, 32, 3, padding="same")
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.mix = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.grouped = nn.Conv2d(32, 40, 1, groups=2)
        self.linear = nn.Linear(40, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pooled(self.stem(x))
        x = torch.relu(self.norm(self.one(x)) + x)
        x = x + self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = torch.relu(self.grouped(torch.relu(self.depthwise(x))))
        return self.linear(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def settled(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics of some inputs, as training does."""
    network.train()
    with torch.no_grad():
        for _ in range(40):
            network(torch.randn(8, 3, 32, 32))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    return settled(Block())


def export(network: nn.Module, path, precision: str, **options) -> convship.Manifest:
    return convship.export_model(
        network,
        path,
        samples=[torch.randn(2, 3, 32, 32) for _ in range(4)],
        precision=precision,
        **options,
    )


def operands(network: nn.Module, kind: type) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("precision", NARROW)
def test_a_narrow_file_answers_as_torch_does_with_it(network, tmp_path, precision):
    manifest = export(network, tmp_path / "narrow.pt", precision)
    export(network, tmp_path / "wide.pt", "float32")
    assert manifest.precision == precision
    model = convship.load(tmp_path / "narrow.pt")
    stock = torch.jit.load(str(tmp_path / "narrow.pt"))
    scale = float(network(torch.randn(64, 3, 32, 32)).abs().max())
    for batch in (1, 3):
        x = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            expected, wide = stock(x), network(x)
        got = model.run(x=x)["output"]
        # Twice what rounding itself costs is far below what a wrong layer does.
        noise = float((expected - wide).abs().max())
        assert 0 < noise < 0.05 * scale
        assert float((got - expected).abs().max()) <= 2 * noise
    report = verify_model(tmp_path / "narrow.pt")
    assert report.passed, report


@pytest.mark.parametrize("precision", NARROW)
def test_every_layer_of_weights_runs_by_its_plan(network, tmp_path, precision):
    export(network, tmp_path / "narrow.pt", precision)
    plan = convship.load(tmp_path / "narrow.pt").plan(x=torch.randn(1, 3, 32, 32))
    steps = [name for name, _ in plan["steps"]]
    assert plan["whole"]
    assert not any(step.startswith("round") for step in steps), steps
    if precision == "int8" and "avx512_vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        assert sum(", int8" in step for step in steps) >= 4, steps


@pytest.mark.parametrize("precision", NARROW)
def test_benchmarks_take_them_for_what_they_are(network, tmp_path, precision):
    export(network, tmp_path / "narrow.pt", precision)
    done = run("bench", tmp_path / "narrow.pt", "--seconds", "0.05", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["bench", str(tmp_path / "narrow.pt"), "--rounds", "1", "--engines", "native"]) == 0


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("precision", NARROW)
def test_goldens_hold_on_every_instruction_set(network, tmp_path, precision, isa):
    export(network, tmp_path / "narrow.pt", precision)
    done = run("selftest", tmp_path / "narrow.pt", env={**os.environ, "CONVSHIP_ISA": isa})
    assert done.returncode == 0, done.stdout + done.stderr


def test_weights_are_as_narrow_in_the_file_as_they_are_multiplied(tmp_path):
    network = nn.Sequential(nn.Conv2d(64, 128, 3), nn.ReLU(), nn.Conv2d(128, 128, 3)).eval()
    sizes = []
    for precision in ("float32", *NARROW):
        path = tmp_path / f"{precision}.pt"
        convship.export_model(
            network, path, samples=[torch.randn(1, 64, 6, 6)], precision=precision
        )
        sizes.append(path.stat().st_size)
    weights = 4 * 64 * 128 * 9 * 3
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, rel=0.05)
    assert sizes[0] - sizes[2] == pytest.approx(weights * 3 / 4, rel=0.05)


def test_which_layers_are_rounded(network):
    golden = convship.golden.tensor_golden({"x": torch.randn(2, 3, 32, 32)})
    for precision, kind in zip(NARROW, (Bfloat16Operands, Int8Operands), strict=True):
        narrowed = narrow(network, precision, [golden])
        # Not the depthwise one.
        assert len(operands(narrowed, kind)) == 7
        assert type(narrowed.depthwise) is nn.Conv2d
        # Folded, so that weights are rounded once.
        assert not operands(narrowed, nn.BatchNorm2d)
    assert len(operands(network, nn.BatchNorm2d)) == 2


def test_a_users_own_roundings_are_kept(tmp_path):
    """A float32 file may be off by nothing but float32's roundings.

    Sums are exact in any order: another order's last bit would turn a value to its
    other bfloat16 neighbour now and then, which is far off.
    """

    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(64, 64, 1) for _ in range(2)])
            for layer in self.layers:
                layer.weight.data = torch.randint(-8, 9, layer.weight.shape) / 8
                layer.bias.data = torch.randint(-999, 1000, layer.bias.shape) / 512

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x.to(torch.bfloat16).to(torch.float32))
            return x

    network = Rounds().eval().requires_grad_(False)
    path = tmp_path / "m.pt"
    x = torch.randint(-8, 9, (1, 64, 12, 12)) / 8
    convship.export_model(network, path, samples=[x])
    model = convship.load(path)
    plan = model.plan(x=x)
    assert sum(name.startswith("round") for name, _ in plan["steps"]) >= 1, plan
    y = model.run(x=x)["output"]
    assert torch.equal(y, network(x))


class Skips(nn.Module):
    """Tracing takes `skip` for given; without it, the convolution's result is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 20, 3, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.again = nn.Conv2d(20, 20, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        x = self.norm(y)
        x = x + y if skip is None else x + skip
        return self.again(torch.relu(x))


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3)
        self.hooked = nn.Conv2d(20, 20, 3)
        self.hooked.register_forward_hook(triple)
        self.norm = nn.BatchNorm2d(20)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.hooked(self.first(x)))


def triple(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return 3 * output


class Tied(nn.Module):
    """One layer under two names, called by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(20, 20, 3, padding=1)
        self.alias = self.conv
        self.first = nn.Conv2d(3, 20, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(torch.relu(self.conv(input=torch.relu(self.first(x)))))


@pytest.mark.parametrize("precision", NARROW)
@pytest.mark.parametrize("kind", [Skips, Hooked, Tied])
def test_unusual_networks_keep_their_answers(tmp_path, kind, precision):
    unusual = settled(kind())
    x = torch.randn(2, 3, 9, 9)
    path = tmp_path / "m.pt"
    convship.export_model(unusual, path, samples=[x], precision=precision)
    expected = unusual(x)
    got = convship.load(path).run(x=x)["output"]
    assert float((got - expected).abs().max()) < 0.06 * float(expected.abs().max())
    if kind is Tied:
        names = {name for name, _ in torch.jit.load(str(path)).named_parameters()}
        assert not any(name.endswith("alias.weight") for name in names), names


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e4])
def test_int8_does_not_depend_on_the_size_of_numbers(tmp_path, scale):
    layers = (nn.Conv2d(3, 16, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False))
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        network[0].weight.mul_(scale)
    x = torch.randn(1, 3, 12, 12)
    convship.export_model(network, tmp_path / "m.pt", samples=[x], precision="int8")
    got = convship.load(tmp_path / "m.pt").run(input=x)["output"]
    expected = network(x).detach()
    assert float((got - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_nan_is_the_lowest_level_on_every_path(tmp_path):
    network = nn.Sequential(nn.Linear(40, 50), nn.ReLU(), nn.Linear(50, 9)).eval()
    convship.export_model(
        network, tmp_path / "m.pt", samples=[torch.randn(2, 40)], precision="int8"
    )
    x = torch.randn(2, 40)
    x[0, 3] = torch.nan
    expected = torch.jit.load(str(tmp_path / "m.pt"))(x)
    assert torch.allclose(
        convship.load(tmp_path / "m.pt").run(input=x)["output"], expected, atol=1e-4
    )


class Branches(nn.Module):
    """No tracer follows it: its batch norm is folded when the file is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 20, 3, padding=1)
        self.norm = nn.BatchNorm2d(20)
        self.again = nn.Conv2d(20, 20, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        if float(x.sum()) > 0:
            x = torch.relu(self.again(x))
        return x


@pytest.mark.parametrize("precision", NARROW)
def test_networks_with_branches_are_narrowed_too(tmp_path, precision):
    branches = settled(Branches())
    samples = [torch.randn(1, 3, 9, 9) + shift for shift in (-3, 3)]
    convship.export_model(branches, tmp_path / "b.pt", samples=samples, precision=precision)
    model, stock = convship.load(tmp_path / "b.pt"), torch.jit.load(str(tmp_path / "b.pt"))
    for x in samples:
        assert torch.allclose(model.run(x=x)["output"], stock(x), rtol=0.02, atol=0.02)


def test_first_layers_that_are_linear(tmp_path):
    network = nn.Sequential(nn.Linear(37, 50), nn.ReLU(), nn.Linear(50, 9)).eval()
    for precision in NARROW:
        path = tmp_path / f"{precision}.pt"
        convship.export_model(network, path, samples=[torch.randn(3, 37)], precision=precision)
        model, stock = convship.load(path), torch.jit.load(str(path))
        for batch in (1, 2, 7):
            x = torch.randn(batch, 37)
            expected = stock(x)
            got = model.run(input=x)["output"]
            assert float((got - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_equal_weights_of_other_shapes_are_kept_apart(tmp_path):
    """-1, 0 and 1 are levels of any row with a one, and both layers' bytes are the same."""

    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Linear(480, 12), nn.Linear(12, 480)
            numbers = torch.randint(-1, 2, (480, 12)).float()
            numbers[:, 0] = 1
            self.narrow.weight.data = numbers
            self.wide.weight.data = numbers.reshape(12, 480).clone()

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.wide, self.narrow, self.wide):
                x = layer(torch.fake_quantize_per_tensor_affine(x, 0.0625, 128, 0, 255))
            return x

    network = Rounds().eval().requires_grad_(False)
    x = torch.randn(2, 480)
    torch.jit.trace(network, x).save(str(tmp_path / "m.ts"))
    model = convship.load(tmp_path / "m.ts", allow_plain=True)
    assert model.plan(x)["whole"]
    (got,) = model.run(x).values()
    expected = network(x)
    # A level's step where another order of sums turns a number to its neighbour.
    assert float((got - expected).abs().mean()) < 1e-3 * float(expected.abs().max())


def images(count: int) -> TensorImages:
    """Images of a class each: its channel is the bright one."""
    targets = torch.arange(count) % 2
    pixels = torch.randint(140, 170, (count, 3, 32, 32), dtype=torch.uint8)
    pixels[torch.arange(count), targets] += 60
    return TensorImages(pixels, targets)


def classifier() -> nn.Module:
    """Tells whether red or green is brighter."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2, 3).reshape(2, 3, 1, 1))
        network[0].bias.fill_(1.0)
    return network.eval()


def export_classifier(path, **options) -> convship.Manifest:
    return convship.export_model(
        classifier(),
        path,
        samples=[images(4).images[i] for i in range(4)],
        preprocess=convship.Preprocess(32, mean=[0.5] * 3, std=[0.25] * 3),
        labels=["red", "green"],
        **options,
    )


@pytest.mark.parametrize("precision", NARROW)
def test_the_file_tells_what_the_precision_cost(tmp_path, precision):
    manifest = export_classifier(tmp_path / "m.pt", precision=precision, test=images(50))
    assert manifest.precision_test is not None
    assert manifest.precision_test.images == 50
    assert manifest.precision_test.top1_float32 == 1
    assert manifest.precision_test.top1 == manifest.precision_test.agreement == 1
    assert "top-1 100.00 % (float32 100.00 %)" in describe(manifest)
    # Without labels, only whether both name the same.
    manifest = export_classifier(tmp_path / "m.pt", precision=precision)
    assert manifest.precision_test is not None
    assert (manifest.precision_test.images, manifest.precision_test.top1) == (4, None)


def test_a_loss_of_accuracy_is_refused_and_the_older_file_stays(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"older")
    # Calibrated on black images, a layer takes whatever is bright for equally bright.
    black = [torch.zeros(3, 32, 32, dtype=torch.uint8)]
    with pytest.raises(convship.ExportError, match=r"loss of top-1 accuracy in int8 .* 1 points"):
        export_classifier(path, precision="int8", calibration=black, test=images(50))
    assert path.read_bytes() == b"older"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision must be one of float32, bfloat16, int8, got 'int4'"),
        ({"precision": "int8", "max_accuracy_drop": 2}, "a share of the images, 0 to 1, got 2"),
        ({"precision": "int8", "test": []}, "test is for a classifier with preprocess"),
    ],
)
def test_wrong_settings_are_told(network, tmp_path, options, message):
    with pytest.raises(convship.ExportError, match=message):
        export(network, tmp_path / "m.pt", **options)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_narrowed_is_told(network, tmp_path):
    for model, message in (
        (nn.Sequential(nn.ReLU()), "needs a float32 Conv2d or Linear"),
        (nn.Conv2d(3, 4, 3).double(), "needs a float32 Conv2d or Linear"),
        (torch.jit.script(network), "needs the nn.Module, got a scripted module"),
    ):
        with pytest.raises(convship.ExportError, match=message):
            export(model, tmp_path / "m.pt", "int8")
    with pytest.raises(convship.ExportError, match="is for format 'pt'"):
        export(network, tmp_path / "m.pt2", "int8", format="pt2")


def test_export_of_a_run_by_command(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", "digits", "--epochs", "1", "--out", str(out)]) == 0
    for precision in NARROW:
        path = tmp_path / f"{precision}.pt"
        arguments = ["export", str(out), "--out", str(path), "--precision", precision]
        assert main([*arguments, "--max-accuracy-drop", "0.05"]) == 0
        assert f"{precision}; on 359 images top-1" in capsys.readouterr().out
        manifest = convship.inspect(path)
        assert manifest.precision_test is not None
        assert manifest.precision_test.agreement > 0.95
        shown = run("info", path, "--json")
        assert json.loads(shown.stdout)
