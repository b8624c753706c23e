"""The ladder: answers first, then percentiles and ratios of known times, and whole runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from convship.bench import fairness
from convship.bench.answers import Answers
from convship.bench.client import WorkerError
from convship.bench.environment import choose_cpus
from convship.bench.ladder import RungRow, bench_model
from convship.bench.ladder_picture import (
    batches_figure,
    draw_ladder,
    rounds_figure,
    stages_figure,
)
from convship.bench.ladder_report import make_ladder_report
from convship.bench.ladder_table import ladder_as_text
from convship.bench.native_worker import NativeWorker
from convship.bench.network import open_network, parse_size
from convship.bench.network_case import NetworkCase
from convship.bench.page import as_page
from convship.bench.rungs import RUNGS, RungSpec, choose_rungs
from convship.bench.settings import Settings
from convship.bench.stages import of_turn
from convship.cli import main
from convship.export import export_model
from convship.model import load
from convship.models import LeNet5
from convship.preprocess import Preprocess
from convship.verify import native_program

RELEASE = {"build": {"build_type": "Release"}}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A classifier with preprocessing, as one file."""
    path = tmp_path_factory.mktemp("shipped") / "lenet5.pt"
    torch.manual_seed(0)
    samples = [torch.randint(0, 256, (3, 40, 48), dtype=torch.uint8) for _ in range(2)]
    preprocess = Preprocess(32, mean=[0.5] * 3, std=[0.25] * 3)
    export_model(LeNet5(in_channels=3), path, samples=samples, preprocess=preprocess)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A TorchScript file of somebody else."""
    path = tmp_path_factory.mktemp("plain") / "net.pt"
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
    torch.jit.script(network.eval()).save(str(path))
    return path


@pytest.fixture
def run_native():
    """Run convship-run; return its output and exit code."""

    def run(*arguments):
        command = [str(native_program()), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture
def workers_find_tests(monkeypatch):
    """Let worker processes import rungs_for_tests."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def rung(name, factory="Known", kind="ours", environment=None, **options):
    return RungSpec(
        name, kind, f"rungs_for_tests:{factory}", options, environment=environment or {}
    )


def case_of(path, folder, batch=1):
    network = open_network(path, folder, allow_plain=True, size=(3, 6, 6))
    return network.case(batch, folder)


# Rungs


def test_rungs_are_the_ladder_of_the_issue():
    kinds = {rung.name: rung.kind for rung in RUNGS}
    assert len(kinds) == len(RUNGS)
    assert [name for name, kind in kinds.items() if kind == "ours"] == [
        "python convship",
        "native direct",
        "native fast",
    ]
    assert {"python eager", "python compile", "python torchscript", "native libtorch"} <= set(kinds)
    accuracies = [r.environment["CONVSHIP_ACCURACY"] for r in RUNGS if r.name.startswith("native ")]
    assert accuracies == ["fast", "direct", "fast"]


def test_missing_things_are_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    def missing():
        raise FileNotFoundError("convship-run is not installed")

    monkeypatch.setattr("convship.verify.native_program", missing)
    chosen, left_out = choose_rungs(None, has_module=False)
    assert [spec.name for spec in chosen if spec.native or spec.onnx or spec.module] == []
    assert left_out["native fast"] == "convship-run is not installed"
    assert left_out["openvino"].endswith("pip install 'convship[bench]'")
    assert "python torchscript comes closest" in left_out["python eager"]
    with pytest.raises(ValueError, match="unknown engine 'x'; known: python, python eager"):
        choose_rungs(["x"], has_module=False)


