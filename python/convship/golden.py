"""Goldens: real inputs with the answers of each stage, shipped inside the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from convship.bundle import flatten
from convship.errors import ImageError

# Internal to export and verify.

Image = str | Path | bytes | Tensor
NetworkInput = Mapping[str, Tensor]


@dataclass(frozen=True)
class Golden:
    """One sample.

    Attributes:
        inputs: What the network is called with, by name.
        pixels: uint8 [3, H, W], for a classifier of images.
        file: The JPEG or PNG that the pixels came from, where they came from one.
    """

    inputs: NetworkInput
    pixels: Tensor | None = None
    file: bytes | None = None

    def tensors(self, index: int, answer: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what the file stores of this sample and of the network's `answer` to it."""
        stored = {f"output.{name}": value for name, value in answer.items()}
        if self.pixels is None:
            stored.update({f"input.{name}": value for name, value in self.inputs.items()})
        else:
            stored["pixels"] = self.pixels
            stored["preprocessed"] = self.inputs["input"]
            stored["probabilities"] = probabilities(answer["logits"])
        if self.file is not None:
            stored["file"] = torch.frombuffer(bytearray(self.file), dtype=torch.uint8)
        # safetensors refuses views that share memory.
        return {f"{index}.{key}": value.contiguous().clone() for key, value in stored.items()}


def image_golden(image: Image, preprocess: nn.Module) -> Golden:
    """Return the golden of an image: a path, encoded bytes, or uint8 [3 or 1, H, W].

    Raises:
        FileNotFoundError, convship.ImageError: The image cannot be read or decoded.
        ValueError: A tensor of another dtype or shape.
    """
    from convship import _C

    file: bytes | None = None
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3):
            raise ValueError(
                "export_model: an image must be uint8 [3, H, W] or [1, H, W], got "
                f"{image.dtype} {list(image.shape)}"
            )
        pixels = image.cpu().expand(3, -1, -1).contiguous()
    else:
        if not isinstance(image, str | Path | bytes):
            raise ValueError(
                "export_model: an image must be a path, the bytes of a file, or a uint8 tensor "
                f"[3, H, W], got {type(image).__name__}"
            )
        file = image if isinstance(image, bytes) else read_image_file(image)
        subject = "image" if isinstance(image, bytes) else str(image)
        pixels = _C.decode_image(file, subject)
    return Golden({"input": preprocess(pixels.unsqueeze(0))}, pixels, file)


def read_image_file(path: str | Path) -> bytes:
    """Return the bytes of an image file; raise ImageError where there is none."""
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such image file")
    return path.read_bytes()


def tensor_golden(inputs: NetworkInput) -> Golden:
    """Return the golden of a call with tensors by argument name."""
    # Copies: what the caller does to its tensors later, or the network to its inputs, must not
    # change the golden.
    return Golden({name: value.detach().cpu().clone() for name, value in inputs.items()})


def run_network(network: nn.Module, inputs: NetworkInput, classifier: bool) -> dict[str, Tensor]:
    """Return the network's outputs by name, ``{"logits": ...}`` for a classifier."""
    inputs = {name: value.clone() for name, value in inputs.items()}  # some write to them
    result = network(*inputs.values()) if len(inputs) == 1 else network(**inputs)
    if not classifier:
        return dict(flatten(result))
    return {"logits": result[0] if isinstance(result, tuple) else result}


def probabilities(logits: Tensor) -> Tensor:
    """Return float32 [N, classes], as the method ``predict`` in the file computes them."""
    return torch.softmax(logits.float(), dim=1)


def largest_difference(actual: Tensor | None, expected: Tensor) -> float:
    """Return the largest absolute difference in float64; NaN equals NaN, infinity itself.

    Infinite where shapes differ, or where only one side is NaN or infinite.

    Example:
        >>> largest_difference(torch.tensor([1.0, torch.nan]), torch.tensor([1.5, torch.nan]))
        0.5
    """
    if actual is None or actual.shape != expected.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    a, b = actual.double(), expected.double()
    same = (a == b) | (a.isnan() & b.isnan())
    difference = (a - b).abs().masked_fill(same, 0.0)
    return float(difference.nan_to_num(torch.inf, torch.inf).max())
