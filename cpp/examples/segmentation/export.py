"""Ships a small segmentation network: which pixels are red, which green, which blue.

export.py OUT
"""

import sys

import torch
from torch import Tensor, nn

import convship


class Segment(nn.Module):
    """Scores per class and pixel: how much a 3x3 neighbourhood has of each colour."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        with torch.no_grad():
            self.mean.weight.zero_()
            for channel in range(3):
                self.mean.weight[channel, channel] = 1 / 9

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        scores = self.mean(image)
        return {"scores": scores, "classes": scores.argmax(1)}


if __name__ == "__main__":
    torch.manual_seed(0)
    convship.export_model(Segment().eval(), sys.argv[1], samples=[torch.rand(1, 3, 24, 32)])
