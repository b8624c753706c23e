"""The benchmark of the op: its shapes, its statistics, and that it believes no wrong answer."""

from __future__ import annotations

import importlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from convship.bench import catalogue
from convship.bench.catalogue import ENGINES, EngineSpec, choose_engines
from convship.bench.environment import check_isa, choose_cpus
from convship.bench.grid import NOTHING, Case, choose_cases, load_grid
from convship.bench.intervals import (
    geometric_mean,
    geometric_mean_interval,
    median_interval,
    relative_spread,
)
from convship.bench.op import bench_op
from convship.bench.picture import draw
from convship.bench.reference import Reference
from convship.bench.report import make_report
from convship.bench.rounds import Measured, Row
from convship.bench.settings import Settings
from convship.bench.table import as_text
from convship.cli import main

PEERS = [
    "lenet1",
    "lenet2",
    "lenet1_b64",
    "lenet2_b64",
    "alexnet1",
    "alexnet2",
    "alexnet5",
    "vgg11_1",
    "vgg16_2",
    "vgg16_4",
    "vgg16_7",
    "vgg16_10",
    "vgg16_13",
    "resnet_stem",
    "squeezenet1_1_stem",
    "resnet_stem_b8",
]
SMALL = Case("small", (2, 4, 9, 7), (6, 2, 3, 2), (1, 1), (1, 0), (1, 2), 2, (3, 2), (2, 1))


# Grids


def test_peers_grid_holds_the_sixteen_shapes():
    cases = load_grid("peers")
    assert [case.name for case in cases] == PEERS
    assert cases[0].flops == 2 * 6 * 28 * 28 * 3 * 5 * 5


def test_odd_grid_is_odd():
    cases = load_grid("odd")
    assert len(cases) >= 12
    assert any(case.dilation != (1, 1) for case in cases)
    assert any(case.groups == case.input[1] > 1 for case in cases)
    assert any(1 < case.groups < case.input[1] for case in cases)
    assert any(case.weight[2] != case.weight[3] for case in cases)
    assert any(case.pool_size[0] != case.pool_size[1] for case in cases)
    assert any(case.weight[2:] == (1, 1) for case in cases)
    assert any(case.pool_size == (4, 4) for case in cases)
    assert any(case.pool_stride == (1, 1) for case in cases)
    assert any(case.input[2:] == (721, 1283) for case in cases)


def test_random_grids_are_of_all_kinds_and_the_same_each_time():
    cases = load_grid("random:3")
    assert cases == load_grid("random:3") != load_grid("random:4")
    assert load_grid("random") == load_grid("random:0")
    kinds = {case.name.partition("_")[0] for case in cases}
    assert kinds == {"few", "some", "many", "depthwise", "grouped"}
    assert any(case.stride > (2, 2) for case in cases)
    assert any(case.dilation > (1, 1) for case in cases)
    assert any(case.pool_stride < case.pool_size for case in cases)
    with pytest.raises(ValueError, match="random:SEED takes a number, got 'x'"):
        load_grid("random:x")


@pytest.mark.parametrize(
    "case",
    [case for grid in ("peers", "odd", "random") for case in load_grid(grid)],
    ids=lambda c: c.name,
)
def test_shapes_are_those_of_torch(case):
    image = torch.empty(case.input, device="meta")
    weight = torch.empty(case.weight, device="meta")
    conv = torch.conv2d(image, weight, None, case.stride, case.padding, case.dilation, case.groups)
    pooled = torch.max_pool2d(conv, case.pool_size, case.pool_stride, case.pool_padding)
    assert tuple(conv.shape[2:]) == case.conv_size
    assert tuple(pooled.shape) == case.output


def test_arrays_are_the_same_each_time_and_fit_bfloat16():
    for one, other in zip(SMALL.arrays(), SMALL.arrays(), strict=True):
        assert np.array_equal(one, other)
    for array in SMALL.arrays("bfloat16"):
        tensor = torch.from_numpy(array)
        assert torch.equal(tensor.bfloat16().float(), tensor)


