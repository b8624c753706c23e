"""torch's own ops, eager and compiled, and the base of everything that runs in torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import FunctionType, MethodType

import torch
import torch._dynamo
import torch._inductor
from torch import Tensor, nn

from convship.bench.engine import Engine
from convship.bench.grid import Case, Floats
from convship.bench.settings import Settings


class TorchEngine(Engine):
    """Computes `self.function(input)`, in inference mode or forward and backward together."""

    def __init__(self, case: Case, settings: Settings, channels_last: bool | None = None) -> None:
        torch.set_num_threads(settings.threads)
        if channels_last is None:
            channels_last = settings.layout == "channels_last"
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        dtype = getattr(torch, settings.dtype)
        image, weight, bias = (
            torch.from_numpy(array).to(dtype) for array in case.arrays(settings.dtype)
        )
        self.train = settings.train
        self.input = image.contiguous(memory_format=self.format).requires_grad_(self.train)
        self.weight = weight.contiguous(memory_format=self.format)
        self.bias = bias
        self.function, self.parameters = self.build(case, settings)
        self.call = partial(self.function, self.input)
        if self.train:
            self.gradient = torch.ones(case.output, dtype=dtype).contiguous(
                memory_format=self.format
            )
            self.call = self._forward_and_backward

    def build(
        self, case: Case, settings: Settings
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """Return the function to call, and weight and bias as it knows them."""
        raise NotImplementedError

    def context(self) -> AbstractContextManager[object]:
        """Inference mode, entered once: switching it is not part of a call."""
        return nullcontext() if self.train else torch.inference_mode()

    def outputs(self) -> dict[str, Floats]:
        """Return the output and, in training, the gradients."""
        with self.context():
            result = {"output": self.function(self.input)}
            if self.train:
                names = ("input gradient", "weight gradient", "bias gradient")
                result |= zip(names, self._forward_and_backward(), strict=True)
            return {
                name: tensor.detach().float().contiguous().numpy()
                for name, tensor in result.items()
            }

    def fill(self, module: nn.Module) -> list[Tensor]:
        """Give a module our weight and bias; return its parameters."""
        dtype, train = self.weight.dtype, self.train
        module.to(dtype=dtype, memory_format=self.format)  # type: ignore[call-overload]
        module.train(train).requires_grad_(train)
        parameters: list[Tensor] = list(module.parameters())
        with torch.no_grad():
            for parameter, values in zip(parameters, (self.weight, self.bias), strict=True):
                parameter.copy_(values)
        return parameters

    def _forward_and_backward(self) -> tuple[Tensor, ...]:
        output = self.function(self.input)
        return torch.autograd.grad(output, [self.input, *self.parameters], self.gradient)


class Unfused(TorchEngine):
    """Conv2d, ReLU, MaxPool2d: what people write."""

    def build(
        self, case: Case, settings: Settings
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """Return the three modules in a row."""
        module = nn.Sequential(
            nn.Conv2d(
                case.input[1],
                case.weight[0],
                (case.weight[2], case.weight[3]),
                case.stride,
                case.padding,
                case.dilation,
                case.groups,
            ),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(case.pool_size, case.pool_stride, case.pool_padding),
        )
        return module, self.fill(module)


class Compiled(Unfused):
    """The same through torch.compile, with every option that helps inference."""

    def build(
        self, case: Case, settings: Settings
    ) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
        """Return the compiled modules; the first call compiles."""
        # As global settings: given per function, they cost time in every call.
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch._inductor.config.freezing = True
        module, parameters = super().build(case, settings)
        # A code object of its own, or each shape would be a recompilation of the one before.
        code = nn.Sequential.forward.__code__.replace(co_name=f"forward_{case.name}")
        forward = FunctionType(code, nn.Sequential.forward.__globals__)
        options = torch._inductor.list_mode_options("max-autotune")
        if settings.compile_vector_bits is not None:
            options["cpp.simdlen"] = settings.compile_vector_bits
        compiled = torch.compile(MethodType(forward, module), options=options)
        with self.context():
            compiled(self.input)
        return compiled, parameters
