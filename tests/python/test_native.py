"""convship-run as people use it: real processes, real files, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from models_for_tests import LABELS, LiteralOp, LoopAndBranch, classifier, write_images
from native_for_tests import run
from torch import nn

import convship
from convship.models import LeNet5
from convship.verify import native_program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("native")


@pytest.fixture(scope="module")
def images(folder) -> list[Path]:
    (folder / "images").mkdir()
    return write_images(folder / "images")


@pytest.fixture(scope="module")
def model(folder, images) -> Path:
    network, preprocess = classifier()
    path = folder / "model.pt"
    convship.export_model(network, path, samples=images[:2], preprocess=preprocess, labels=LABELS)
    return path


def test_predict_prints_label_and_probability(model, images):
    result = run("predict", model, images[0], "--top-k", "2")
    assert result.returncode == 0, result.stderr
    best = convship.load(model).predict(images[0], top_k=2)
    expected = ", ".join(f"{p.label} {p.probability:.4f}" for p in best)
    assert result.stdout == f"{images[0]}: {expected}\n"


def test_predict_json_of_a_folder_equals_python(model, images):
    (images[0].parent / "notes.txt").write_text("no image")
    result = run("predict", model, images[0].parent, "--top-k", "5", "--json")
    assert result.returncode == 0, result.stderr
    loaded = convship.load(model)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["path"] for line in lines] == sorted(str(path) for path in images)
    for line in lines:
        assert line.keys() == {"path", "predictions"}
        expected = loaded.predict(line["path"], top_k=5)
        assert [p["label"] for p in line["predictions"]] == [p.label for p in expected]
        assert [p["index"] for p in line["predictions"]] == [p.index for p in expected]
        actual = np.array([p["probability"] for p in line["predictions"]])
        assert np.array_equal(actual, np.array([p.probability for p in expected]))
        assert actual.sum() == pytest.approx(1, abs=1e-6)


def test_no_python_and_one_openmp_in_the_process(model, images):
    result = run("predict", model, images[0], env={**os.environ, "LD_DEBUG": "files"})
    assert result.returncode == 0
    loaded = set(re.findall(r"calling init: (\S+)", result.stderr))
    names = [Path(path).name for path in loaded]
    assert any(name.startswith("libtorch_cpu") for name in names)
    # Linked with --as-needed; the op library is there because the runtime calls it.
    assert any(name.startswith("libconvship_ops") for name in names)
    assert not [name for name in names if "python" in name.lower()]
    assert len([name for name in names if "gomp" in name or "iomp" in name]) == 1


def test_selftest_proves_the_file_and_notices_changed_weights(model, folder):
    result = run("selftest", model, "--json")
    assert result.returncode == 0, result.stdout
    checks = json.loads(result.stdout)["checks"]
    stages = {check["stage"] for check in checks}
    assert stages == {"decode", "preprocess", "output logits", "probabilities"}

    changed = folder / "changed.pt"
    with_other_weights(model, changed)
    result = run("selftest", changed, "--json")
    assert result.returncode == 1
    failed = {c["stage"] for c in json.loads(result.stdout)["checks"] if not c["passed"]}
    assert failed == {"output logits", "probabilities"}


def with_other_weights(source: Path, target: Path) -> None:
    """Re-sign a copy with slightly other weights: what a faulty machine would compute."""
    import io

    from convship.bundle import GOLDENS, MANIFEST, with_digest

    extras = {MANIFEST: "", GOLDENS: ""}
    module = torch.jit.load(str(source), _extra_files=extras)
    with torch.no_grad():
        next(module.parameters()).mul_(1.01)
    buffer = io.BytesIO()
    torch.jit.save(module, buffer, _extra_files=extras)
    target.write_bytes(with_digest(buffer.getvalue()))


def test_info_tells_the_manifest_and_the_build(model):
    info = json.loads(run("info", model, "--json").stdout)
    assert info["manifest"] == json.loads(convship.inspect(model).model_dump_json())
    assert info["runtime"]["convship"] == convship.__version__
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert (info["sha256"], info["bytes"]) == (digest, model.stat().st_size)
    text = run("info", model).stdout
    assert f"sha256    {digest}, {model.stat().st_size} bytes" in text
    assert "input float32 [N, 3, 32, 32]" in text


def test_run_takes_and_gives_npy(folder):
    path = folder / "loop.pt"
    network = LoopAndBranch()
    x, steps = torch.rand(2, 4), torch.tensor(5)
    convship.export_model(network, path, samples=[(x, steps)])
    np.save(folder / "x.npy", x.numpy())
    np.save(folder / "steps.npy", steps.numpy())
    result = run(
        "run",
        path,
        f"x={folder / 'x.npy'}",
        f"steps={folder / 'steps.npy'}",
        "--output",
        folder / "out",
    )
    assert result.returncode == 0, result.stderr
    with torch.no_grad():
        expected = network(x, steps)["x"].numpy()
    assert np.allclose(np.load(folder / "out" / "x.npy"), expected, atol=1e-6)
    assert np.load(folder / "out" / "steps.npy") == 5


def test_literal_op_runs_without_python(folder):
    path = folder / "literal.pt"
    network = LiteralOp()
    x = torch.randn(2, 3, 9, 7)
    convship.export_model(network, path, samples=[x])
    np.save(folder / "lx.npy", x.numpy())
    result = run("run", path, f"x={folder / 'lx.npy'}", "--output", folder / "literal")
    assert result.returncode == 0, result.stderr
    assert np.array_equal(np.load(folder / "literal" / "output.npy"), network(x).detach().numpy())


def test_plain_file_needs_consent_and_then_runs(folder):
    path = folder / "plain.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 3)), path)
    np.save(folder / "two.npy", np.zeros((1, 2), np.float32))
    command = ("run", path, f"input={folder / 'two.npy'}", "--output", folder / "plain")
    assert_refused(run(*command), 3, "--plain")
    assert run(*command, "--plain").returncode == 0
    predict = run("predict", path, folder / "images", "--plain")
    assert_refused(predict, 2, "holds no preprocessing and labels")


def assert_refused(result: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert result.returncode == code, (result.returncode, result.stderr)
    assert message in result.stderr
    assert result.stderr.startswith("convship-run: ")
    assert len(result.stderr.splitlines()) == 1, "one line, no stack trace"


def test_what_is_no_model_is_refused(folder, images, model):
    files = {
        "missing.pt": ("no such model file", None),
        "empty.pt": ("empty", b""),
        "text.pt": ("not a convship model", b"hello, world, this is text"),
        "cut.pt": ("damaged or truncated", model.read_bytes()[:-100]),
    }
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 4
    files["flipped.pt"] = ("the file is damaged", bytes(content))
    for name, (message, content) in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
        assert_refused(run("predict", folder / name, images[0]), 3, message)
    torch.save(LeNet5().state_dict(), folder / "state.pt")
    assert_refused(run("info", folder / "state.pt"), 3, "checkpoint or state_dict")
    torch.save(LeNet5().state_dict(), folder / "old.pt", _use_new_zipfile_serialization=False)
    assert_refused(run("info", folder / "old.pt"), 3, "pickle")
    assert_refused(run("info", folder), 3, "regular file")


def test_what_is_no_image_is_refused_and_the_others_answered(folder, images, model):
    broken = folder / "broken"
    broken.mkdir()
    jpeg = next(path for path in images if path.suffix == ".jpg")
    (broken / "a_cut.jpg").write_bytes(jpeg.read_bytes()[:-200])
    (broken / "b_good.jpg").write_bytes(jpeg.read_bytes())
    (broken / "c_text.png").write_text("not an image")
    result = run("predict", model, broken, folder / "none.jpg", "--json")
    assert result.returncode == 4
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["predictions" in line for line in lines] == [False, True, False, False]
    assert "truncated" in lines[0]["error"]
    assert len(result.stderr.splitlines()) == 3
    (folder / "bare").mkdir()
    assert_refused(run("predict", model, folder / "bare"), 4, "no .jpg, .jpeg or .png")


def test_usage_errors(model, images):
    for arguments in [(), ("fly",), ("predict",), ("predict", model), ("info", model, "--fast")]:
        assert_refused(run(*arguments), 2, "--help")
    assert_refused(run("predict", model, images[0], "--top-k", "0"), 2, "top-k")
    assert run("--version").stdout == f"convship-run {convship.__version__}\n"
    assert run("predict", "--help").returncode == 0


def test_a_full_disk_at_the_output_is_an_error(model, images):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [native_program(), "predict", model, images[0]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 5
    assert "standard output" in result.stderr


class Talks(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        print("hello from the model")
        return {"a/b": self.linear(x), "a_b": x}


def test_what_a_model_prints_and_its_odd_names_do_not_mix_with_results(folder):
    path = folder / "talks.pt"
    x = torch.rand(1, 2)
    convship.export_model(Talks(), path, samples=[x])
    assert convship.verify_model(path).passed
    np.save(folder / "t.npy", x.numpy())
    result = run("run", path, f"x={folder / 't.npy'}", "--output", folder / "talks", "--json")
    assert result.stderr.count("hello") == 1  # loading calls what leaves no trace
    names = [each["name"] for each in json.loads(result.stdout)["outputs"]]
    assert names == ["a/b", "a_b"]
    assert len(list((folder / "talks").iterdir())) == 2


def test_an_image_that_preprocessing_refuses_does_not_cost_the_others(folder, images):
    from PIL import Image

    network, _ = classifier()
    preprocess = convship.Preprocess(32, resize=128, mean=[0.5] * 3, std=[0.25] * 3)
    path = folder / "crop.pt"
    convship.export_model(network, path, samples=images[:1], preprocess=preprocess, labels=LABELS)
    thin = folder / "thin.png"
    Image.new("RGB", (1, 16000)).save(thin)
    result = run("predict", path, thin, images[0])
    assert result.returncode == 4
    assert "too long and thin" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout.startswith(str(images[0]))