def test_grid_from_a_file(tmp_path):
    path = tmp_path / "grid.json"
    path.write_text('{"cases": [{"name": "a", "input": [1, 2, 8, 9], "weight": [4, 2, 3, 3]}]}')
    (case,) = load_grid(path)
    assert case.output == (1, 4, 3, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"weight": [4, 2, 3]}, "must be four sizes"),
        ({"weight": [4, 3, 3, 3]}, "do not fit together"),
        ({"pool_size": 99}, "do not fit together"),
        ({"strid": 2}, "unknown key 'strid'"),
    ],
)
def test_invalid_grid_fails(tmp_path, entry, message):
    path = tmp_path / "grid.json"
    case = {"name": "a", "input": [1, 2, 8, 9], "weight": [4, 2, 3, 3], **entry}
    path.write_text(json.dumps({"cases": [case]}))
    with pytest.raises(ValueError, match=message):
        load_grid(path)


def test_unknown_names_fail():
    with pytest.raises(ValueError, match=r"unknown grid 'x'; known: peers, odd"):
        load_grid("x")
    with pytest.raises(FileNotFoundError, match=r"x\.json: grid does not exist"):
        load_grid("x.json")
    with pytest.raises(ValueError, match=r"unknown shape 'x'; known: lenet1, lenet2"):
        choose_cases(load_grid("peers"), ["x"])
    with pytest.raises(
        ValueError, match=r"unknown engine 'x'; known: torch eager, .*convship fast"
    ):
        choose_engines(["x"], Settings())
    with pytest.raises(ValueError, match=r"isa must be one of \w+.* on this machine, got 'x'"):
        check_isa("x")
    with pytest.raises(ValueError, match=r"dtype must be one of float32, bfloat16, got 'int8'"):
        Settings(dtype="int8")
    with pytest.raises(ValueError, match=r"threads must be at most \d+, .* got 4096"):
        choose_cpus(4096)


# Engines


def test_missing_peer_names_the_extra(monkeypatch):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)
    chosen, left_out = choose_engines(["torch eager", "openvino"], Settings())
    assert [spec.name for spec in chosen] == ["torch eager"]
    assert left_out["openvino"].endswith("is not installed: pip install 'convship[bench]'")
    with pytest.raises(ValueError, match="no engine is left: onnxruntime: onnx is not installed"):
        choose_engines(["onnxruntime"], Settings())


@pytest.mark.parametrize(
    ("settings", "engine", "reason"),
    [
        (Settings(train=True), "torch compile", "not measured in training"),
        (Settings(train=True), "convship fast", "not measured in training"),
        (Settings(dtype="bfloat16"), "onnxruntime", "no convolution in bfloat16"),
        (Settings(layout="channels_last"), "onnxruntime", "NCHW only"),
        (Settings(isa="avx2"), "openvino", "cannot be held to an instruction set"),
    ],
)
def test_engine_that_does_not_fit_is_left_out(monkeypatch, settings, engine, reason):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: object())
    chosen, left_out = choose_engines([engine, "torch eager"], settings)
    assert [spec.name for spec in chosen] == ["torch eager"]
    assert reason in left_out[engine]


def test_forced_isa_reaches_every_library():
    assert (
        Settings(isa="avx2").environment()
        | {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        }
        == Settings(isa="avx2").environment()
    )
    assert "ATEN_CPU_CAPABILITY" not in Settings().environment()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("train", [False, True])
def test_engines_compute_the_case(dtype, layout, train):
    settings = Settings(dtype=dtype, layout=layout, train=train)
    reference = Reference(SMALL, dtype, train)
    chosen, _ = choose_engines(None, settings)
    checked = []
    for spec in chosen:
        if spec.name == "torch compile":
            continue  # the compiler takes seconds; measured runs compare it too
        module, name = spec.factory.split(":")
        engine = getattr(importlib.import_module(module), name)(SMALL, settings, **spec.options)
        assert reference.objection(engine.outputs()) == "", spec.name
        assert engine.measure(1e-4) > 0
        checked.append(spec.name)
    assert {"torch eager", "torch channels_last", "convship direct"} <= set(checked)


