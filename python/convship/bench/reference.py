"""The right answer in float64, and how far an engine's may be from it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from convship.bench.grid import Case, Floats

__all__ = ["LIMITS", "Reference"]

# Largest error of the output over sum |x w| + |b|, and of a gradient over its norm. A sum of
# products in float32 stays below 1e-6 whatever its order; 1e-5 leaves room for transforms and
# none for a lower precision. bfloat16 has 8 bits: one rounding of the result is 4e-3.
LIMITS = {"float32": 1e-5, "bfloat16": 1.6e-2}
# Two values of a window that rounding makes equal, or swaps, send the gradient elsewhere.
GRADIENT_LIMITS = {"float32": 1e-2, "bfloat16": 0.3}


class Reference:
    """What the engines' outputs for one case are compared with.

    Args:
        case: The shape; its own numbers are used.
        dtype: Of the run, for the limit.
        train: Whether gradients are compared as well.

    Example:
        >>> from convship.bench.grid import NOTHING
        >>> reference = Reference(NOTHING)
        >>> image, weight, bias = NOTHING.arrays()
        >>> reference.objection({"output": (image * weight + bias).clip(0)})
        ''
    """

    def __init__(self, case: Case, dtype: str = "float32", train: bool = False) -> None:
        self._dtype = dtype
        arrays = [torch.from_numpy(array).double() for array in case.arrays(dtype)]
        inputs = [array.requires_grad_(train) for array in arrays]
        output = _pool(F.relu(_conv(case, *inputs)), case)
        with torch.no_grad():
            scale = _pool(_conv(case, *(array.abs() for array in arrays)), case)
        self._scale: NDArray[np.float64] = scale.numpy()
        self._output: NDArray[np.float64] = output.detach().numpy()
        self._gradients: dict[str, NDArray[np.float64]] = {}
        if train:
            gradients = torch.autograd.grad(output.sum(), inputs)
            names = ("input gradient", "weight gradient", "bias gradient")
            self._gradients = {
                name: gradient.numpy() for name, gradient in zip(names, gradients, strict=True)
            }

    def error(self, output: Floats) -> float:
        """Return the largest error over sum |x w| + |b|, infinite where the shape differs."""
        if output.shape != self._output.shape:
            return float("inf")
        with np.errstate(invalid="ignore"):
            worst = float(np.max(np.abs(output - self._output) / self._scale))
        return worst if np.isfinite(worst) else float("inf")

    def objection(self, outputs: dict[str, Floats]) -> str:
        """Say why these outputs are not the answer; empty where they are."""
        error, limit = self.error(outputs["output"]), LIMITS[self._dtype]
        if error > limit:
            return f"output is off by {error:.1e} of sum |x w|, more than {limit:.1e}"
        for name, expected in self._gradients.items():
            norm = float(np.linalg.norm(expected))
            difference = float(np.linalg.norm(outputs[name] - expected)) / norm
            if not difference <= GRADIENT_LIMITS[self._dtype]:
                return f"{name} is off by {difference:.1e} of its norm"
        return ""


def _conv(case: Case, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(image, weight, bias, case.stride, case.padding, case.dilation, case.groups)


def _pool(values: Tensor, case: Case) -> Tensor:
    # Of the scale too: the maximum of a window is off by no more than its largest member may be.
    return F.max_pool2d(values, case.pool_size, case.pool_stride, case.pool_padding)
