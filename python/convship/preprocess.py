"""Image to network input, as a module that scripts, so that C++ repeats no constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Preprocess"]


class Preprocess(nn.Module):
    """Resize, crop, choose colour channels, scale to [0, 1] and normalise.

    The result is ``(crop(resize(images)) / 255 - mean) / std``. Resizing is ATen's
    antialiased bilinear on uint8: the same bits on every instruction set, and within one gray
    level of Pillow's and torchvision's, which round differently. To ship a torchvision preset's
    own arithmetic, pass the preset itself to `export_model`.

    Args:
        size: Height and width of the network's input in pixels; one number for a square.
        resize: Length in pixels to which the shorter side is scaled before the centre crop
            to `size`. None scales straight to `size` without keeping the aspect ratio.
        channels: 3 for RGB, 1 for gray.
        mean: Mean per channel, in units of the [0, 1] range.
        std: Standard deviation per channel, in the same units.

    Raises:
        ValueError: For sizes below 2, a channel count other than 1 or 3, a `resize` below
            `size`, or `mean` and `std` that do not fit `channels`.

    Example:
        >>> import torch
        >>> preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> preprocess(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        *,
        resize: int | None = None,
        channels: int = 3,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        # ATen's uint8 resize trips over results of one pixel.
        if min(height, width) < 2:
            raise ValueError(f"Preprocess: size must be at least 2 pixels, got {size}")
        if channels not in (1, 3):
            raise ValueError(f"Preprocess: channels must be 1 (gray) or 3 (RGB), got {channels}")
        if resize is not None and resize < max(height, width):
            raise ValueError(
                f"Preprocess: resize must be at least size {(height, width)}, got {resize}"
            )
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != channels:
                raise ValueError(
                    f"Preprocess: {name} must have one value per channel ({channels}), "
                    f"got {list(values)}"
                )
        if min(std) <= 0:
            raise ValueError(f"Preprocess: std must be positive, got {list(std)}")
        self.height = height
        self.width = width
        self.shorter_side = 0 if resize is None else resize
        self.channels = channels
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, channels, 1, 1), False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, channels, 1, 1), False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's input, float32 [N, channels, height, width].

        Args:
            images: uint8 [N, 3, H, W] RGB, or [N, 1, H, W] gray.
        """
        return self.normalize(self.resize(images))

    def resize(self, images: Tensor) -> Tensor:
        """Return uint8 [N, channels, height, width]: the part that training does once."""
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise ValueError(
                "preprocess: images must be uint8 [N, 3 or 1, H, W], got "
                + str(images.dtype)
                + " "
                + str(images.shape)
            )
        if images.size(1) != 3 and images.size(1) != 1:
            raise ValueError(
                "preprocess: images must have 3 channels (RGB) or 1 (gray), got "
                + str(images.shape)
            )
        images = self._convert_channels(images)
        height, width = images.size(2), images.size(3)
        if self.shorter_side > 0:
            # As torchvision's resize: the longer side is truncated, not rounded.
            if height <= width:
                target = [self.shorter_side, self.shorter_side * width // height]
            else:
                target = [self.shorter_side * height // width, self.shorter_side]
        else:
            target = [self.height, self.width]
        if target[0] * target[1] > 1 << 26:
            raise ValueError(
                "preprocess: the image is too long and thin, scaled it would have more than 64 "
                "megapixels, got " + str(images.shape)
            )
        if target[0] != height or target[1] != width:
            images = F.interpolate(
                images, target, mode="bilinear", align_corners=False, antialias=True
            )
        # round(): centre crops of odd margins fall where torchvision's do. int(): TorchScript's
        # round gives a float.
        top = int(round((target[0] - self.height) / 2.0))  # noqa: RUF046
        left = int(round((target[1] - self.width) / 2.0))  # noqa: RUF046
        return images[:, :, top : top + self.height, left : left + self.width]

    def normalize(self, images: Tensor) -> Tensor:
        """Return float32 of the same shape: scaled to [0, 1], then normalised."""
        return (images.to(torch.float32) / 255.0 - self.mean) / self.std

    def _convert_channels(self, images: Tensor) -> Tensor:
        if images.size(1) == self.channels:
            return images
        if self.channels == 3:
            return images.expand(-1, 3, -1, -1)
        wide = images.to(torch.int32)
        # ITU-R 601 luma in 16-bit fixed point, rounded to nearest: the integers of Pillow's
        # convert("L"), so that gray levels agree bit for bit.
        luma = wide[:, 0:1] * 19595 + wide[:, 1:2] * 38470 + wide[:, 2:3] * 7471
        return ((luma + (1 << 15)) >> 16).to(torch.uint8)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values, for checkpoints."""
        return {
            "size": (self.height, self.width),
            "resize": self.shorter_side or None,
            "channels": self.channels,
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocess:
        """Return the module that `config` describes.

        Example:
            >>> again = Preprocess.from_config(Preprocess(8, mean=[0.5] * 3, std=[1] * 3).config())
            >>> again.height, again.channels
            (8, 3)
        """
        arguments = dict(config)
        arguments["size"] = tuple(arguments["size"])
        return cls(**arguments)
