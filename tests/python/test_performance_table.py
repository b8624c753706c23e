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
