"""Augmentation of whole batches: uint8 images in, uint8 images out.

Working before normalisation keeps one contract: the network's input always is
``preprocess.normalize(uint8)``, in training as in the exported file. All randomness comes from the
caller's generator, so that an interrupted epoch can be repeated exactly. Processes that divide a
batch each draw for all of it and take their own part: an image is altered alike, however many
there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ALONE", "Augment", "Share", "flip", "rotate_and_scale", "shift"]

# Rank and number of the processes: images rank, rank + number, ... of a block are ours.
Share = tuple[int, int]
ALONE: Share = (0, 1)


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

    def __call__(self, images: Tensor, generator: torch.Generator, share: Share = ALONE) -> Tensor:
        """Return augmented copies of `images`, uint8 [N, C, H, W], our share of a block."""
        if self.rotate or self.scale:
            images = rotate_and_scale(images, self.rotate, self.scale, generator, share)
        if self.shift:
            images = shift(images, self.shift, generator, share)
        if self.flip:
            images = flip(images, generator, share)
        return images


def flip(images: Tensor, generator: torch.Generator, share: Share = ALONE) -> Tensor:
    """Mirror a random half of `images`, uint8 [N, C, H, W], left to right.

    Example:
        >>> flip(torch.arange(4).byte().view(1, 1, 1, 4), torch.Generator().manual_seed(1)).tolist()
        [[[[0, 1, 2, 3]]]]
    """
    chosen = _uniform(len(images), generator, share) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def shift(
    images: Tensor, distance: int, generator: torch.Generator, share: Share = ALONE
) -> Tensor:
    """Shift each of `images`, uint8 [N, C, H, W], by up to `distance` pixels each way.

    Example:
        >>> shift(torch.ones(1, 1, 4, 4).byte(), 1, torch.Generator()).shape
        torch.Size([1, 1, 4, 4])
    """
    height, width = images.shape[-2:]
    distance = min(distance, height - 1, width - 1)  # reflection reaches no further
    count = len(images)
    rows, columns = (_below(2 * distance + 1, count, generator, share) for _ in range(2))
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
    images: Tensor,
    degrees: float,
    scale: float,
    generator: torch.Generator,
    share: Share = ALONE,
) -> Tensor:
    """Rotate by up to `degrees` and scale by up to `scale`, around the centre.

    Example:
        >>> rotate_and_scale(torch.ones(1, 1, 4, 4).byte(), 10, 0.1, torch.Generator()).dtype
        torch.uint8
    """
    count = len(images)
    angles = (_uniform(count, generator, share) * 2 - 1) * math.radians(degrees)
    sizes = 1 + (_uniform(count, generator, share) * 2 - 1) * scale
    cosine, sine = angles.cos() / sizes, angles.sin() / sizes
    zero = torch.zeros(count)
    matrices = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(count, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = F.grid_sample(
        images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return moved.round_().clamp_(0, 255).to(torch.uint8)


def _uniform(count: int, generator: torch.Generator, share: Share) -> Tensor:
    rank, world = share
    return torch.rand(count * world, generator=generator)[rank::world]


def _below(limit: int, count: int, generator: torch.Generator, share: Share) -> Tensor:
    rank, world = share
    return torch.randint(0, limit, (count * world,), generator=generator)[rank::world]
