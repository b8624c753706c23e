"""docs/scaling.md and docs/look-inside.md: what they tell to type is typed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from faults_for_tests import FULL
from models_for_tests import LABELS, classifier, write_images
from PIL import Image

import convship

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = sysconfig.get_path("scripts")
PATIENCE = 300
full = pytest.mark.skipif(not FULL, reason="large: scripts/test --full")
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs pip install 'convship[ray]'"
)


def blocks(name: str, language: str = "sh") -> list[str]:
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def environment(folder: Path) -> dict[str, str]:
    """Programs of this Python first; Ray keeps its token in the home."""
    path = f"{SCRIPTS}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(folder / "home")}


def start(block: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-euc", block],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(block: str, folder: Path) -> str:
    process = start(block, folder)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (block, output, errors)
    return output


@pytest.fixture
def folder(tmp_path, image_folder) -> Path:
    """Holds the model, the photograph and the folder of images that the commands mention."""
    (image, *_) = write_images(tmp_path, 1)
    network, preprocess = classifier()
    convship.export_model(
        network, tmp_path / "model.pt", samples=[image], preprocess=preprocess, labels=LABELS
    )
    Image.open(image).save(tmp_path / "cat.jpg")
    image_folder("images", count=10)
    return tmp_path


def test_look_inside(folder):
    profile, explain = blocks("look-inside.md")
    assert "convship-run, steps of the whole network" in run(profile, folder)
    assert json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert run(explain, folder).split(",")[0] in LABELS
    with Image.open(folder / "explain.png") as picture:
        assert picture.width > 3 * picture.height


def test_options_and_links_of_the_texts_exist():
    for name, verbs in {
        "look-inside.md": ("profile", "explain", "bench"),
        "scaling.md": ("train", "predict"),
    }.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        known = ""
        for verb in verbs:
            words = [sys.executable, "-m", "convship.cli", verb, "--help"]
            known += subprocess.run(
                words,
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "COLUMNS": "200"},
            ).stdout
        mentioned = set(re.findall(r"`(--[a-z][\w-]+)`", text))
        assert mentioned
        assert mentioned <= set(re.findall(r"--[\w-]+", known)), name
        for link in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text):
            assert (DOCS / link).exists(), link


@full
def test_torchrun_on_one_machine_and_on_two(folder):
    one, two = (block for block in blocks("scaling.md") if "torchrun" in block)
    run(one, folder)
    assert json.loads((folder / "runs/a/summary.json").read_text())["epochs"] == 2
    # Two agents on this machine stand for two machines.
    two = two.replace("node0:29400", f"localhost:{free_port()}")
    machines = [start(two, folder) for _ in range(2)]
    outputs = [machine.communicate(timeout=PATIENCE) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert sum(output.count("test accuracy") for output, _ in outputs) == 1
    curves = [(folder / f"runs/{run}/metrics.csv").read_text().split() for run in "ab"]
    columns = [[row.split(",")[:6] for row in rows] for rows in curves]
    assert columns[0][0] == columns[1][0]
    for row, other in zip(columns[0][1:], columns[1][1:], strict=True):
        assert list(map(float, row)) == pytest.approx(list(map(float, other)), abs=1e-4)


@full
@needs_ray
def test_ray_on_one_machine_and_as_a_cluster(folder):
    predict, token, head, worker, on_cluster = (
        block for block in blocks("scaling.md") if "torchrun" not in block
    )
    assert "20 rows in 1 files, 0 with an error" in run(predict, folder)
    read, pipeline = blocks("scaling.md", "python")
    (count, label) = run_python(read, folder).split()
    assert (count, label in LABELS) == ("20", True)
    run_python(
        'import ray\nray.init(address="local", num_cpus=2, include_dashboard=False)\n' + pipeline,
        folder,
    )
    assert list((folder / "answers").glob("*.parquet"))
    run(token, folder)
    # In the foreground, so that the machines are ours to end.
    port = free_port()
    machines = []
    try:
        for block in (head, worker):
            block = block.replace("6379", str(port)).replace("node0", "localhost")
            machines.append(start(f"{block.strip()} --block --num-cpus 1", folder))
            wait_for(port)
        line = on_cluster.replace("--ray auto", f"--ray localhost:{port}")
        assert "20 rows in 1 files" in run(line, folder)
    finally:
        for machine in reversed(machines):
            machine.terminate()
            machine.communicate(timeout=PATIENCE)


def run_python(block: str, folder: Path) -> str:
    command = [sys.executable, "-Wignore", "-c", block]
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (block, result.stderr)
    return result.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    subprocess.run(
        ["bash", "-c", f"until echo > /dev/tcp/localhost/{port}; do sleep 0.2; done"],
        check=True,
        timeout=PATIENCE,
        stderr=subprocess.DEVNULL,
    )