def test_peers_do_not_load_torch():
    # It would count as their memory.
    code = (
        "import sys, convship.bench.worker, convship.bench.rungs, "
        "convship.bench.onnxruntime_engine, convship.bench.openvino_engine; "
        "sys.exit('torch' in sys.modules)"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


# What is measured


def test_goldens_are_the_input_again_and_again(shipped, tmp_path):
    network = open_network(shipped, tmp_path)
    (images,) = network.case(5, tmp_path).arrays()
    assert images.shape == (5, 3, 32, 32)
    assert np.array_equal(images[0], images[2])
    assert np.array_equal(images[1], images[3])
    assert not np.array_equal(images[0], images[1])
    assert Path(network.image).read_bytes().startswith(b"\x89PNG")


def test_size_and_image_replace_what_the_file_says(shipped, tmp_path):
    image = tmp_path / "other.png"
    image.write_bytes(b"x")
    network = open_network(shipped, tmp_path, size=(48, 40), image=image)
    case = network.case(2, tmp_path)
    assert case.arrays()[0].shape == (2, 3, 48, 40)
    assert case.image == str(image)


def test_plain_file_needs_a_size_and_leave(plain, tmp_path, capsys):
    with pytest.raises(ValueError, match="does not say what it takes; give --size"):
        open_network(plain, tmp_path, allow_plain=True)
    with pytest.raises(ValueError, match="takes no images, so --image has no use"):
        open_network(plain, tmp_path, allow_plain=True, size=(3, 6, 6), image="a.png")
    assert main(["bench", str(plain)]) == 3
    assert "plain TorchScript file" in capsys.readouterr().err


def test_name_gives_the_same_network_each_time(tmp_path):
    files = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        network = open_network("lenet5", folder)
        assert network.plain
        files.append(torch.jit.load(str(network.file)))
    one, other = (dict(module.named_parameters()) for module in files)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_name_with_an_image_is_shipped_with_preprocessing(shipped, tmp_path):
    image = Path(open_network(shipped, tmp_path).image)
    network = open_network("cifarnet", tmp_path, image=image)
    assert not network.plain
    case = network.case(2, tmp_path)
    assert (case.image, bool(case.module)) == (str(image), True)
    pixels = load(network.file).stages(image)["preprocessed"]
    assert np.array_equal(case.arrays()[0][1:], pixels)


@pytest.mark.parametrize("text", ["", "0", "3x", "axb", "1x2x3x4", "-3"])
def test_wrong_size_fails(text):
    with pytest.raises(ValueError, match="size must be pixels as 224, 240x320 or 3x240x320"):
        parse_size(text)


# Answers


def test_float32_in_any_order_is_right_and_bfloat16_is_not(plain, tmp_path):
    case = case_of(plain, tmp_path, batch=3)
    answers = Answers(case)
    assert answers.exact
    module = torch.jit.load(case.model)
    image = torch.from_numpy(case.arrays()[0])
    with torch.inference_mode():
        right = module(image.contiguous(memory_format=torch.channels_last)).numpy()
        coarse = module.to(torch.bfloat16)(image.bfloat16()).float().numpy()
    assert answers.objection([right]) == ""
    assert answers.error([right]) < 1e-6
    assert answers.objection([coarse]).startswith("output 0 is off by")
    assert answers.objection([right[:1]]) == "output 0 has shape [1, 128], not [3, 128]"
    assert answers.objection([right, right]) == "gives 2 outputs, the network has 1"
    assert "off by inf" in answers.objection([right * np.float32("nan")])


def test_network_that_insists_on_float32_is_its_own_reference(tmp_path):
    path = tmp_path / "net.pt"
    np.save(tmp_path / "x.npy", np.ones((1, 2), np.float32))
    torch.jit.script(_InsistsOnFloat32()).save(str(path))
    case = NetworkCase("batch 1", 1, str(path), True, (("x", str(tmp_path / "x.npy")),))
    answers = Answers(case)
    assert not answers.exact
    right = np.full((1, 3), 2.0, np.float32)
    assert answers.objection([right]) == ""
    assert answers.objection([right * np.float32(1.0005)]) == ""
    assert answers.objection([right * np.float32(1.01)]) != ""


class _InsistsOnFloat32(torch.nn.Module):
    def forward(self, x):
        return torch.mm(x, torch.ones(2, 3, dtype=torch.float32))


# Statistics


def report_of(rows, specs, **more):
    arguments = {
        "title": "net",
        "settings": {"input": {"x": [3]}, "rounds": 2, "slot_ms": 1.0},
        "environment": RELEASE,
        "left_out": {},
        "flop_seconds": [],
    }
    return make_ladder_report(rows, specs, **(arguments | more))


def test_percentiles_and_rate_are_over_all_calls():
    calls = [[1e-6 * value for value in range(1, 51)], [1e-6 * value for value in range(51, 102)]]
    report = report_of([RungRow("a", 4, 2, calls=calls)], [RungSpec("a", "stock", "")])
    (row,) = report.results
    assert (row["batch"], row["threads"], row["calls"]) == (4, 2, 101)
    assert row["p50_us"] == pytest.approx(51)
    assert row["p90_us"] == pytest.approx(91)
    assert row["p99_us"] == pytest.approx(100)
    assert row["images_per_s"] == pytest.approx(4 / 51e-6)
    assert row["round_us"] == pytest.approx([25.5, 76])


def test_ratios_are_of_the_same_round():
    # Twice as slow in the second round, all of them: no ratio changes.
    times = {"bottom": 8.0, "stock": 4.0, "peer": 1.0, "other peer": 2.0, "ours": 2.0}
    kinds = {"bottom": "stock", "stock": "stock", "ours": "ours"}
    rows = [RungRow(name, 1, 1, calls=[[t, t], [2 * t]]) for name, t in times.items()]
    report = report_of(rows, [RungSpec(name, kinds.get(name, "peer"), "") for name in times])
    found = {ratio.against: ratio for ratio in report.ratios[1, 1]}
    assert {name: ratio.peer for name, ratio in found.items()} == {
        "first rung": "bottom",
        "best stock": "stock",
        "best peer": "peer",
    }
    assert found["first rung"].rounds == [4, 4]
    assert found["best peer"].interval.value == 0.5
    assert found["best stock"].interval.coverage == 0.5  # two rounds are not sure of much


def test_what_a_rung_cannot_time_is_the_rest_of_its_turn():
    network = [6e-6]
    pixels = of_turn({"from_pixels": [7e-6], "end_to_end": [10e-6] * 3}, network)
    decode = of_turn({"decode": [2e-6], "end_to_end": [10e-6]}, network)
    assert of_turn({}, network) == {}
    # Three turns on a machine that is slow for one of them.
    rows = [
        RungRow(name, 1, 1, calls=[network], stages={k: [v, 3 * v, v] for k, v in turn.items()})
        for name, turn in (("a", pixels), ("b", decode))
    ]
    report = report_of(rows, [RungSpec(name, "ours", "") for name in "ab"])
    one, other = (row["stages_us"] for row in report.results)
    assert one == pytest.approx({"end_to_end": 10, "decode": 3, "preprocess": 1, "network": 6})
    assert other == pytest.approx({"end_to_end": 10, "decode": 2, "preprocess": 2, "network": 6})


def test_unfair_comparisons_are_told():
    rows = [RungRow("a", 1, 1, facts={"threads": 2, "grad": True}, calls=[[1.0]], waited=[0.5])]
    report = report_of(
        rows,
        [RungSpec("a", "ours", "")],
        environment={"build": {"build_type": "Debug"}},
        flop_seconds=[1.0, 2.0] * 5,
    )
    debug, threads, grad, busy, noisy = report.warnings
    assert debug.startswith("debug build: convship was built as Debug")
    assert threads.startswith("thread mismatch: a runs with 2 threads, asked for were 1")
    assert grad.startswith("gradients on: a")
    assert busy.startswith("busy machine: other programs had the cores 50 %")
    assert noisy.startswith("noisy machine: what never changes varied by 100 %")
    assert fairness.facts_warnings("a", {"threads": 1, "grad": False}, 1) == []


# Whole runs


@pytest.mark.usefixtures("workers_find_tests")
def test_only_right_answers_are_measured(plain, tmp_path):
    ladder = [
        rung("bottom", kind="stock", seconds=[4e-3, 4e-3]),
        rung("coarse", "HalfPrecision", kind="peer", seconds=[1e-9]),
        rung("swapped", "Swapped", kind="peer", seconds=[1e-9]),
        rung("silent", "Silent", kind="peer", seconds=[1e-9]),
        rung("not a number", "NotANumber", kind="peer", seconds=[1e-9]),
        rung("dies", "Dies", kind="peer"),
        rung("peer", kind="peer", seconds=[3e-3, 1e-3, 2e-3]),
        rung("ours", seconds=[1e-3], facts={"threads": 1, "grad": False}),
    ]
    report = bench_model(
        plain, rungs=ladder, allow_plain=True, size=(3, 6, 6), batches=[8], rounds=3, slot_ms=1
    )
    assert [(row["batch"], row["rung"]) for row in report.results] == [
        (8, spec.name) for spec in ladder
    ]
    rows = {row["rung"]: row for row in report.results}
    assert rows["coarse"]["problem"].startswith("output 0 is off by")
    assert "has shape" in rows["swapped"]["problem"]
    assert rows["silent"]["problem"] == "gives 0 outputs, the network has 1"
    assert "off by inf" in rows["not a number"]["problem"]
    assert rows["dies"]["problem"].startswith("its process ended with code 7")
    unbelieved = ("coarse", "swapped", "silent", "not a number", "dies")
    assert not any("p50_us" in rows[name] for name in unbelieved)
    assert rows["peer"]["p50_us"] == pytest.approx(2000)
    assert rows["ours"]["load_us"] == pytest.approx(0.25e6)
    assert rows["ours"]["first_us"] == pytest.approx(0.125e6)
    assert rows["ours"]["peak_mib"] > 10
    found = {ratio.against: ratio for ratio in report.ratios[8, 1]}
    assert found["best peer"].peer == "peer"
    assert found["best peer"].interval.value == pytest.approx(2)
    assert found["first rung"].interval.value == pytest.approx(4)
    assert report.ours_is_right
    text = ladder_as_text(report)
    assert "coarse: output 0 is off by" in text
    assert re.search(r"bottom +4000 ", text)
    content = json.loads(report.to_json())
    assert content["results"][4]["error"] == "infinite"
    draw_ladder(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "output 0 is off by" in as_page(report)
    assert len(rounds_figure(report).axes) == 1


@pytest.mark.usefixtures("workers_find_tests")
def test_wrong_answer_of_ours_is_a_failure(plain):
    ladder = [rung("coarse", "HalfPrecision", seconds=[1e-9])]
    report = bench_model(plain, rungs=ladder, allow_plain=True, size=(3, 6, 6), rounds=1, slot_ms=1)
    assert not report.ours_is_right
    assert report.ratios == {(1, 1): []}
    assert "wrong" in ladder_as_text(report)


@pytest.mark.usefixtures("workers_find_tests")
def test_rung_has_its_own_environment(plain):
    ladder = [
        rung(name, "SaysItsEnvironment", environment={"RUNG_FOR_TESTS": name}) for name in "12"
    ]
    report = bench_model(plain, rungs=ladder, allow_plain=True, size=(3, 6, 6), rounds=1, slot_ms=1)
    (warning,) = [line for line in report.warnings if "mismatch" in line]
    assert warning.startswith("thread mismatch: 2 runs with 2 threads, asked for were 1")


def test_command_measures_compares_and_writes(convship, shipped, tmp_path):
    files = {name: tmp_path / f"a.{name}" for name in ("json", "png", "html")}
    result = convship(
        *("bench", shipped, "--batch", "1,3", "--rounds", 2, "--slot-ms", 5),
        *("--engines", "python torchscript,convship,native"),
        *("--json", files["json"], "--plot", files["png"], "--html", files["html"]),
    )
    assert result.returncode == 0, result.stderr
    assert "Batch 3, threads 1: microseconds per call" in result.stdout
    found = json.loads(files["json"].read_text())
    assert {"cpu", "isa", "threads", "versions", "build", "load_before"} <= set(
        found["environment"]
    )
    assert found["settings"]["input"] == {"input": [3, 32, 32]}
    names = ["python torchscript", "native libtorch", "python convship"]
    names += ["native direct", "native fast"]
    assert [(row["batch"], row["rung"]) for row in found["results"]] == [
        (batch, name) for batch in (1, 3) for name in names
    ]
    for row in found["results"]:
        assert row["problem"] == ""
        assert row["error"] < 1e-5
        assert row["threads"] == 1
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"]
        assert row["images_per_s"] > 0
        assert row["load_us"] > 0
        assert row["first_us"] > 0
        assert row["peak_mib"] > 10
        assert len(row["round_us"]) == 2
        # From bytes to class is for one image.
        assert ("stages_us" in row) == (row["batch"] == 1)
    for row in found["results"][:5]:
        stages = row["stages_us"]
        assert all(us >= 0 for us in stages.values())
        assert stages["end_to_end"] > 0
        assert set(stages) == {"decode", "preprocess", "network", "end_to_end"}
    assert {(r["batch"], r["ours"], r["against"]) for r in found["ratios"]} == {
        (batch, ours, against)
        for batch in (1, 3)
        for ours in ("python convship", "native direct", "native fast")
        for against in ("first rung", "best stock")
    }
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    page = files["html"].read_text()
    assert page.count("<svg") == 4
    assert all(name in page for name in names)
    # Nothing is fetched: no scripts, no addresses but the names of XML's vocabularies.
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)", page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_nn_module_is_measured_where_there_is_one(tmp_path):
    report = bench_model("lenet5", rungs=["python eager"], rounds=1, slot_ms=1)
    # LeNet5 is made of our layers: faster than torch, but not by torch.
    assert [(row["rung"], row["kind"]) for row in report.results] == [("python eager", "ours")]
    assert report.results[0]["problem"] == ""
    assert stages_figure(report) is None
    assert batches_figure(report) is None


@pytest.mark.parametrize("peer", ["onnxruntime", "openvino"])
def test_peer_runs_where_it_is_installed(peer, shipped):
    (spec,) = (spec for spec in RUNGS if spec.name == peer)
    if reason := spec.obstacle(Settings()):
        pytest.skip(reason)
    report = bench_model(shipped, rungs=[peer], batches=[2], rounds=1, slot_ms=1)
    (row,) = report.results
    assert row["problem"] == ""
    assert row["error"] < 1e-5


def test_network_that_onnx_cannot_say_is_told_and_nothing_is_printed(tmp_path, capfd):
    pytest.importorskip("onnx")
    from convship.bench.onnx_export import export_onnx

    np.save(tmp_path / "x.npy", np.ones((1, 2), np.float32))
    torch.jit.script(_ReturnsADictionary()).save(str(tmp_path / "net.pt"))
    inputs = (("x", str(tmp_path / "x.npy")),)
    case = NetworkCase("batch 1", 1, str(tmp_path / "net.pt"), True, inputs)
    problem = export_onnx(case, tmp_path / "net.onnx")
    assert problem.startswith("cannot be exported to ONNX: ")
    assert not (tmp_path / "net.onnx").exists()
    assert capfd.readouterr() == ("", "")


def test_onnx_is_made_from_the_module_where_there_is_one(tmp_path):
    # A scripted googlenet has optional results, which other engines do not take.
    onnx = pytest.importorskip("onnx")
    from convship.bench.onnx_export import export_onnx

    np.save(tmp_path / "x.npy", np.ones((1, 2), np.float32))
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / "net.pt"))
    torch.save(torch.nn.Linear(2, 5), tmp_path / "module")
    inputs = (("x", str(tmp_path / "x.npy")),)
    module = str(tmp_path / "module")
    case = NetworkCase("batch 1", 1, str(tmp_path / "net.pt"), True, inputs, module=module)
    assert export_onnx(case, tmp_path / "net.onnx") == ""
    (output,) = onnx.load(tmp_path / "net.onnx").graph.output
    assert output.type.tensor_type.shape.dim[1].dim_value == 5


