"""Layers of narrow numbers, in torch's own operators. Internal to precision.

Written for TorchScript: what the file holds is these layers, with their weights as narrow as they
are multiplied; freezing makes float32 of them when the file is loaded.
"""

# No `from __future__ import annotations` here: TorchScript does not understand postponed ones.

import torch
from torch import Tensor, nn
from torch.nn import functional


def _fixed(bias: Tensor | None) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)


class Bfloat16Operands(nn.Module):
    """A weight in bfloat16, its bias, and how its layer's input is rounded."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
        self.bias = _fixed(bias)

    def matrix(self) -> Tensor:
        """Return the weight as float32."""
        return self.weight.to(torch.float32)

    def forward(self, input: Tensor) -> Tensor:
        """Return the nearest bfloat16 numbers, as float32."""
        return input.to(torch.bfloat16).to(torch.float32)


class Int8Operands(nn.Module):
    """A weight in 255 levels for each output channel, and 256 levels for its layer's input.

    Args:
        weight: float32 [out, ...].
        bias: float32 [out], or None.
        steps: float32 [out], between the levels of a channel.
        scale: Between the levels of the input.
        zero_point: The level of 0, 0..255.
    """

    scale: float
    zero_point: int

    def __init__(
        self, weight: Tensor, bias: Tensor | None, steps: Tensor, scale: float, zero_point: int
    ) -> None:
        super().__init__()
        shape = [-1] + [1] * (weight.dim() - 1)
        levels = (weight / steps.reshape(shape)).round().clamp(-127, 127).to(torch.int8)
        self.weight = nn.Parameter(levels, requires_grad=False)
        self.steps = nn.Parameter(steps.reshape(shape), requires_grad=False)
        self.bias = _fixed(bias)
        self.scale = scale
        self.zero_point = zero_point

    def matrix(self) -> Tensor:
        """Return the weight as float32."""
        return self.weight.to(torch.float32) * self.steps

    def forward(self, input: Tensor) -> Tensor:
        """Return the nearest levels, as float32."""
        return torch.fake_quantize_per_tensor_affine(input, self.scale, self.zero_point, 0, 255)


Operands = Bfloat16Operands | Int8Operands


class RoundedConv2d(nn.Module):
    """As nn.Conv2d, of rounded inputs and weights."""

    def __init__(
        self,
        operands: Operands,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> None:
        super().__init__()
        self.operands = operands
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        """Return [N, out, P, Q] of [N, in, H, W]."""
        return functional.conv2d(
            self.operands(input),
            self.operands.matrix(),
            self.operands.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


class RoundedLinear(nn.Module):
    """As nn.Linear, of rounded inputs and weights."""

    def __init__(self, operands: Operands) -> None:
        super().__init__()
        self.operands = operands

    def forward(self, input: Tensor) -> Tensor:
        """Return [..., out] of [..., in]."""
        return functional.linear(
            self.operands(input),
            self.operands.matrix(),
            self.operands.bias,
        )