def test_error_is_relative_to_the_sum_of_products():
    reference = Reference(NOTHING)
    image, weight, bias = NOTHING.arrays()
    scale = abs(image * weight) + abs(bias)
    right = (image * weight + bias).clip(0)
    assert reference.error(right + 2e-5 * scale) == pytest.approx(2e-5, rel=0.1)
    assert reference.objection({"output": right + 2e-5 * scale}).startswith("output is off by")
    assert reference.error(right * np.nan) == math.inf
    assert reference.error(right[0]) == math.inf


# Statistics


def test_median_interval_on_known_numbers():
    # n = 15: ranks 4 and 12; P(Binomial(15, 1/2) <= 3) = 576 / 32768.
    found = median_interval(range(1, 16))
    assert (found.value, found.low, found.high) == (8, 4, 12)
    assert found.coverage == pytest.approx(1 - 2 * 576 / 32768)
    assert median_interval([3, 1, 2]).coverage == pytest.approx(0.75)
    assert median_interval([7]).coverage == 0
    with pytest.raises(ValueError, match="at least one value"):
        median_interval([])


def test_geometric_mean_on_known_numbers():
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2)
    rounds = [[1.9, 2.0, 2.1] * 5, [0.45, 0.5, 0.55] * 5]
    found = geometric_mean_interval(rounds)
    assert found.value == pytest.approx(1)
    assert 0.9 < found.low < 1 < found.high < 1.1
    assert geometric_mean_interval(rounds) == found


def test_relative_spread_ignores_the_ends():
    assert relative_spread([0.1, *[1.0] * 18, 9.0]) == 0
    assert relative_spread([1.0, 1.2] * 10) == pytest.approx(0.2)


def test_summary_and_floor():
    # ours, a peer, torch eager: seconds in two rounds.
    times = {
        Case("a", (1, 1, 4, 4), (1, 1, 1, 1)): ([1, 1], [2, 2], [4, 4]),
        Case("b", (1, 1, 4, 4), (1, 1, 1, 1)): ([2, 4], [1, 2], [8, 16]),
    }
    names = ["ours", "other", "torch eager"]
    specs = [EngineSpec(name, "peer" if name != "ours" else "ours", "") for name in names]
    rows = {
        case: [Row(name, seconds=list(map(float, s))) for name, s in zip(names, all_, strict=True)]
        for case, all_ in times.items()
    }
    measured = Measured(rows, flop_seconds=[1e-9, 1e-9])
    report = make_report(measured, specs, Settings(threads=2), run={}, environment={}, left_out={})
    best, eager = report.summary
    assert (best.against, eager.against) == ("best peer", "torch eager")
    assert best.geometric_mean.value == pytest.approx(1)
    assert (best.smallest, best.smallest_shape, best.slower_shapes) == (0.5, "b", ["b"])
    assert eager.geometric_mean.value == pytest.approx(4)
    assert eager.slower_shapes == []
    assert report.gflops == pytest.approx(1)
    assert report.shapes[0].floor_s == pytest.approx(32e-9 / 2)


def test_noise_is_reported():
    rows = [Row("a", seconds=[1.0], nothing=[1.0], waited=[0.5])]
    measured = Measured({SMALL: rows}, flop_seconds=[1.0, 2.0] * 5)
    specs = [EngineSpec("a", "peer", "")]
    report = make_report(measured, specs, Settings(), run={}, environment={}, left_out={})
    busy, noisy = report.warnings
    assert busy.startswith("busy machine: other programs had the cores 50 % of the time")
    assert noisy.startswith("noisy machine: what never changes varied by 100 % between rounds")


# Whole runs


