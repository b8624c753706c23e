"""The right answer of a network in float64, and how far a rung's may be from it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convship.bench.network_case import NetworkCase
from convship.bench.torch_rungs import open_file, script_module
from convship.bundle import flatten

__all__ = ["Answers"]

# Between what float32 and bfloat16 round (16 bits apart), half way: room for every order of
# summation and for transforms, none for a lower precision.
_FACTOR = 2.0**8
_FLOAT32_ROUNDS = 2.0**-24
# Where the network cannot run in float64, its own float32 answer is the reference, and a share
# of the largest value that bfloat16 exceeds in networks of any depth is the limit.
_WITHOUT_FLOAT64 = 1e-3
# A network that rounds what it multiplies: in another order of summation other values lie between
# two numbers, and our runtime leaves roundings to bfloat16 out where they gain nothing.
_NARROW = 5e-2
_NARROW_TYPES = (torch.bfloat16, torch.float16, torch.int8)


class Answers:
    """What every rung's outputs are compared with.

    Args:
        case: The network and its input.

    Attributes:
        exact: Whether the reference is float64.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/x.npy", np.ones((1, 3), np.float32))
        ...     torch.jit.script(torch.nn.ReLU()).save(f"{folder}/net.pt")
        ...     inputs = (("input", f"{folder}/x.npy"),)
        ...     answers = Answers(NetworkCase("batch 1", 1, f"{folder}/net.pt", True, inputs))
        >>> answers.objection([np.ones((1, 3), np.float32)])
        ''
        >>> answers.objection([np.full((1, 3), 1.1, np.float32)])
        'output 0 is off by 1.0e-01 of its largest value, more than 1.5e-05'
    """

    def __init__(self, case: NetworkCase) -> None:
        tensors = [torch.from_numpy(array) for array in case.arrays()]
        narrow = wide = _run(open_file(case), tensors)
        self._narrow = False
        if not case.package:  # native code has one precision
            module = script_module(case)
            self._narrow = any(
                tensor.dtype in _NARROW_TYPES
                for tensor in (*module.parameters(), *module.buffers())
            )
            with contextlib.suppress(RuntimeError):  # it insists on float32 somewhere inside
                doubled = [_double(tensor) for tensor in tensors]
                wide = _run(module.double(), doubled)
        self.exact = wide is not narrow
        self._reference = wide
        self._limits = [self._limit(mine, exact) for mine, exact in zip(narrow, wide, strict=True)]

    def error(self, outputs: Sequence[NDArray[Any]]) -> float:
        """Return the largest error over an output's largest value, infinite where shapes differ."""
        if len(outputs) != len(self._reference):
            return float("inf")
        pairs = zip(outputs, self._reference, strict=True)
        return max((_relative(given, right) for given, right in pairs), default=float("inf"))

    def objection(self, outputs: Sequence[NDArray[Any]]) -> str:
        """Say why these outputs are not the answer; empty where they are."""
        if len(outputs) != len(self._reference):
            return f"gives {len(outputs)} outputs, the network has {len(self._reference)}"
        for number, (given, right, limit) in enumerate(
            zip(outputs, self._reference, self._limits, strict=True)
        ):
            if given.shape != right.shape:
                return f"output {number} has shape {list(given.shape)}, not {list(right.shape)}"
            error = _relative(given, right)
            if not error <= limit:
                return (
                    f"output {number} is off by {error:.1e} of its largest value, "
                    f"more than {limit:.1e}"
                )
        return ""

    def _limit(self, mine: NDArray[Any], exact: NDArray[Any]) -> float:
        if mine.dtype.kind != "f":
            return 0.0
        if self._narrow:
            return _NARROW
        if not self.exact:
            return _WITHOUT_FLOAT64
        return _FACTOR * max(_relative(mine, exact), _FLOAT32_ROUNDS)


def _relative(given: NDArray[Any], right: NDArray[Any]) -> float:
    if given.shape != right.shape:
        return float("inf")
    if right.size == 0:
        return 0.0
    a, b = given.astype(np.float64), right.astype(np.float64)
    with np.errstate(invalid="ignore"):
        worst = float(np.max(np.abs(a - b)))
    if not np.isfinite(worst):
        return float("inf")
    return worst / max(float(np.max(np.abs(b))), float(np.finfo(np.float32).tiny))


def _run(module: torch.nn.Module, tensors: list[Tensor]) -> list[NDArray[Any]]:
    with torch.inference_mode():
        return [value.numpy() for _, value in flatten(module(*tensors))]


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
