"""Export: whatever can be scripted survives it, and nothing is half-written."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from models_for_tests import (
    LABELS,
    ListsAndTuples,
    LiteralOp,
    LoopAndBranch,
    classifier,
    write_images,
)
from torch import nn

import convship
from convship._torchvision import torchvision
from convship.models import LeNet5

BACKENDS = ["convship", "libtorch"]


def assert_same_answers(path: Path, images: list[Path] | None = None) -> None:
    for backend in BACKENDS:
        report = convship.verify_model(path, images or (), backend=backend)
        assert report.inputs > 0
        assert report.passed, report


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path)


def test_loop_and_branch_on_data_survive(tmp_path):
    samples = [(torch.rand(2, 4), torch.tensor(steps)) for steps in (0, 1, 3, 8)]
    manifest = convship.export_model(LoopAndBranch(), tmp_path / "m.pt", samples=samples)
    assert [spec.name for spec in manifest.inputs] == ["x", "steps"]
    assert [spec.name for spec in manifest.outputs] == ["x", "steps"]
    assert_same_answers(tmp_path / "m.pt")


def test_lists_tuples_and_dicts_come_out_flattened(tmp_path):
    samples = [{"a": torch.rand(2, 3), "b": torch.rand(2, 3)}]
    model = ListsAndTuples()
    manifest = convship.export_model(model, tmp_path / "m.pt", samples=samples)
    names = ["output_0.0", "output_0.1", "output_1.sum", "output_1.first", "output_2"]
    assert [spec.name for spec in manifest.outputs] == names
    assert_same_answers(tmp_path / "m.pt")
    outputs = convship.load(tmp_path / "m.pt").run(**samples[0])
    assert list(outputs) == names
    assert torch.allclose(outputs["output_1.sum"], model(**samples[0])[1]["sum"])


def test_classifier_from_files_bytes_and_tensors(tmp_path, images):
    network, preprocess = classifier()
    pixels = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    samples = [images[0], images[1].read_bytes(), pixels]
    path = tmp_path / "m.pt"
    manifest = convship.export_model(
        network, path, samples=samples, preprocess=preprocess, labels=LABELS
    )
    assert manifest.goldens == 3
    assert manifest.required_ops == []
    assert min(manifest.teeth.values()) > 1
    assert_same_answers(path, images)
    best = convship.load(path).predict(images[2], top_k=3)
    with torch.no_grad():
        logits = network(preprocess(convship.load(path).stages(images[2])["pixels"].unsqueeze(0)))
    expected = logits.softmax(1)[0].sort(descending=True)
    assert [p.index for p in best] == expected.indices[:3].tolist()
    assert [p.label for p in best] == [LABELS[p.index] for p in best]
    assert best[0].probability == pytest.approx(float(expected.values[0]), abs=1e-6)


def test_torchvision_network_with_its_own_preset(tmp_path, images):
    preset = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None)
    path = tmp_path / "resnet18.pt"
    convship.export_model(network, path, samples=images[:2], preprocess=preset)
    assert_same_answers(path, images[2:])


def test_network_that_returns_more_than_logits_once_scripted(tmp_path, images):
    """googlenet is a tuple in TorchScript and a tensor in Python."""
    network = torchvision.models.googlenet(weights=None, init_weights=False)
    preprocess = convship.Preprocess(64, mean=[0.5] * 3, std=[0.5] * 3)
    path = tmp_path / "m.pt"
    with pytest.warns(UserWarning, match="Scripted GoogleNet"):
        convship.export_model(network, path, samples=images[:1], preprocess=preprocess)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Scripted GoogleNet")
        assert_same_answers(path)


def test_literal_op_is_listed_and_runs_natively(tmp_path):
    model = LiteralOp()
    manifest = convship.export_model(model, tmp_path / "m.pt", samples=[torch.randn(1, 3, 8, 8)])
    assert manifest.required_ops == ["convship::conv_pool2d"]
    assert_same_answers(tmp_path / "m.pt")


def test_tracing_when_asked(tmp_path):
    class Untyped(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x) * eval("2")

    samples = [torch.rand(2, 3)]
    with pytest.raises(convship.ExportError, match=r"cannot be scripted: .*method='trace'"):
        convship.export_model(Untyped(), tmp_path / "m.pt", samples=samples)
    convship.export_model(Untyped(), tmp_path / "m.pt", samples=samples, method="trace")
    assert_same_answers(tmp_path / "m.pt")


def test_the_callers_model_is_left_as_it_was(tmp_path, images):
    network, preprocess = classifier()
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    convship.export_model(
        network, tmp_path / "m.pt", samples=images, preprocess=preprocess, labels=LABELS
    )
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_stock_torch_opens_the_file_where_convship_cannot_be_imported(tmp_path, images):
    network, preprocess = classifier()
    path = tmp_path / "m.pt"
    convship.export_model(network, path, samples=images, preprocess=preprocess, labels=LABELS)
    program = f"""
        import sys
        sys.modules["convship"] = None  # an import of it fails
        import torch
        model = torch.jit.load({str(path)!r})
        answer = model.predict(torch.zeros(2, 3, 50, 60, dtype=torch.uint8))
        assert answer.shape == (2, {len(LABELS)}), answer.shape
        assert torch.allclose(answer.sum(1), torch.ones(2))
        assert not hasattr(torch.ops.convship, "conv_pool2d")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(LABELS[:-1], "5 classes, got 4 labels"), ([*LABELS, "more"], "5 classes, got 6 labels")],
)
def test_labels_that_do_not_match_fails(tmp_path, images, labels, message):
    network, preprocess = classifier()
    with pytest.raises(convship.ExportError, match=message):
        convship.export_model(
            network, tmp_path / "m.pt", samples=images, preprocess=preprocess, labels=labels
        )
    assert not (tmp_path / "m.pt").exists()