@pytest.fixture
def workers_find_tests(monkeypatch):
    """Let worker processes import engines_for_tests."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def test_command_measures_compares_and_writes(convship, tmp_path):
    result = convship(
        *("bench", "op", "--shapes", "lenet2", "--rounds", 2, "--slot-ms", 5),
        *("--engines", "torch eager,convship", "--json", tmp_path / "a.json"),
    )
    assert result.returncode == 0, result.stderr
    assert "Microseconds per call" in result.stdout
    assert "shape 1/1: lenet2" in result.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["schema"] == 1
    assert found["settings"]["rounds"] == 2
    assert {"cpu", "cpu_flags", "isa", "threads", "versions", "build", "load_before"} <= set(
        found["environment"]
    )
    assert [engine["name"] for engine in found["engines"]] == [
        "torch eager",
        "convship direct",
        "convship fast",
    ]
    assert all(engine["nothing_s"]["value"] > 0 for engine in found["engines"])
    (shape,) = found["shapes"]
    assert shape["best_peer"] == "torch eager"
    for row in shape["rows"]:
        assert row["error"] < 1e-5
        assert row["problem"] == ""
        assert len(row["seconds"]) == 2
        assert row["median_s"]["low"] <= row["median_s"]["value"] <= row["median_s"]["high"]
    assert {(s["ours"], s["against"]) for s in found["summary"]} == {
        (ours, against)
        for ours in ("convship direct", "convship fast")
        for against in ("best peer", "torch eager")
    }


def test_what_was_measured_is_printed_though_it_cannot_be_written(convship, tmp_path):
    result = convship(
        *("bench", "op", "--shapes", "lenet2", "--rounds", 1, "--slot-ms", 5),
        *("--engines", "convship native", "--json", tmp_path / "nowhere" / "a.json"),
    )
    assert result.returncode != 0
    assert "Microseconds per call" in result.stdout
    assert "a.json: cannot be written" in result.stderr


def test_wrong_arguments_fail(capsys):
    assert main(["bench", "op", "--shapes", "x"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("convship: bench: unknown shape 'x'; known: lenet1, lenet2")


@pytest.mark.usefixtures("workers_find_tests")
def test_wrong_and_dying_engines_are_not_believed(tmp_path):
    own = "engines_for_tests:Own"
    engines = [
        EngineSpec("wrong", "peer", "engines_for_tests:Wrong"),
        EngineSpec("dies", "peer", "engines_for_tests:Dies"),
        EngineSpec("peer", "peer", own, {"seconds": 3.0}),
        EngineSpec("ours", "ours", own, {"seconds": 1.5}),
    ]
    report = bench_op(shapes=["lenet1", "lenet2"], engines=engines, rounds=3, slot_ms=1)
    for shape in report.shapes:
        wrong, dies, peer, ours = shape.rows
        assert wrong.problem.startswith("output is off by")
        assert dies.problem.startswith("its process ended with code 7")
        assert wrong.seconds == dies.seconds == []
        assert (peer.seconds, ours.seconds) == ([3.0] * 3, [1.5] * 3)
        assert shape.best_peer == "peer"
    assert report.ours_is_right
    assert report.summary[0].geometric_mean.value == pytest.approx(2)
    text = as_text(report)
    assert "wrong on lenet1: output is off by" in text
    assert "dies on lenet2: its process ended with code 7" in text
    draw(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    json.loads(report.to_json())


@pytest.mark.usefixtures("workers_find_tests")
def test_wrong_answer_of_ours_is_a_failure():
    engines = [EngineSpec("ours", "ours", "engines_for_tests:Wrong")]
    report = bench_op(shapes=["lenet2"], engines=engines, rounds=1, slot_ms=1)
    assert not report.ours_is_right
    assert report.summary == []


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_peer_runs_where_it_is_installed(engine):
    (spec,) = (spec for spec in ENGINES if spec.name == engine)
    reason = spec.obstacle(Settings())
    if reason:
        pytest.skip(reason)
    report = bench_op("odd", ["dilated_rows"], [engine], rounds=1, slot_ms=1)
    assert report.shapes[0].rows[0].problem == ""
