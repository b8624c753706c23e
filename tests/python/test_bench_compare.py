"""Two reports side by side: which conditions fail a build."""

from __future__ import annotations

import json

import pytest

from convship.bench.compare import compare, parse_condition
from convship.cli import main

ENVIRONMENT = {"cpu": "a", "isa": "avx2", "build": {"build_type": "Release"}}


@pytest.fixture
def reports(tmp_path):
    """Write two reports; each gets p50 in microseconds by (rung, batch)."""

    def write(before, after, environment=None, **fields):
        paths = []
        for name, times in (("old", before), ("new", after)):
            rows = [
                {"rung": rung, "batch": batch, "threads": 1, "problem": "", "p50_us": p50}
                for (rung, batch), p50 in times.items()
            ]
            for row in rows:
                row.update(fields.get(name, {}))
            used = environment if name == "new" and environment else ENVIRONMENT
            paths.append(tmp_path / f"{name}.json")
            paths[-1].write_text(json.dumps({"environment": used, "results": rows}))
        return paths

    return write


@pytest.mark.parametrize(
    ("condition", "p50", "code"),
    [
        ("p50>1.1x", 109.0, 0),
        ("p50>1.1x", 111.0, 1),
        ("p50>1.1x", 50.0, 0),
        ("p50 > 1x", 100.0, 0),
        ("p50<0.9x", 80.0, 1),
        ("p50>0.1ms", 100.0, 0),
        ("p50>0.1ms", 101.0, 1),
        ("p50>105us", 101.0, 0),
    ],
)
def test_exit_code_follows_the_condition(reports, capsys, condition, p50, code):
    files = reports({("a", 1): 100.0}, {("a", 1): p50})
    assert main(["bench", "compare", *map(str, files), "--fail-if", condition]) == code
    out = capsys.readouterr().out
    assert f"({p50 / 100:.2f}x)" in out
    assert ("FAILED a, batch 1, threads 1: " + condition in out) == (code == 1)


def test_each_condition_is_tried_on_each_measurement(reports):
    files = reports(
        {("a", 1): 100.0, ("a", 8): 100.0, ("b", 1): 100.0},
        {("a", 1): 100.0, ("a", 8): 130.0, ("b", 1): 150.0},
        old={"images_per_s": 10.0, "peak_mib": 100.0},
        new={"images_per_s": 9.5, "peak_mib": 300.0},
    )
    conditions = list(map(parse_condition, ("p50>1.2x", "rate<0.9x", "peak>250MiB")))
    found = compare(*files, conditions, ["a"])
    assert found.failures == [
        "a, batch 8, threads 1: p50>1.2x (130, was 100)",
        "a, batch 1, threads 1: peak>250MiB (300, was 100)",
        "a, batch 8, threads 1: peak>250MiB (300, was 100)",
    ]
    assert len(found.lines) == 2


def test_rung_that_vanished_fails(reports, capsys):
    files = reports({("a", 1): 1.0, ("b", 1): 1.0}, {("a", 1): 1.0, ("c", 1): 1.0})
    assert main(["bench", "compare", *map(str, files), "--fail-if", "p50>2x"]) == 1
    out, err = capsys.readouterr()
    assert "FAILED b, batch 1, threads 1: not measured any more" in out
    assert f"c, batch 1, threads 1: only in {files[1]}" in err
    assert main(["bench", "compare", *map(str, files)]) == 0  # nothing was asked for


def test_rung_that_went_wrong_fails(reports):
    old, new = reports({("a", 1): 1.0}, {("a", 1): 1.0})
    content = json.loads(new.read_text())
    content["results"][0] = {
        "rung": "a", "batch": 1, "threads": 1, "problem": "output 0 is off by 1"
    }  # fmt: skip
    new.write_text(json.dumps(content))
    found = compare(old, new, [parse_condition("p50>2x")])
    assert found.failures == ["a, batch 1, threads 1: output 0 is off by 1"]


def test_other_machines_are_told(reports):
    other = ENVIRONMENT | {"cpu": "b"}
    found = compare(*reports({("a", 1): 1.0}, {("a", 1): 1.0}, other))
    assert found.notes == ["warning: cpu differs: a and b"]
    assert found.failures == []


@pytest.mark.parametrize(
    "text", ["p50", "p50>1.1", "p50=1x", "p51>1x", "peak>1ms", "rate<3MiB", "p50>1..1x", "p50>.x"]
)
def test_wrong_condition_fails(text):
    with pytest.raises(ValueError, match="bench compare: "):
        parse_condition(text)


def test_files_that_are_no_reports_fail(reports, tmp_path, capsys):
    old, new = reports({("a", 1): 1.0}, {("b", 1): 1.0})
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"shapes": []}')
    cases = [
        ((old, new), "have no rung, batch and threads in common"),
        ((old, wrong), "no report of a network; write one with convship bench MODEL --json"),
        ((old, tmp_path / "missing.json"), "report does not exist"),
        ((old, old, "--engines", "z"), "neither report has a rung 'z'"),
        ((old, old, "--fail-if", "p50>1"), "a condition is METRIC>LIMIT"),
    ]
    for arguments, message in cases:
        assert main(["bench", "compare", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
