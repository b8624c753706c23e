"""The .pt2 format: native code in the same bundle, with the same answers and the same checks."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch
from models_for_tests import LABELS, LoopAndBranch, write_images
from native_for_tests import run
from serve_for_tests import Server
from torch import nn
from torch.export.pt2_archive import PT2ArchiveWriter

import convship
from convship import _C
from convship.bundle import with_digest
from convship.cli import main
from convship.explain.classifier import open_classifier
from convship.profiling.profile import profile_model

LIBRARY = "data/aotinductor/model/model.wrapper.so"


class Colours(nn.Module):
    """Our layer, and one that export makes; their biases are short enough to be inlined."""

    def __init__(self) -> None:
        super().__init__()
        self.first = convship.ConvPool2d(3, 6, 5)
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.linear = nn.Linear(8 * 6 * 6, len(LABELS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(self.second(self.first(x)), 2)
        return self.linear(torch.flatten(x, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pt2")


@pytest.fixture(scope="module")
def images(folder) -> list[Path]:
    return write_images(folder)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Colours().eval()


def export(network: nn.Module, path: Path, images: list[Path], **options) -> convship.Manifest:
    return convship.export_model(
        network,
        path,
        samples=images[:2],
        preprocess=convship.Preprocess(32, mean=[0.5] * 3, std=[0.25] * 3),
        labels=LABELS,
        **options,
    )


@pytest.fixture(scope="module")
def script_file(folder, network, images) -> Path:
    path = folder / "model.pt"
    export(network, path, images)
    return path


@pytest.fixture(scope="module")
def package(folder, network, images) -> Path:
    path = folder / "model.pt2"
    export(network, path, images, format="pt2")
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, **changes: object) -> bytes:
    """The file with a good digest and some members changed; None leaves one out."""
    own = {".data/version", ".data/serialization_id", "byteorder"}  # the writer adds these
    changed = {
        k: v for k, v in {**members(path), **changes}.items() if k not in own and v is not None
    }
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, data in changed.items():
            writer.write_bytes(name, data)
    return with_digest(buffer.getvalue())


def with_manifest(path: Path, **values: object) -> bytes:
    manifest = {**json.loads(members(path)["extra/manifest.json"]), **values}
    return rewrite(path, **{"extra/manifest.json": json.dumps(manifest).encode()})


def test_same_answers_as_eager_and_the_pt_file(package, script_file, network, images):
    compiled, scripted = convship.load(package), convship.load(script_file)
    x = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        expected = network(x)
    for model in (compiled, convship.load(package, backend="libtorch"), scripted):
        for batch in (x, x[:1], x[:0]):
            answer = model.run(batch)["logits"]
            assert torch.allclose(answer, expected[: len(batch)], atol=1e-5)
    for image in images:
        stages, others = compiled.stages(image), scripted.stages(image)
        assert torch.equal(stages["preprocessed"], others["preprocessed"])
        assert torch.allclose(stages["probabilities"], others["probabilities"], atol=1e-6)
        assert compiled.predict(image)[0].label == scripted.predict(image)[0].label
    assert all(check.passed for check in compiled.selftest())
    assert compiled.manifest.required_ops == ["convship::conv_pool2d"]
    assert compiled.manifest.compiled_for.machine == "x86_64"


@pytest.mark.parametrize("backend", ["convship", "libtorch"])
def test_verify_finds_no_difference(package, images, backend):
    report = convship.verify_model(package, images, backend=backend)
    assert report.passed, report
    assert report.inputs == 2 + len(images)


def test_both_chains_became_the_op(package):
    """The one that was written with our layer, and the one of conv, batch norm, ReLU and pool."""
    nodes = json.loads(members(package)["data/aotinductor/model/model.wrapper.json"])["nodes"]
    assert [n["node"]["target"] for n in nodes] == ["convship::conv_pool2d"] * 2


def test_weights_are_packed_once_and_go_with_the_package(package):
    gc.collect()
    x = torch.rand(2, 3, 32, 32)
    made, kept = _C.packings()
    model = convship.load(package)
    model.run(x)
    after_first = _C.packings()
    assert after_first[0] > made
    assert after_first[1] > kept
    for batch in (x, x[:1], torch.rand(5, 3, 32, 32)):
        model.run(batch)
    assert _C.packings() == after_first
    del model
    assert _C.packings() == (after_first[0], kept)
    stock = convship.load(package, backend="libtorch")
    for _ in range(2):
        stock.run(x)  # packs in each call, as stock loaders do
    assert _C.packings()[0] >= after_first[0] + 4
    assert _C.packings()[1] == kept


def test_stock_loader_opens_the_file_with_the_op_library_loaded(package, network):
    x = torch.rand(3, 3, 32, 32)
    stock = torch._inductor.aoti_load_package(str(package))
    with torch.no_grad():
        assert torch.allclose(stock(x), network(x), atol=1e-5)


def test_native_program_runs_every_verb(package, images, tmp_path):
    environment = {"PATH": "/nonexistent", "TMPDIR": str(tmp_path)}  # nothing that could compile
    best = convship.load(package).predict(images[0])[0]
    predicted = run("predict", package, images[0], "--json", env=environment)
    assert predicted.returncode == 0, predicted.stderr
    found = json.loads(predicted.stdout)["predictions"][0]
    assert (found["label"], found["probability"]) == (
        best.label,
        pytest.approx(best.probability, abs=1e-7),
    )
    for verb, *arguments in (["selftest"], ["info", "--plan"], ["bench", "--seconds", "0.05"]):
        result = run(verb, package, *arguments, env=environment)
        assert result.returncode == 0, (verb, result.stderr)
    assert not list(tmp_path.iterdir())


def test_server_answers_as_the_model_does(package, images):
    best = convship.load(package).predict(images[0])[0]
    with Server(package) as server:
        name = package.stem
        assert server.get(f"/v2/models/{name}").json["platform"] == "convship_aotinductor"
        headers = {"Content-Type": "image/png"}
        found = server.post("/predict", images[0].read_bytes(), headers=headers).json["predictions"]
    assert found[0]["label"] == best.label
    assert found[0]["probability"] == pytest.approx(best.probability, abs=1e-7)


def test_temporary_folder_is_private_and_gone(package, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = convship.load(package)
    assert not list(tmp_path.iterdir())
    assert model.run(torch.rand(1, 3, 32, 32))["logits"].shape == (1, 5)
    broken = rewrite(package, **{LIBRARY: b"no library"})
    with pytest.raises(convship.ModelFileError, match="cannot load the network"):
        _C.Model.from_bytes(broken)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="set TMPDIR"):
        convship.load(package)


def test_temporary_folder_has_mode_0700(package, tmp_path):
    """As the kernel saw it, for it exists for milliseconds only."""
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=mkdir,openat,unlink,rmdir", "-o", trace]
    selftest = [convship.verify.native_program(), "selftest", package]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([*command, *selftest], check=True, capture_output=True, env=environment)
    lines = [line for line in trace.read_text().splitlines() if "/convship-" in line]
    assert any("mkdir(" in line and line.endswith("0700) = 0") for line in lines), lines
    written = [line for line in lines if "O_CREAT" in line]
    assert len(written) == 2  # the library and the operators, nothing else of the archive
    assert all("O_EXCL" in line and "0600" in line for line in written)


def test_a_machine_that_lacks_an_instruction_set_is_told_so(package):
    cpu = {"machine": "x86_64", "features": ["avx2", "made_up"]}
    with pytest.raises(OSError, match="CPUs with made_up, which this one lacks; export it for"):
        _C.Model.from_bytes(with_manifest(package, compiled_for=cpu))
    cpu = {"machine": "riscv64", "features": []}
    with pytest.raises(OSError, match="compiled for riscv64 CPUs, this one is x86_64"):
        _C.Model.from_bytes(with_manifest(package, compiled_for=cpu))
    with pytest.raises(convship.ModelFileError, match="does not say which CPU"):
        _C.Model.from_bytes(with_manifest(package, compiled_for=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data/aotinductor/model/more.so": b"x"}, "more.so' is not one of a model of format .pt2"),
        (
            {"data/aotinductor/model/model.wrapper.cpp": b"x"},
            "is not one of a model of format .pt2",
        ),
        ({"data/aotinductor/other/model.wrapper.so": b"x"}, "is not one of a model of format .pt2"),
        ({"data/constants/custom_obj_0": b"x"}, "is not one of a model of format .pt2"),
        ({"data/aotinductor/model/../../x": b"x"}, "is not one of a model"),
        ({LIBRARY: None}, "the compiled network is missing"),
        ({"extra/manifest.json": None}, "the manifest is missing"),
        ({"convship/preprocess.pt": b"x"}, "its preprocessing"),
        ({"convship/preprocess.pt": None}, "holds no preprocessing"),
    ],
)
def test_members_that_are_not_expected_fail(package, tmp_path, monkeypatch, changes, message):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(convship.ModelFileError, match=message):
        _C.Model.from_bytes(rewrite(package, **changes))
    assert not list(tmp_path.iterdir())


def test_nothing_is_extracted_from_a_damaged_or_plain_file(package, folder, tmp_path, monkeypatch):
    """No temporary folder can be made: whoever tries fails otherwise than is expected here."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    good = package.read_bytes()
    for at in range(0, len(good), len(good) // 97):
        bad = bytearray(good)
        bad[at] ^= 4
        with pytest.raises(convship.ModelFileError):
            _C.Model.from_bytes(bytes(bad))
    with pytest.raises(convship.ModelFileError, match="lost its digest"):
        _C.Model.from_bytes(good[: -(17 + 64) - 2] + b"\0\0", allow_plain=True)
    plain = members(package)
    del plain["extra/manifest.json"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in plain.items():
            archive.writestr(f"model/{name}", data)
    with pytest.raises(convship.ModelFileError, match=r"native code .* never loaded"):
        _C.Model.from_bytes(buffer.getvalue(), allow_plain=True)


def test_signed_package(package, folder, tmp_path, monkeypatch):
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    for arguments in (
        ["genpkey", "-algorithm", "ed25519", "-out", private],
        ["pkey", "-in", private, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    signed = tmp_path / "signed.pt2"
    convship.sign(package, private, out=signed)
    x = torch.rand(1, 3, 32, 32)
    answer = convship.load(signed, public_key=public).run(x)["logits"]
    assert torch.equal(answer, convship.load(package).run(x)["logits"])
    stock = torch._inductor.aoti_load_package(str(signed))
    assert torch.allclose(stock(x), answer, atol=1e-5)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(convship.ModelFileError, match="not signed"):
        convship.load(package, public_key=public)


def test_wrong_sizes_and_dtypes_are_refused_before_the_code_sees_them(package):
    model = convship.load(package)
    for wrong in (
        torch.rand(1, 3, 32, 31),
        torch.rand(1, 4, 32, 32),
        torch.rand(3, 32, 32),
        torch.rand(1, 3, 32, 32).double(),
    ):
        with pytest.raises(ValueError, match=r"takes 'input' as float32 \[N, 3, 32, 32\] only"):
            model.run(wrong)
    strided = torch.rand(32, 32, 3, 2).permute(3, 2, 0, 1)
    answer = model.run(strided)["logits"]
    assert torch.equal(answer, model.run(strided.contiguous())["logits"])


def test_many_threads_and_loads_at_once(package):
    program = f"""
        import threading, torch, convship
        x = torch.rand(4, 3, 32, 32)
        expected = convship.load({str(package)!r}).run(x)["logits"]
        same = []
        def work():
            model = convship.load({str(package)!r})
            same.extend(torch.equal(model.run(x)["logits"], expected) for _ in range(50))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(same) == 200 and all(same), sum(same)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_profile_tells_the_op_in_both_loaders(package):
    ops = profile_model(package, calls=2).ops
    assert set(ops) == {"aoti_load_package", "convship.load"}
    for found in ops.values():
        assert "convship::conv_pool2d" in {op.name for op in found}


def test_explain_asks_for_the_pt_file(package):
    with pytest.raises(ValueError, match=r"is compiled, and native code has no gradient"):
        open_classifier(package)


def test_inspect_and_command_line(package, script_file, capsys):
    assert convship.inspect(script_file).compiled_for is None
    assert main(["inspect", str(package)]) == 0
    assert "native code for x86_64 with " in capsys.readouterr().out


def test_general_network_with_named_outputs(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sum": self.linear(x) + y, "more": x > y}

    samples = [(torch.rand(2, 3), torch.rand(2, 3)) for _ in range(2)]
    manifest = convship.export_model(Two(), tmp_path / "m.pt2", samples=samples, format="pt2")
    assert [spec.name for spec in manifest.outputs] == ["sum", "more"]
    assert convship.verify_model(tmp_path / "m.pt2").passed
    with pytest.raises(ValueError, match=r"takes 'x' as float32 \[2, 3\] only"):
        convship.load(tmp_path / "m.pt2").run(torch.rand(3, 3), torch.rand(3, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onnx"}, "format must be 'pt' or 'pt2', got 'onnx'"),
        ({"format": "pt2", "cpu": "z80"}, "cpu must be one of x86-64-v3, x86-64-v4, got 'z80'"),
        ({"format": "pt2", "method": "trace"}, "method is for format 'pt'"),
        ({"cpu": "x86-64-v3"}, "cpu is for format 'pt2'"),
    ],
)
def test_options_that_do_not_fit_fail(tmp_path, options, message):
    with pytest.raises(convship.ExportError, match=message):
        convship.export_model(
            nn.Linear(3, 2), tmp_path / "m.pt2", samples=[torch.rand(1, 3)], **options
        )


def test_what_cannot_be_compiled_fails(tmp_path):
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x * 2

    steps = [(torch.rand(2, 4), torch.tensor(1))]
    alike = [torch.rand(1, 3), torch.rand(2, 3)]
    for model, samples, name, message in (
        (LoopAndBranch(), steps, "m.pt2", "cannot be compiled: .*format='pt'"),
        (torch.jit.script(nn.Linear(3, 2)), alike, "m.pt2", "a scripted module cannot be compiled"),
        (nn.Linear(3, 2), alike, "m.pt2", r"one size, got .*\[1, 3\] and, of sample 1, .*\[2, 3\]"),
        (Counts(), alike[:1], "m.pt2", "writes to its buffers .*calls"),
        (nn.Linear(3, 2), alike[:1], "m.pt", "must end in .pt2, got 'm.pt'"),
    ):
        with pytest.raises(convship.ExportError, match=message):
            convship.export_model(model, tmp_path / name, samples=samples, format="pt2")
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_export_says_so_in_one_line(tmp_path):
    # Not monkeypatch: it "deletes" the setting at the end, for every later test of the process.
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(convship.ExportError, match=r"needs a C\+\+ compiler.*install g\+\+") as info,
    ):
        convship.export_model(
            nn.Linear(3, 2), tmp_path / "m.pt2", samples=[torch.rand(1, 3)], format="pt2"
        )
    assert "\n" not in str(info.value)
