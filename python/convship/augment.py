"""Augmentation of whole batches: uint8 images in, uint8 images out.

Working before normalisation keeps one contract: the network's input always is
``preprocess.normalize(uint8)``, in training as in the exported file. All randomness comes from the
caller's generator, so that an interrupted epoch can be repeated exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Augment", "flip", "rotate_and_scale", "shift"]


@dataclass(frozen=True)
class Augment:
    """Random flip, shift, rotation and scale, drawn for every image.

    Args:
        flip: Whether half of the images are mirrored left to right.
        shift: Largest shift in pixels, in both directions; edges repeat mirrored.
        rotate: Largest rotation in degrees.
        scale: Largest relative change of size; 0.1 is 90 to 110 %.

    Example:
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> Augment(flip=True, shift=2)(images, torch.Generator()).shape
        torch.Size([4, 3, 32, 32])
    """

    flip: bool = False
    shift: int = 0
    rotate: float = 0.0
    scale: float = 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented copies of `images`, uint8 [N, C, H, W]."""
        if self.rotate or self.scale:
            images = rotate_and_scale(images, self.rotate, self.scale, generator)
        if self.shift:
            images = shift(images, self.shift, generator)
        if self.flip:
            images = flip(images, generator)
        return images


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror a random half of `images`, uint8 [N, C, H, W], left to right.

    Example:
        >>> flip(torch.arange(4).byte().view(1, 1, 1, 4), torch.Generator().manual_seed(1)).tolist()
        [[[[0, 1, 2, 3]]]]
    """
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def shift(images: Tensor, distance: int, generator: torch.Generator) -> Tensor:
    """Shift each of `images`, uint8 [N, C, H, W], by up to `distance` pixels each way.

    Example:
        >>> shift(torch.ones(1, 1, 4, 4).byte(), 1, torch.Generator()).shape
        torch.Size([1, 1, 4, 4])
    """
    height, width = images.shape[-2:]
    distance = min(distance, height - 1, width - 1)  # reflection reaches no further
    count = len(images)
    rows = torch.randint(0, 2 * distance + 1, (count,), generator=generator)
    columns = torch.randint(0, 2 * distance + 1, (count,), generator=generator)
    # All images of one shift are copied together, axis by axis: whole rows at memory speed,
    # where one gather for everything would go pixel by pixel.
    for dim, length, starts in ((-2, height, rows), (-1, width, columns)):
        padding = (0, 0, distance, distance) if dim == -2 else (distance, distance, 0, 0)
        padded = F.pad(images, padding, mode="reflect")
        images = torch.empty_like(images)
        for start in range(2 * distance + 1):
            chosen = (starts == start).nonzero().flatten()
            part = padded.narrow(dim, start, length)
            images.index_copy_(0, chosen, part.index_select(0, chosen))
    return images


def rotate_and_scale(
    images: Tensor, degrees: float, scale: float, generator: torch.Generator
) -> Tensor:
    """Rotate by up to `degrees` and scale by up to `scale`, around the centre.

    Example:
        >>> rotate_and_scale(torch.ones(1, 1, 4, 4).byte(), 10, 0.1, torch.Generator()).dtype
        torch.uint8
    """
    count = len(images)
    angles = (torch.rand(count, generator=generator) * 2 - 1) * math.radians(degrees)
    sizes = 1 + (torch.rand(count, generator=generator) * 2 - 1) * scale
    cosine, sine = angles.cos() / sizes, angles.sin() / sizes
    zero = torch.zeros(count)
    matrices = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return moved.round_().clamp_(0, 255).to(torch.uint8)
