"""Compares the formats of one network: size, time per call, answers; prints a Markdown table.

    .venv/bin/python scripts/formats.py [--networks lenet5,squeezenet1_1] [--rounds 60]

Every file runs in this process, in turns of a few calls each, so that whatever else the machine
does meets all alike. "plain" is the AOTInductor package that torch makes of the same network
without convship, in torch's own loader, with freezing (which is faster) and without.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import convship
from convship import _C
from convship.models import create_model

SIDES = {"lenet5": 32, "cifarnet": 32}
BATCHES = (1, 8)
CALLS = 5  # of a turn, after one that is not timed

Call = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="lenet5,squeezenet1_1")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| network | file | MB | " + " | ".join(f"batch {n}, us" for n in BATCHES), end="")
    print(" | largest difference from eager |")
    print("|---|---|" + "---|" * (len(BATCHES) + 2))
    for name in arguments.networks.split(","):
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            compare(name, Path(folder), arguments.rounds)


def compare(name: str, folder: Path, rounds: int) -> None:
    torch.manual_seed(0)
    with torch.inference_mode(False):
        network = create_model(name, num_classes=10).eval().requires_grad_(False)
        files = make_files(network, SIDES.get(name, 224), folder)
    inputs = {n: torch.rand(n, 3, SIDES.get(name, 224), SIDES.get(name, 224)) for n in BATCHES}
    calls = {title: opened(path) for title, path in files.items()}
    times = {n: measure(calls, x, rounds) for n, x in inputs.items()}
    for title, path in files.items():
        difference = max(float((calls[title](x) - network(x)).abs().max()) for x in inputs.values())
        figures = " | ".join(f"{times[n][title]:.0f}" for n in BATCHES)
        size = path.stat().st_size / 1e6
        print(f"| {name} | {title} | {size:.2f} | {figures} | {difference:.1e} |", flush=True)


def make_files(network: nn.Module, side: int, folder: Path) -> dict[str, Path]:
    preprocess = convship.Preprocess(side, mean=[0.5] * 3, std=[0.25] * 3)
    samples = [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(2)]
    files = {}
    for suffix in ("pt", "pt2"):
        files[f"convship .{suffix}"] = path = folder / f"ours.{suffix}"
        convship.export_model(network, path, samples=samples, preprocess=preprocess, format=suffix)
    x = torch.rand(2, 3, side, side)
    with torch.no_grad():
        program = torch.export.export(
            without_our_layers(network), (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        for freezing in (True, False):
            path = folder / f"plain{freezing}.pt2"
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": freezing}
            )
            files["plain .pt2, frozen" if freezing else "plain .pt2"] = path
    return files


def without_our_layers(network: nn.Module) -> nn.Module:
    """The same network of torch's own layers."""
    if isinstance(network, convship.ConvPool2d):
        conv = nn.Conv2d(network.in_channels, network.out_channels, network.kernel_size)
        conv.load_state_dict(network.state_dict())
        assert network.extra_repr().count("=") == 3, "only what our models use is translated"
        return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(network.pool_size)).eval()
    for name, child in network.named_children():
        setattr(network, name, without_our_layers(child))
    return network


def opened(path: Path) -> Call:
    if path.name.startswith("ours"):
        model = _C.Model.from_file(path)
        return lambda x: model.run({"input": x})["logits"]
    loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
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
