"""convship profile: operators, native steps, and the trace that holds both."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from models_for_tests import LABELS, ListsAndTuples, classifier, write_images
from torch import nn

import convship
from convship.errors import ModelFileNotFoundError
from convship.profiling.profile import profile_model
from convship.profiling.report import as_text
from convship.profiling.torch_ops import OUTSIDE, record
from convship.profiling.trace import NATIVE_TRACK


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    network, preprocess = classifier()
    path = folder / "lenet.pt"
    convship.export_model(
        network, path, samples=write_images(folder, 1), preprocess=preprocess, labels=LABELS
    )
    return path


def complete_events(trace: dict, name: str) -> list[dict]:
    return [e for e in trace["traceEvents"] if e.get("ph") == "X" and e["name"] == name]


def test_own_times_add_up_to_the_call():
    """Nothing is counted twice, nothing is lost: PyTorch's trace says how long the call took."""
    weight = torch.rand(64, 64)
    found = record({"twice": lambda: weight @ weight @ weight}, calls=1)
    (call,) = complete_events(found.trace, "twice")
    assert sum(op.ms for op in found.ops["twice"]) == pytest.approx(call["dur"] / 1e3, rel=1e-3)
    assert found.call_ms["twice"] == pytest.approx(call["dur"] / 1e3, rel=1e-3)
    counts = {op.name: op.count for op in found.ops["twice"]}
    assert counts["aten::mm"] == 2
    assert counts[OUTSIDE] == 1


def test_shapes_tell_operators_apart(lenet):
    together = profile_model(lenet, calls=2).ops["torch.jit.load"]
    apart = profile_model(lenet, calls=2, shapes=True).ops["torch.jit.load"]
    assert [op.count for op in together if op.name == "aten::convolution"] == [2]
    shapes = {op.shapes for op in apart if op.name == "aten::convolution"}
    assert shapes == {"1x3x32x32, 6x3x5x5, 6", "1x6x14x14, 16x6x5x5, 16"}
    assert [op.ms for op in together] == sorted((op.ms for op in together), reverse=True)


def test_native_steps_are_those_of_the_same_inputs(lenet):
    report = profile_model(lenet, batch=3, calls=1)
    assert report.inputs == {"input": [3, 3, 32, 32]}
    plan = convship.load(lenet).plan(torch.rand(3, 3, 32, 32))
    assert [step.name for step in report.native.steps] == [name for name, _ in plan["steps"]]
    assert all(step.ms > 0 for step in report.native.steps)
    assert report.native.whole


def test_trace_holds_the_native_steps_as_their_own_track(lenet):
    report = profile_model(lenet, calls=4)
    trace = json.loads(report.trace_json())
    for name in ("torch.jit.load", "convship.load"):
        assert len(complete_events(trace, name)) == 4
    (label,) = (e for e in trace["traceEvents"] if e.get("args", {}).get("name") == NATIVE_TRACK)
    track = [e for e in trace["traceEvents"] if e.get("pid") == label["pid"] and e["ph"] == "X"]
    assert [e["name"] for e in track] == [step.name for step in report.native.steps]
    assert [e["dur"] for e in track] == [1e3 * step.ms for step in report.native.steps]
    assert track[0]["ts"] == min(e["ts"] for e in complete_events(trace, "convship.load"))
    for before, after in itertools.pairwise(track):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"])
    others = {e["pid"] for e in trace["traceEvents"] if e not in track and e["ph"] == "X"}
    assert label["pid"] not in others


def test_what_libtorch_keeps_is_named(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Softshrink(), nn.Conv2d(4, 4, 3))
    path = tmp_path / "net.pt"
    convship.export_model(network, path, samples=[torch.rand(1, 3, 16, 16)])
    report = profile_model(path, calls=1)
    assert not report.native.whole
    assert "aten::softshrink" in report.native.left_to_libtorch
    assert "LibTorch runs, without times here: aten::" in as_text(report)


def test_inputs_that_the_program_cannot_make_up_are_said(tmp_path):
    path = tmp_path / "net.pt"
    sample = {"a": torch.rand(2, 3), "b": torch.ones(2, 3, dtype=torch.int64)}
    convship.export_model(ListsAndTuples(), path, samples=[sample])
    report = profile_model(path, batch=2, calls=1)
    assert report.native is None
    assert "input 'b' must be float32" in report.left_out["native"]
    assert report.ops["convship.load"]


def test_threads_are_given_back(lenet):
    torch.set_num_threads(2)
    profile_model(lenet, threads=1, calls=1)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["batch", "threads", "calls"])
def test_numbers_below_one_fail(lenet, name):
    with pytest.raises(ValueError, match=f"profile: {name} must be at least 1, got 0"):
        profile_model(lenet, **{name: 0})


def test_missing_file_fails():
    with pytest.raises(ModelFileNotFoundError, match=r"none\.pt: no such model file"):
        profile_model("none.pt")


def test_command_line_prints_tables_and_writes_files(convship, lenet, tmp_path):
    arguments = ["--calls", 2, "--top", 3, "--json", "profile.json", "--trace", "trace.json"]
    result = convship("profile", lenet, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "torch.jit.load, " in result.stdout
    assert "linear, 1x84 to 1x5" in result.stdout
    written = json.loads((tmp_path / "profile.json").read_text())
    assert written["native"]["whole"] is True
    assert "trace" not in written
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
