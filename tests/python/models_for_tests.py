"""Small networks and images that several tests ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import convship
from convship.models import LeNet5

LABELS = ["red", "green", "blue", "gray", "other"]


class LoopAndBranch(nn.Module):
    """How often it loops and which way it goes depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, steps: Tensor) -> dict[str, Tensor]:
        for _ in range(int(steps)):
            x = torch.relu(self.linear(x)) + 0.1
            if bool(x.sum() > 3):
                x = x * 0.5
        return {"x": x, "steps": steps}


class ListsAndTuples(nn.Module):
    """Two inputs; a tuple of a list, a dict and a number comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, a: Tensor, b: Tensor) -> tuple[list[Tensor], dict[str, Tensor], int]:
        mixed = self.linear(a) + b
        return [mixed, mixed * 2], {"sum": mixed.sum(), "first": mixed[0]}, a.size(0)


class LiteralOp(nn.Module):
    """Calls the op by name, so that the file needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.convship.conv_pool2d(x, self.weight, padding=1)


def classifier(seed: int = 0) -> tuple[nn.Module, convship.Preprocess]:
    """A small colour classifier and its preprocessing."""
    torch.manual_seed(seed)
    preprocess = convship.Preprocess(32, mean=[0.5] * 3, std=[0.25] * 3)
    return LeNet5(num_classes=len(LABELS), in_channels=3), preprocess


def write_images(folder: Path, count: int = 4) -> list[Path]:
    """JPEG and PNG files of different sizes, colourful and smooth."""
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        height, width = generator.integers(20, 120, 2)
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = folder / f"image{index}.{'jpg' if index % 2 else 'png'}"
        Image.fromarray(coarse).resize((int(width), int(height))).save(path)
        paths.append(path)
    return paths
