"""A shipped classifier as torch loads it: stock, and differentiable down to its input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convship import _library
from convship.bundle import MANIFEST, Manifest, read_extras
from convship.golden import read_image_file
from convship.scripting import first_line

__all__ = ["BASELINES", "Classifier", "Input", "open_classifier"]

BASELINES = ("mean", "black", "white")


@dataclass
class Input:
    """One image on its way into the network.

    Attributes:
        tensor: float32 [1, C, S, S], what the network is called with.
        baseline: The same shape: an image that shows nothing.
        picture: float32 [C, S, S] in [0, 1], `tensor` as it can be looked at.
    """

    tensor: Tensor
    baseline: Tensor
    picture: Tensor


class Classifier(nn.Module):
    """Network input [N, C, S, S] to logits [N, classes].

    It is what `torch.jit.load` gives, not `convship.load`: its operators, among them
    ``convship::conv_pool2d``, have gradients, where a plan of kernels has none.

    Attributes:
        path: The file.
        labels: Name of each class.
    """

    def __init__(self, path: Path, labels: list[str], module: Any) -> None:
        super().__init__()
        self.path = path
        self.labels = labels
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        # Otherwise TorchScript may differentiate parts of the network by itself, and what happens
        # inside of them is no longer seen.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            logits: Tensor = self.module(inputs)
        return logits

    def read(self, image: str | Path | bytes, baseline: str = "mean") -> Input:
        """Decode an image and preprocess it as the file says.

        Args:
            image: Path of a JPEG or PNG file, or the bytes of one.
            baseline: "mean", the mean colour of the network's input; "black" or "white".

        Raises:
            ImageError: The image cannot be read or decoded.
            ValueError: Another baseline.
        """
        if baseline not in BASELINES:
            raise ValueError(
                f"explain: baseline must be one of {', '.join(BASELINES)}, got {baseline!r}"
            )
        from convship import _C

        encoded = image if isinstance(image, bytes) else read_image_file(image)
        subject = "image" if isinstance(image, bytes) else str(image)
        pixels = _C.decode_image(encoded, subject).unsqueeze(0)
        with torch.no_grad():
            tensor = self.module.preprocess(pixels).clone()
            black = self.module.preprocess(torch.zeros_like(pixels))
            white = self.module.preprocess(torch.full_like(pixels, 255))
        nothing = {
            "mean": tensor.mean((2, 3), keepdim=True).expand_as(tensor).clone(),
            "black": black,
            "white": white,
        }
        # Normalisation is undone without knowing it: black is 0, white is 1.
        picture = ((tensor - black) / (white - black)).clamp(0, 1)[0]
        return Input(tensor, nothing[baseline], picture)

    def check_differentiable(self, inputs: Tensor) -> None:
        """Raise ValueError where no gradient reaches the input."""
        inputs = inputs.detach().requires_grad_()
        try:
            logits = self(inputs)
            if logits.requires_grad:
                torch.autograd.grad(logits.sum(), inputs)
                return
            reason = "its outputs do not depend on the input in a way that torch records"
        except (RuntimeError, NotImplementedError) as error:
            reason = first_line(error)
        raise ValueError(
            f"explain: {self.path} passes no gradient to its input ({reason}); "
            "occlusion needs none: --methods occlusion"
        )


def open_classifier(path: str | Path) -> Classifier:
    """Load a shipped classifier, its digest and structure checked first.

    Raises:
        FileNotFoundError, ModelFileError: There is no such file, or it is no convship model.
        ValueError: It classifies no images, or is compiled (.pt2).

    Example:
        >>> open_classifier("README.md")
        Traceback (most recent call last):
            ...
        convship.errors.ModelFileError: README.md: this is not a convship model (no ZIP archive)
    """
    path = Path(path)
    manifest = Manifest.model_validate_json(read_extras(path)[MANIFEST])
    if manifest.task != "classification":
        raise ValueError(f"explain: {path} is no classifier of images, so there is no class")
    if manifest.compiled_for is not None:
        raise ValueError(
            f"explain: {path} is compiled, and native code has no gradient; export the network as "
            ".pt too (format='pt') and explain that"
        )
    _library.load()  # the file may call the ops
    module = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call, unused-ignore]
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # only the input's gradient is wanted
    return Classifier(path, manifest.labels, module)
