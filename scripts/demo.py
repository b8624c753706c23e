"""The main job on real digits: train, evaluate, export, run natively, verify, show."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

from convship.config import TrainConfig
from convship.data import DataSet, load_data
from convship.evaluate import evaluate_run
from convship.export import export_run
from convship.plots import spread_over_classes
from convship.runs import Run, load_run
from convship.train import train
from convship.verify import as_table, native_program, verify_model

FOLDER = Path("build/demo")
DIGITS_SHOWN = 24
LEAST_ACCURACY = 0.97


@contextmanager
def step(name: str) -> Iterator[None]:
    print(f"== {name}", flush=True)
    begin = time.monotonic()
    yield
    print(f"== {name}: done in {time.monotonic() - begin:.1f} s", flush=True)


def train_once(folder: Path) -> Run:
    """Reuse a finished run: a second demo has nothing new to learn."""
    if (folder / "summary.json").exists():
        print(f"reusing {folder} (delete it to train again)")
        return load_run(folder)
    resume = (folder / "last.ckpt").exists()
    return train(
        TrainConfig(data="digits", model="lenet5", out=str(folder)), resume=resume, verbose=True
    )


def write_digits(data: DataSet, folder: Path) -> dict[Path, str]:
    """Write test digits as PNG files of their own 8 x 8 pixels; return their true labels."""
    folder.mkdir(parents=True, exist_ok=True)
    truth: dict[Path, str] = {}
    for index in spread_over_classes(data.test, DIGITS_SHOWN):
        label = data.labels[int(data.test.targets[index])]
        path = folder / f"{index:04d}_is_{label}.png"
        Image.fromarray(data.test.read(index)[0].numpy()).save(path)
        truth[path] = label
    return truth


def classify_natively(model: Path, images: Path) -> dict[Path, dict[str, Any]]:
    """Let the native program classify the folder; return the best prediction per file."""
    output = subprocess.run(
        [native_program(), "predict", model, images, "--json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    answers = map(json.loads, output.splitlines())
    return {Path(answer["path"]): answer["predictions"][0] for answer in answers}


def draw(truth: dict[Path, str], answers: dict[Path, dict[str, Any]], path: Path) -> None:
    columns = 8
    rows = -(-len(truth) // columns)
    figure = Figure(figsize=(columns * 1.1, rows * 1.45), layout="constrained")
    figure.suptitle("classified by convship-run, no Python in the process", fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (file, label) in zip(axes, truth.items(), strict=False):
        answer = answers[file]
        axis.imshow(Image.open(file), cmap="gray_r")
        right = answer["label"] == label
        axis.set_title(
            f"{answer['label']}  {100 * answer['probability']:.0f} %",
            fontsize=10,
            color="tab:green" if right else "tab:red",
        )
    for axis in figure.axes:
        axis.axis("off")
    figure.savefig(path, dpi=120)


def python_latency_us(run: Run) -> float:
    """Median time of one image through the eager network, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    preprocess = run.preprocess
    images = torch.rand(1, preprocess.channels, preprocess.height, preprocess.width)
    times = []
    with torch.inference_mode():
        for _ in range(600):
            begin = time.perf_counter()
            run.model(images)
            times.append(time.perf_counter() - begin)
    torch.set_num_threads(threads)
    return 1e6 * statistics.median(times[100:])


def native_latency_us(model: Path) -> float:
    output = subprocess.run(
        [native_program(), "bench", model, "--threads", "1", "--json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return float(json.loads(output)["results"][0]["p50_us"])


def main() -> int:
    begin = time.monotonic()
    model, picture = FOLDER / "digits.pt", FOLDER / "classified.png"
    data = load_data("digits")
    with step("train LeNet-5 on handwritten digits"):
        run = train_once(FOLDER / "run")
    with step("evaluate on held-out digits"):
        evaluation = evaluate_run(run)
        evaluation.plot(FOLDER / "confusion.png")
        print(evaluation.table().splitlines()[-1])
    with step("export one file"):
        export_run(run.path, model)
    with step("classify PNG files with the native program"):
        truth = write_digits(data, FOLDER / "digits")
        answers = classify_natively(model, FOLDER / "digits")
        right = sum(answers[file]["label"] == label for file, label in truth.items())
        draw(truth, answers, picture)
        print(f"{right} of {len(truth)} right")
    with step("verify: torch, convship in Python and the native program"):
        report = verify_model(model, [FOLDER / "digits"])
        print(as_table(report))
    with step("measure latency"):
        python_us, native_us = python_latency_us(run), native_latency_us(model)

    table = Table(title=f"convship demo, {time.monotonic() - begin:.0f} s", show_header=False)
    rows = {
        "test accuracy": f"{100 * evaluation.top1:.2f} % of {evaluation.count} held-out digits",
        "Python/native agreement": f"{100 * (report.top1_agreement or 0):.0f} % of {report.inputs} "
        f"images, {'verified' if report.passed else 'ANSWERS DIFFER'}",
        "latency in Python": f"{python_us:.0f} us (eager, one image, one thread)",
        "latency native": f"{native_us:.0f} us (convship-run, the same)",
        "model": str(model),
        "training curves": str(run.path / "curves.png"),
        "classified digits": str(picture),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=100).print(table)
    if evaluation.top1 < LEAST_ACCURACY:
        print(
            f"demo: test accuracy must be at least {100 * LEAST_ACCURACY} %, "
            f"got {100 * evaluation.top1:.2f} %",
            file=sys.stderr,
        )
        return 1
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
