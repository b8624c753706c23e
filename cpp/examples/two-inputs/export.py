"""Ships a network with two inputs: how alike are two small pictures?

export.py OUT
"""

import sys

import torch
from torch import Tensor, nn

import convship


class Alike(nn.Module):
    """Cosine of the angle between two pictures, seen through the same convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(1, 4, 3, stride=2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a = torch.flatten(torch.relu(self.look(left)), 1)
        b = torch.flatten(torch.relu(self.look(right)), 1)
        return torch.cosine_similarity(a, b)


if __name__ == "__main__":
    torch.manual_seed(0)
    samples = {"left": torch.rand(2, 1, 8, 8), "right": torch.rand(2, 1, 8, 8)}
    convship.export_model(Alike().eval(), sys.argv[1], samples=[samples])