class _ReturnsADictionary(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": x, "b": x + 1}


def test_wrong_arguments_fail(shipped, capsys):
    wrong = {
        ("--batch", "0"): "batch must be positive numbers, each once, got [0]",
        ("--batch", "1,1"): "batch must be positive numbers, each once, got [1, 1]",
        ("--batch", "x"): "batch must be numbers with commas, got 'x'",
        ("--threads", "4096"): "threads must be at most",
        ("--engines", "x"): "unknown engine 'x'; known: python, python eager",
        ("--size", "3x"): "size must be pixels",
        ("--slot-ms", "0"): "rounds and slot_ms must be positive",
    }
    for options, message in wrong.items():
        assert main(["bench", str(shipped), *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("convship: bench: ")
        assert message in err
    assert main(["bench", "missing.pt"]) == 3


# The native program


@pytest.fixture
def native(shipped, tmp_path):
    spec = next(spec for spec in RUNGS if spec.name == "native fast")
    worker = NativeWorker(spec, Settings(), choose_cpus(1))
    yield worker, open_network(shipped, tmp_path).case(2, tmp_path)
    worker.close()


def is_stopped(worker):
    """A signal takes a moment."""
    for _ in range(200):
        text = Path(f"/proc/{worker._process.pid}/stat").read_text()
        if text.rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.01)
    return False


def test_native_worker_answers_and_rests(native):
    worker, case = native
    (output,) = worker.prepare(case).values()
    assert Answers(case).objection([output]) == ""
    assert is_stopped(worker)  # stopped: it disturbs nobody
    assert os.sched_getaffinity(worker._process.pid) == set(choose_cpus(1))
    facts = worker.facts(case.name)
    assert facts["threads"] == 1
    assert facts["load_s"] > 0
    times, waited = worker.calls(case.name, 0.01)
    assert len(times) > 1
    assert 0 <= waited < 1
    assert sum(times) >= 0.01  # as long as asked, or longer on a busy machine
    assert set(worker.stages(case.name, 0.001)) == {"from_pixels", "end_to_end"}
    assert is_stopped(worker)


def test_native_worker_that_ends_is_told(native):
    worker, case = native
    worker.prepare(case)
    worker._process.kill()
    with pytest.raises(WorkerError, match="its process ended with code -9"):
        worker.calls(case.name, 0.01)


def test_native_worker_tells_what_is_wrong_with_a_file(tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 and nothing")
    spec = next(spec for spec in RUNGS if spec.name == "native direct")
    worker = NativeWorker(spec, Settings(), choose_cpus(1))
    with pytest.raises(WorkerError, match=r"bad\.pt: "):
        worker.prepare(NetworkCase("batch 1", 1, str(tmp_path / "bad.pt"), False, ()))
    worker.close()


@pytest.mark.parametrize("accuracy", ["direct", "fast"])
def test_native_process_has_its_accuracy(accuracy, tmp_path, monkeypatch):
    program = tmp_path / "convship-run"
    program.write_text(
        f"#!{sys.executable}\nimport json, os\n"
        "print(json.dumps({'error': os.environ['CONVSHIP_ACCURACY']}), flush=True)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("convship.bench.native_worker.native_program", lambda: program)
    spec = next(spec for spec in RUNGS if spec.name == f"native {accuracy}")
    worker = NativeWorker(spec, Settings(), choose_cpus(1))
    with pytest.raises(WorkerError, match=f"^{accuracy}$"):
        worker.prepare(NetworkCase("batch 1", 1, "any.pt", False, ()))
    worker.close()


def test_native_program_writes_the_same_schema(run_native, shipped):
    result = run_native(
        *("bench", shipped, "--json", "--batch", 2, "--threads", 1, "--seconds", 0.1)
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert {"cpu", "cpu_flags", "cores", "isa", "threads", "build", "versions"} <= set(
        found["environment"]
    )
    rows = {row["rung"]: row for row in found["results"]}
    assert set(rows) == {"native fast", "native direct", "native libtorch"}
    ours = report_of(
        [RungRow("a", 2, 1, facts={"load_s": 1.0, "first_s": 1.0}, calls=[[1.0]])],
        [RungSpec("a", "ours", "")],
    )
    for row in rows.values():
        assert set(row) == set(ours.results[0])
        assert (row["batch"], row["threads"], row["problem"]) == (2, 1, "")
        assert 0 < row["p50_us"] <= row["p90_us"] <= row["p99_us"]
        assert row["calls"] >= len(row["round_us"]) == 2
        assert row["peak_mib"] > 10
    assert [row["kind"] for row in found["results"]] == ["ours", "ours", "stock"]


def test_native_program_counts_the_images_of_all_callers(run_native, shipped):
    result = run_native(
        *("bench", shipped, "--json", "--batch", 3, "--threads", 1, "--seconds", 0.5),
        *("--callers", 4, "--backend", "libtorch"),
    )
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)["results"]
    assert row["callers"] == 4
    assert row["calls"] >= 4 * len(row["round_us"])  # each caller has one a turn at least
    # All four measure at once, so together they take the time that was asked for.
    assert 0.5 <= row["calls"] * 3 / row["images_per_s"] < 1.5


@pytest.mark.parametrize("callers", [1, 3])
def test_native_program_measures_from_bytes_to_class(run_native, shipped, tmp_path, callers):
    image = open_network(shipped, tmp_path).image
    result = run_native(
        *("bench", shipped, "--json", "--seconds", 0.05, "--threads", 1, "--image", image),
        *("--backend", "libtorch", "--callers", callers),
    )
    (row,) = json.loads(result.stdout)["results"]
    assert row["rung"] == "native libtorch"
    assert row["stages_us"]["end_to_end"] > 0
    assert row["stages_us"]["network"] == row["p50_us"]
    assert set(row["stages_us"]) == {"decode", "preprocess", "network", "end_to_end"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "3y"], 2, "size must be pixels as 224, 240x320 or 3x240x320, got '3y'"),
        (["--size", "1x2x3x4"], 2, "size must be at most three numbers"),
        (["--input", "a.npy"], 2, "inputs are NAME=FILE.npy, got 'a.npy'"),
        (["--image", "missing.png"], 4, "missing.png: cannot be opened"),
    ],
)
def test_native_program_refuses(run_native, shipped, arguments, code, message):
    result = run_native("bench", shipped, *arguments)
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.startswith("convship-run: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_native_program_measures_a_plain_file(run_native, plain):
    result = run_native("bench", plain, "--plain", "--seconds", 0.05, "--threads", 1)
    assert result.returncode == 2
    assert "give --size, as in --size 3x224x224" in result.stderr
    result = run_native(
        *("bench", plain, "--plain", "--size", "3x6x6", "--seconds", 0.05, "--threads", 1)
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("p50 ") == 3
