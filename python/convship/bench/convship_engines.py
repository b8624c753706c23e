"""Ours: the module, the bare function, and the packed op called from C++."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from convship import _library, nn, ops
from convship.bench.engine import Engine
from convship.bench.grid import Case, Floats
from convship.bench.settings import Settings
from convship.bench.torch_engines import TorchEngine


class _Ours(TorchEngine):
    def __init__(self, case: Case, settings: Settings, accuracy: str) -> None:
        self.accuracy = accuracy
        _use_isa(settings)
        super().__init__(case, settings)

    def arguments(self, case: Case) -> dict[str, Any]:
        return {
            "stride": case.stride,
            "padding": case.padding,
            "dilation": case.dilation,
            "groups": case.groups,
            "pool_size": case.pool_size,
            "pool_stride": case.pool_stride,
            "pool_padding": case.pool_padding,
            "accuracy": self.accuracy,
        }


class Module(_Ours):
    """`ConvPool2d` in eval mode, which may keep packed weights; in training, in train mode."""

    def build(
        self, case: Case, settings: Settings
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """Return the module."""
        kernel = (case.weight[2], case.weight[3])
        module = nn.ConvPool2d(case.input[1], case.weight[0], kernel, **self.arguments(case))
        return module, self.fill(module)


class Function(_Ours):
    """`conv_pool2d` with plain weights, packed anew in every call."""

    def build(
        self, case: Case, settings: Settings
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """Return the function, all arguments but the input bound."""
        parameters = [
            tensor.detach().requires_grad_(self.train) for tensor in (self.weight, self.bias)
        ]
        return partial(
            _call, weight=parameters[0], bias=parameters[1], arguments=self.arguments(case)
        ), parameters


def _call(input: Tensor, weight: Tensor, bias: Tensor, arguments: dict[str, Any]) -> Tensor:
    return ops.conv_pool2d(input, weight, bias, **arguments)


class Native(_Ours):
    """The packed op in a C++ loop: what a program without Python sees."""

    def build(
        self, case: Case, settings: Settings
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """Pack the weights once."""
        self.time: Callable[..., tuple[Tensor, float]] = _library.load().time_conv_pool2d
        prepack = _library.load().conv_pool2d_prepack
        self.packed = prepack(self.weight, self.bias, **self.arguments(case))
        return lambda input: self.time(self.packed, input, 1e-6)[0], []

    def measure(self, seconds: float) -> float:
        """Let C++ count; it returns seconds per call."""
        with self.context():
            return self.time(self.packed, self.input, seconds)[1]


class FmaRate(Engine):
    """Not an engine to compare: how long one floating-point operation takes at best."""

    def __init__(self, case: Case, settings: Settings) -> None:
        _use_isa(settings)
        self.rate: Callable[[float], float] = _library.load().fma_rate

    def outputs(self) -> dict[str, Floats]:
        """Return nothing: there is no answer to check."""
        return {}

    def measure(self, seconds: float) -> float:
        """Return seconds per floating-point operation of one core."""
        return 1 / self.rate(seconds)


def _use_isa(settings: Settings) -> None:
    if settings.isa is not None:
        _library.load().set_isa(settings.isa)
