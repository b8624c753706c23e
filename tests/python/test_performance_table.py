"""scripts/performance.py: the table of docs/performance.md says what the reports say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/performance.py"


def report(model, times, ratios, warnings=()):
    kinds = {"native libtorch": "stock", "openvino": "peer"}
    return {
        "model": model,
        "environment": {"cpu": "A CPU", "cores": 2, "isa": "avx2", "versions": {"torch": "2"}},
        "warnings": list(warnings),
        "results": [
            {"rung": rung, "kind": kinds.get(rung, "ours"), "batch": 1, "threads": 2} | time
            for rung, time in times.items()
        ],
        "ratios": [
            {"batch": 1, "threads": 2, "ours": "native fast", "against": against}
            | {"interval": {"value": value, "low": value - 0.01, "high": value + 0.01}}
            for against, value in ratios.items()
        ],
    }


def test_table_is_replaced_and_tells_failures_and_warnings(tmp_path):
    document = tmp_path / "docs/performance.md"
    document.parent.mkdir()
    other = "<!-- scripts/performance, avx512 -->\nkept\n<!-- end -->"
    document.write_text(
        f"Top\n{other}\n<!-- scripts/performance, avx2 -->\nold\n<!-- end -->\nBottom\n"
    )
    times = {
        "native libtorch": {"p50_us": 40.4},
        "openvino": {"problem": "wrong"},
        "native fast": {"p50_us": 20.2},
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report("net", times, {"best stock": 2.0}, ["busy machine"])))
    subprocess.run([sys.executable, SCRIPT, path], cwd=tmp_path, check=True, capture_output=True)
    text = document.read_text()
    assert text.startswith(f"Top\n{other}\n<!-- scripts/performance, avx2 -->")
    assert text.endswith("<!-- end -->\nBottom\n")
    assert "old" not in text
    row = "| net | 1 | 2 | 40 (native libtorch) | 40 | - | failed | - | - | 20 "
    assert row + "| 2.00 (1.99 - 2.01) | - |" in text
    assert "- net: busy machine" in text


def test_sides_are_rows_and_points_of_a_picture(tmp_path):
    (tmp_path / "docs/images").mkdir(parents=True)
    document = tmp_path / "docs/performance.md"
    document.write_text("<!-- scripts/performance --sides, avx2 -->\n<!-- end -->\n")
    paths = []
    for side in (32, 64):
        path = tmp_path / f"{side}.json"
        one = report("net", {"native fast": {"p50_us": float(side)}}, {})
        path.write_text(json.dumps(one | {"settings": {"input": {"input": [3, side, side]}}}))
        paths.append(path)
    run = [sys.executable, SCRIPT, "--sides", *paths]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)
    rows = [row.split(" | ") for row in document.read_text().splitlines() if " | " in row]
    assert [row[0] for row in rows] == ["| image", "| 32x32", "| 64x64"]
    assert [row[9] for row in rows[1:]] == ["32", "64"]
    assert (tmp_path / "docs/images/image_sides.png").read_bytes().startswith(b"\x89PNG")


def test_way_from_a_photograph_is_compared_with_eager(tmp_path):
    document = tmp_path / "docs/performance.md"
    document.parent.mkdir()
    document.write_text("<!-- scripts/performance --photograph, avx2 -->\n<!-- end -->\n")
    stages = {"decode": 2e3, "preprocess": 3e3, "network": 35e3, "end_to_end": 40e3}
    ours = {"decode": 2e3, "preprocess": 1e3, "network": 13e3, "end_to_end": 16e3}
    times = {
        "python eager": {"p50_us": 1.0, "stages_us": stages},
        "native fast": {"p50_us": 1.0, "stages_us": ours},
        "openvino": {"p50_us": 1.0},  # no way from bytes
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report("net", times, {})))
    run = [sys.executable, SCRIPT, "--photograph", path]
    subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)
    text = document.read_text()
    assert "| python eager | 2 | 2.00 | 3.00 | 35.00 | 40.00 | 25.0 | 1.00 |" in text
    assert "| native fast | 2 | 2.00 | 1.00 | 13.00 | 16.00 | 62.5 | 2.50 |" in text
    assert "| openvino |" not in text


def test_list_without_a_place_in_the_document_is_refused(tmp_path):
    document = tmp_path / "docs/performance.md"
    document.parent.mkdir()
    document.write_text("Top\n<!-- scripts/performance, avx2 -->\nold\n<!-- end -->\n")
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report("net", {}, {})))
    result = subprocess.run(
        [sys.executable, SCRIPT, "--classifiers", path],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "must be a line <!-- scripts/performance --classifiers, avx2 -->" in result.stderr
    assert "old" in document.read_text()


def test_no_report_is_wrong_usage(tmp_path):
    result = subprocess.run(
        [sys.executable, SCRIPT], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "the following arguments are required: reports" in result.stderr
