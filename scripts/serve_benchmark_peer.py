"""The Python server that scripts/serve_benchmark measures: FastAPI, and the engine of ENGINE."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image

FOLDER = Path(os.environ["FOLDER"])
SIDE = 32

torch.set_num_threads(1)  # a process per CPU fills the machine
module = torch.jit.load(str(FOLDER / "lenet.pt")).eval()
labels = (FOLDER / "labels.txt").read_text().split()


def engine() -> Callable[[np.ndarray], np.ndarray]:
    if os.environ["ENGINE"] == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(FOLDER / "lenet.onnx", options)
        return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(x)).numpy()

    return run


forward = engine()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    image = Image.open(io.BytesIO(await request.body())).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        x = module.preprocess(pixels).numpy()
    logits = forward(x)[0]
    exps = np.exp(logits - logits.max())
    probabilities = exps / exps.sum()
    best = np.argsort(-probabilities, kind="stable")[:5]
    return {
        "predictions": [
            {"label": labels[i], "index": int(i), "probability": float(probabilities[i])}
            for i in best
        ]
    }


@app.post("/infer")
async def infer(request: Request) -> dict[str, object]:
    x = np.frombuffer(await request.body(), np.float32).reshape(-1, 1, SIDE, SIDE)
    return {"logits": forward(x.copy()).tolist()}
