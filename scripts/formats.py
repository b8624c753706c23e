"""Compares formats and precisions of one network: size, time per call, answers; a Markdown table.

    .venv/bin/python scripts/formats.py [--networks lenet5,squeezenet1_1] [--run FOLDER]

Every file runs in this process, in turns of a few calls each, so that whatever else the machine
does meets all alike. "plain" is the AOTInductor package that torch makes of the same network
without convship, in torch's own loader, with freezing (which is faster) and without; OpenVINO has
rows where it is installed. Networks have random weights; a run, which `convship train` leaves, has
learned ones and an accuracy.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import convship
from convship import _C
from convship.evaluate import evaluate_run
from convship.export import export_run
from convship.models import create_model
from convship.runs import load_run

SIDES = {"lenet5": 32, "cifarnet": 32}
BATCHES = (1, 8)
CALLS = 5  # of a turn, after one that is not timed

Call = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="lenet5,squeezenet1_1")
    parser.add_argument("--run", type=Path, help="also the network of this run")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| network | file | MB | " + " | ".join(f"batch {n}, us" for n in BATCHES), end="")
    print(" | largest difference from eager | top-1 |")
    print("|---|---|" + "---|" * (len(BATCHES) + 3))
    for name in filter(None, arguments.networks.split(",")):
        torch.manual_seed(0)
        network = create_model(name, num_classes=10).eval().requires_grad_(False)
        side = SIDES.get(name, 224)
        # Gray: random weights hardly tell colours apart, and export insists.
        samples = torch.randint(0, 256, (4, 1, side, side), dtype=torch.uint8).expand(4, 3, -1, -1)
        options = {
            "samples": list(samples),
            "preprocess": convship.Preprocess(side, mean=[0.5] * 3, std=[0.25] * 3),
        }
        subject = Subject(name, network, (3, side, side), partial(export_network, network, options))
        compare(subject, arguments)
    if arguments.run:
        run = load_run(arguments.run)
        image = (run.preprocess.channels, run.preprocess.height, run.preprocess.width)
        export = partial(export_run, arguments.run)
        accuracy = 100 * evaluate_run(run).top1
        compare(Subject(run.summary["model"], run.model, image, export, accuracy), arguments)


@dataclass
class Subject:
    """A network, its images [C, H, W], how to write its file, and how often it is right."""

    name: str
    network: nn.Module
    image: tuple[int, int, int]
    export: Callable[..., convship.Manifest]
    accuracy: float | None = None


def export_network(network: nn.Module, options: dict[str, Any], path: Path, **more: Any) -> Any:
    # Random weights: what int8 costs them says nothing.
    return convship.export_model(network, path, **options, **more, max_accuracy_drop=1)


def compare(subject: Subject, arguments: argparse.Namespace) -> None:
    inputs = {n: torch.rand(n, *subject.image) for n in BATCHES}
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(subject, Path(folder))
        calls = {title: opened(file.path) for title, file in files.items()}
        calls |= openvino_calls(
            without_our_layers(copy.deepcopy(subject.network)), inputs, arguments.threads
        )
        with torch.inference_mode():
            times = {n: measure(calls, x, arguments.rounds) for n, x in inputs.items()}
            for title, call in calls.items():
                difference = max(
                    float((call(x) - subject.network(x)).abs().max()) for x in inputs.values()
                )
                figures = " | ".join(f"{times[n][title]:.0f}" for n in BATCHES)
                file = files.get(title)
                size = f"{file.path.stat().st_size / 1e6:.2f}" if file else ""
                top1 = f"{file.top1:.2f} %" if file and file.top1 is not None else ""
                row = (subject.name, title, size, figures, f"{difference:.1e}", top1)
                print("| " + " | ".join(row) + " |", flush=True)


class File(NamedTuple):
    path: Path
    top1: float | None = None


def make_files(subject: Subject, folder: Path) -> dict[str, File]:
    files = {}
    for suffix in ("pt", "pt2"):
        files[f"convship .{suffix}"] = File(folder / f"ours.{suffix}", subject.accuracy)
        subject.export(path=folder / f"ours.{suffix}", format=suffix)
    for precision in ("bfloat16", "int8"):
        path = folder / f"ours-{precision}.pt"
        test = subject.export(path=path, precision=precision).precision_test
        top1 = None if test is None or test.top1 is None else 100 * test.top1
        files[f"convship .pt, {precision}"] = File(path, top1)
    network = without_our_layers(copy.deepcopy(subject.network))
    for dtype in (torch.float32, torch.bfloat16):
        for freezing in (True, False) if dtype == torch.float32 else (True,):
            name = f"plain .pt2{', frozen' if freezing else ''}"
            name += ", bfloat16" if dtype == torch.bfloat16 else ""
            path = folder / f"{name}.pt2"
            x = torch.rand(2, *subject.image, dtype=dtype)
            with torch.no_grad():
                program = torch.export.export(
                    network.to(dtype), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)
                )
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(path), inductor_configs={"freezing": freezing}
                )
            files[name] = File(path)
    return files


def openvino_calls(network: nn.Module, inputs: dict[int, Tensor], threads: int) -> dict[str, Call]:
    try:
        import openvino
    except ImportError:
        return {}
    calls: dict[str, Call] = {}
    for hint in ("f32", "bf16"):
        requests = {}
        for n, x in inputs.items():
            model = openvino.convert_model(network, example_input=x, input=[tuple(x.shape)])
            settings = {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
            }
            requests[n] = (
                openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
            )

        def call(x: Tensor, requests: dict[int, Any] = requests) -> Tensor:
            request = requests[len(x)]
            request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
            request.infer()
            return torch.from_numpy(request.get_output_tensor().data)

        calls[f"OpenVINO, {hint}"] = call
    return calls


def without_our_layers(network: nn.Module) -> nn.Module:
    """Put torch's own layers in the place of ours."""
    if isinstance(network, convship.ConvPool2d):
        conv = nn.Conv2d(
            network.in_channels, network.out_channels, network.kernel_size, padding=network.padding
        )
        conv.load_state_dict(network.state_dict())
        told = network.extra_repr().count("=") - (network.padding != (0, 0))
        assert told == 3, "only what our models use is translated"
        return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(network.pool_size)).eval()
    for name, child in network.named_children():
        setattr(network, name, without_our_layers(child))
    return network


def opened(path: Path) -> Call:
    if path.name.startswith("ours"):
        model = _C.Model.from_file(path)
        return lambda x: model.run({"input": x})["logits"]
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    if path.stem.endswith("bfloat16"):
        return lambda x: loader.boxed_run([x.bfloat16()])[0].float()
    return lambda x: loader.boxed_run([x])[0]


def measure(calls: dict[str, Call], x: Tensor, rounds: int) -> dict[str, float]:
    """Return microseconds per call: the median over turns of each turn's fastest call."""
    turns: dict[str, list[float]] = {title: [] for title in calls}
    for _ in range(rounds):
        for title, call in calls.items():
            call(x)
            seconds = []
            for _ in range(CALLS):
                start = time.perf_counter()
                call(x)
                seconds.append(time.perf_counter() - start)
            turns[title].append(min(seconds) * 1e6)
    return {title: statistics.median(each) for title, each in turns.items()}


if __name__ == "__main__":
    main()