def test_without_samples_fails(tmp_path):
    with pytest.raises(convship.ExportError, match="at least one input"):
        convship.export_model(nn.Linear(2, 2), tmp_path / "m.pt", samples=[])


def test_samples_that_reveal_nothing_fails(tmp_path):
    """A constant answer cannot prove that a machine computes the right thing."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return torch.relu(x * self.weight - 100) + 1

    with pytest.raises(convship.ExportError, match="do not reveal a fault"):
        convship.export_model(Constant(), tmp_path / "m.pt", samples=[torch.rand(2, 3)])


def test_answers_that_scripting_changes_fails(tmp_path):
    class TwoFaced(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.jit.is_scripting():
                return self.linear(x) + 1
            return self.linear(x)

    with pytest.raises(convship.ExportError, match="scripted, the model answers differently"):
        convship.export_model(TwoFaced(), tmp_path / "m.pt", samples=[torch.rand(2, 3)])


def test_missing_folder_and_full_disk_fails(tmp_path):
    samples = [torch.rand(2, 3)]
    with pytest.raises(FileNotFoundError, match="no such folder"):
        convship.export_model(nn.Linear(3, 2), tmp_path / "missing" / "m.pt", samples=samples)
    with pytest.raises(OSError, match="cannot be written: no space left"):
        convship.export_model(nn.Linear(3, 2), "/dev/full", samples=samples)
    assert not Path("/dev/full").is_file(), "the device itself was replaced"


def test_an_older_file_survives_a_full_disk(tmp_path):
    path = tmp_path / "m.pt"
    convship.export_model(nn.Linear(3, 2), path, samples=[torch.rand(2, 3)])
    before = path.read_bytes()
    program = f"""
        import resource, signal, torch, convship
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            convship.export_model(torch.nn.Linear(3, 2), {str(path)!r}, samples=[torch.rand(2, 3)])
        except OSError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "cannot be written" in result.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_manifest_is_read_without_executing_anything(tmp_path, monkeypatch, images):
    network, preprocess = classifier()
    path = tmp_path / "m.pt"
    convship.export_model(
        network,
        path,
        samples=images,
        preprocess=preprocess,
        labels=LABELS,
        training={"note": "by hand"},
    )
    for name in ("torch.jit.load", "torch.load", "pickle.loads"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("the file was executed"))
    manifest = convship.inspect(path)
    assert manifest.labels == LABELS
    assert manifest.training == {"note": "by hand"}


def test_inspect_names_what_is_no_model(tmp_path):
    checkpoint = tmp_path / "state.pt"
    torch.save(LeNet5().state_dict(), checkpoint)
    plain = tmp_path / "plain.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), plain)
    archive = tmp_path / "some.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    damaged = tmp_path / "damaged.pt"
    convship.export_model(nn.Linear(3, 2), damaged, samples=[torch.rand(2, 3)])
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    for path, message in [
        (checkpoint, "checkpoint or state_dict"),
        (plain, "plain TorchScript"),
        (archive, "ZIP archive but not a model"),
        (damaged, "the file is damaged"),
        (tmp_path / "none.pt", "no such model file"),
    ]:
        with pytest.raises(convship.ModelFileError, match=message):
            convship.inspect(path)
        with pytest.raises(convship.ModelFileError, match=message):
            convship.load(path)
    assert convship.load(plain, allow_plain=True).run(input=torch.zeros(1, 2))["output"].shape == (
        1,
        2,
    )


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + y


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([(torch.rand(2, 3),)], "samples give x, which the network does not take"),
        ([tuple(torch.rand(3, 2, 3))], r"takes 2 inputs \(x, y\), got 3"),
        ([{"x": torch.rand(2, 3), "z": torch.rand(2, 3)}], "with 'z'"),
        ([(torch.rand(2, 3), 1.0)], "'y' must be a tensor, got float"),
        (torch.rand(2, 3), "must be a list of inputs, got Tensor"),
        ("cat.png", "must be a list of inputs, got str"),
        ([(torch.rand(2, 3), torch.full((2, 3), torch.nan))], "is not finite"),
    ],
)
def test_samples_that_do_not_fit_fails(tmp_path, samples, message):
    with pytest.raises(convship.ExportError, match=message):
        convship.export_model(TwoInputs(), tmp_path / "m.pt", samples=samples)
    assert not list(tmp_path.iterdir())


def test_a_network_that_answers_by_chance_fails(tmp_path):
    class Chance(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) + torch.rand(3)

    with pytest.raises(convship.ExportError, match="changes from one run to the next"):
        convship.export_model(Chance(), tmp_path / "m.pt", samples=[torch.rand(2, 3)])


def test_scripted_and_narrow_models_are_shipped(tmp_path):
    scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)))
    convship.export_model(scripted, tmp_path / "s.pt", samples=[torch.rand(2, 3)])
    assert_same_answers(tmp_path / "s.pt")
    narrow = nn.Linear(64, 8).bfloat16()
    samples = [torch.randn(4, 64, dtype=torch.bfloat16)]
    manifest = convship.export_model(narrow, tmp_path / "b.pt", samples=samples)
    assert manifest.outputs[0].dtype == "bfloat16"
    assert_same_answers(tmp_path / "b.pt")


def test_a_network_with_preprocess_that_is_no_classifier_fails(tmp_path, images):
    class Segments(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.conv(x)}

    _, preprocess = classifier()
    with pytest.raises(convship.ExportError, match=r"must return logits \[N, classes\], got dict"):
        convship.export_model(Segments(), tmp_path / "m.pt", samples=images, preprocess=preprocess)
