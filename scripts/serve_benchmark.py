"""Requests per second and latencies of convship-run serve and of Python servers, by wrk."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import convship
from convship.models import LeNet5
from convship.verify import native_program

SIDE = 32
LABELS = [str(digit) for digit in range(10)]
PEERS = ("torch", "onnxruntime")
TOLERANCE = 1e-5  # of a probability: the engines sum in different orders


@dataclass
class Load:
    """What wrk sends."""

    name: str
    path: str
    body: bytes
    headers: dict[str, str]


def write_model(folder: Path) -> bytes:
    """Write lenet.pt, lenet.onnx and labels.txt; return a JPEG of a digit."""
    torch.manual_seed(0)
    digits = np.load(Path(convship.__file__).parent / "assets/digits.npz")["images"]
    Image.fromarray(digits[7]).resize((64, 64)).save(folder / "digit.jpg")
    network = LeNet5().eval()
    preprocess = convship.Preprocess(SIDE, mean=[0.5], std=[0.25], channels=1)
    convship.export_model(
        network,
        folder / "lenet.pt",
        samples=[folder / "digit.jpg"],
        preprocess=preprocess,
        labels=LABELS,
    )
    (folder / "labels.txt").write_text(" ".join(LABELS))
    plain = torch.jit.load(str(folder / "lenet.pt"))
    example = torch.zeros(1, 1, SIDE, SIDE)
    torch.onnx.export(
        plain,
        (example,),
        str(folder / "lenet.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=["input"],
        dynamic_axes={"input": {0: "N"}},
    )
    return (folder / "digit.jpg").read_bytes()


def loads(jpeg: bytes, x: np.ndarray) -> dict[str, dict[str, Load]]:
    """By kind of server; a tensor travels as its bytes, which is each server's fastest way."""
    given: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": list(x.shape)}
    given["parameters"] = {"binary_data_size": x.nbytes}
    head = json.dumps({"inputs": [given]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    image = Load("image", "/predict", jpeg, {})
    return {
        "native": {
            "image": image,
            "tensor": Load("tensor", "/v2/models/lenet/infer", head + x.tobytes(), length),
        },
        "python": {"image": image, "tensor": Load("tensor", "/infer", x.tobytes(), {})},
    }


@contextmanager
def native_server(folder: Path) -> Iterator[str]:
    command = [native_program(), "serve", folder / "lenet.pt", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "listening":
                break
        yield event["url"]
        process.terminate()


@contextmanager
def python_server(folder: Path, engine: str, port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "uvicorn", "serve_benchmark_peer:app", "--port", str(port)]
    command += ["--workers", str(os.cpu_count()), "--no-access-log", "--log-level", "error"]
    environment = {**os.environ, "ENGINE": engine, "FOLDER": str(folder)}
    url = f"http://127.0.0.1:{port}"
    here = Path(__file__).parent
    with subprocess.Popen(command, cwd=here, env=environment) as process:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/openapi.json").close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(5)  # until the other processes have loaded torch, too
        yield url
        process.terminate()


def ask(url: str, load: Load) -> Any:
    request = urllib.request.Request(url + load.path, load.body, load.headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def logits_of(answer: dict[str, Any]) -> list[float]:
    if "outputs" in answer:
        return answer["outputs"][0]["data"]
    return answer["logits"][0]


def check_answers(urls: dict[str, str], by_server: dict[str, dict[str, Load]]) -> None:
    """A server that answers something else is not worth measuring."""
    expected = None
    for name, url in urls.items():
        image = ask(url, by_server[name]["image"])["predictions"]
        logits = logits_of(ask(url, by_server[name]["tensor"]))
        got = [each["probability"] for each in sorted(image, key=lambda each: each["index"])]
        got += logits
        expected = expected or got
        error = max(abs(a - b) for a, b in zip(got, expected, strict=True))
        if error > TOLERANCE:
            sys.exit(f"serve_benchmark: {name} answers otherwise, by {error}")
        print(f"{name}: answers agree, largest difference {error:.1e}", flush=True)


def wrk(url: str, load: Load, connections: int, seconds: int, folder: Path) -> dict[str, float]:
    (folder / "body").write_bytes(load.body)
    script = [
        'wrk.method = "POST"',
        f'wrk.body = io.open("{folder / "body"}", "rb"):read("*a")',
        *(f'wrk.headers["{name}"] = "{value}"' for name, value in load.headers.items()),
    ]
    (folder / "post.lua").write_text("\n".join(script))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    out = subprocess.run(
        [*command, "-s", str(folder / "post.lua"), url + load.path],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"serve_benchmark: {url}{load.path} fails under load:\n{out}")
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def latency_ms(share: int) -> float:
        value, name = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", out).groups()  # type: ignore[union-attr]
        return float(value) * unit[name]

    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1])  # type: ignore[index]
    return {"rate": rate, "p50": latency_ms(50), "p99": latency_ms(99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=3, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements, interleaved")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 32])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        jpeg = write_model(folder)
        x = np.random.default_rng(0).normal(size=(1, 1, SIDE, SIDE)).astype(np.float32)
        urls = {"convship-run serve": stack.enter_context(native_server(folder))}
        for number, engine in enumerate(PEERS):
            urls[f"FastAPI, {engine}"] = stack.enter_context(
                python_server(folder, engine, 18080 + number)
            )
        kinds = loads(jpeg, x)
        by_server = {
            server: kinds["native" if server.startswith("convship") else "python"]
            for server in urls
        }
        check_answers(urls, by_server)
        figures: dict[tuple[str, int, str], list[dict[str, float]]] = {}
        for _ in range(arguments.rounds):
            for kind in ("image", "tensor"):
                for connections in arguments.connections:
                    for server, url in urls.items():
                        load = by_server[server][kind]
                        wrk(url, load, connections, 1, folder)  # warms up
                        result = wrk(url, load, connections, arguments.seconds, folder)
                        figures.setdefault((kind, connections, server), []).append(result)
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
    print(f"\n{datetime.date.today()}, {cpu}, {os.cpu_count()} CPUs, wrk beside the server\n")
    print("| request | connections | server | requests/s | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|")
    for (kind, connections, server), results in figures.items():
        rate, p50, p99 = (
            statistics.median(each[key] for each in results) for key in ("rate", "p50", "p99")
        )
        print(f"| {kind} | {connections} | {server} | {rate:,.0f} | {p50:.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
