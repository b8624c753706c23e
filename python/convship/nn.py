"""Modules over the ops: what a network is built of."""

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from convship import ops  # loads the compiled library

from convship import _C  # isort: skip

# No `from __future__ import annotations` here: TorchScript reads the
# annotations of scripted modules and does not understand postponed ones.

_Pair = tuple[int, int]

# Found once: forward passes of small layers take a few microseconds.
_is_dynamo_compiling = torch.compiler.is_dynamo_compiling


class ConvPool2d(nn.Module):
    """Convolution, activation and max pooling in one pass.

    ``max_pool2d(act(conv2d(input, weight, bias)))``, with the same parameters
    (``weight``, ``bias``), the same initialisation and the same `state_dict`
    keys as `torch.nn.Conv2d`, so that checkpoints can be exchanged.

    Scripted or traced, it becomes the plain torch composition: such a file
    opens wherever torch does. Under `torch.compile` and `torch.export` it is
    the one op ``convship::conv_pool2d``.

    In eval mode, while no gradients are recorded (`torch.no_grad`,
    `torch.inference_mode`), a layer on the CPU keeps its weights packed for
    the kernels. It packs them again when a parameter has been replaced,
    moved, converted or written to in place, as `load_state_dict` and
    optimizers do. Writes that torch does not count cannot be seen: through
    ``.data`` or NumPy, from another process, or to an inference tensor; call
    `repack` after them. What is packed belongs neither to the `state_dict`
    nor to copies and pickles of the module. Forward may be called from many
    threads.

    Args:
        in_channels: C_in, channels of the input.
        out_channels: C_out, channels of the output.
        kernel_size: K_h and K_w of the convolution, one integer or a pair.
        stride: step of the convolution.
        padding: zeros added on each side of the input.
        dilation: distance between taps of the kernel.
        groups: number of channel groups; divides C_in and C_out.
        bias: whether a bias is learned.
        activation: "relu" or "none".
        pool_size: window of the max pooling.
        pool_stride: step of the pooling; `pool_size` where None.
        pool_padding: implicit -inf added on each side before pooling, at most
            half of `pool_size`.
        ceil_mode: whether windows that hang over the edge are kept.
        accuracy: "default", "direct" or "fast"; see `convship.ops.conv_pool2d`.
        device: where the parameters live.
        dtype: floating-point type of the parameters.

    Raises:
        ValueError: an argument is out of range; the message says which.
        TypeError: an argument that should be an integer or a pair is not.

    Shape:
        input [N, C_in, H, W] or [C_in, H, W] to output [N, C_out, P, Q] or
        [C_out, P, Q], P and Q as after `torch.nn.MaxPool2d`.

    Example:
        >>> import torch
        >>> from convship.nn import ConvPool2d
        >>> layer = ConvPool2d(3, 6, kernel_size=5)
        >>> layer(torch.zeros(4, 3, 32, 32)).shape
        torch.Size([4, 6, 14, 14])
    """

    __constants__: ClassVar[list[str]] = [
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "activation",
        "pool_size",
        "pool_stride",
        "pool_padding",
        "ceil_mode",
        "accuracy",
        "_has_relu",
    ]
    # Not for the script compiler, which would type it.
    __jit_ignored_attributes__: ClassVar[list[str]] = ["_packed"]

    # Made by the first call that can use it.
    _packed: _C.PackedCache | None = None

    in_channels: int
    out_channels: int
    kernel_size: _Pair
    stride: _Pair
    padding: _Pair
    dilation: _Pair
    groups: int
    activation: str
    pool_size: _Pair
    pool_stride: _Pair
    pool_padding: _Pair
    ceil_mode: bool
    accuracy: str
    # A constant boolean: TorchScript then drops the branch not taken, which
    # it does not do for a comparison of strings.
    _has_relu: bool

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | _Pair,
        stride: int | _Pair = 1,
        padding: int | _Pair = 0,
        dilation: int | _Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        activation: Literal["relu", "none"] = "relu",
        pool_size: int | _Pair = 2,
        pool_stride: int | _Pair | None = None,
        pool_padding: int | _Pair = 0,
        ceil_mode: bool = False,
        accuracy: Literal["default", "direct", "fast"] = "default",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = _integer("in_channels", in_channels, least=1)
        self.out_channels = _integer("out_channels", out_channels, least=1)
        self.kernel_size = _pair("kernel_size", kernel_size, least=1)
        self.stride = _pair("stride", stride, least=1)
        self.padding = _pair("padding", padding, least=0)
        self.dilation = _pair("dilation", dilation, least=1)
        self.groups = _integer("groups", groups, least=1)
        self.activation = _choice("activation", activation, ops.ACTIVATIONS)
        self.pool_size = _pair("pool_size", pool_size, least=1)
        self.pool_stride = (
            self.pool_size if pool_stride is None else _pair("pool_stride", pool_stride, least=1)
        )
        self.pool_padding = _pair("pool_padding", pool_padding, least=0)
        self.ceil_mode = bool(ceil_mode)
        self.accuracy = _choice("accuracy", accuracy, ops.ACCURACIES)
        self._has_relu = activation == "relu"
        self._check_combinations()

        self.weight = nn.Parameter(
            torch.empty(
                (out_channels, in_channels // groups, *self.kernel_size),
                device=device,
                dtype=dtype,
            )
        )
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters, from the distribution `torch.nn.Conv2d` uses."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight[0].numel()
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer to images [N, C_in, H, W] or one image [C_in, H, W]."""
        # if and else, not one condition and no early return: the script
        # compiler only leaves a branch out where is_scripting() stands alone.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._unfused(input)
        else:  # noqa: RET505
            # Compiled programs hold the op, which the compiler can reason about.
            if not self.training and not _is_dynamo_compiling():
                packed = self._packed or self._make_cache()
                # Parametrised weights are not in here, and run as the op.
                result = packed.run(input, self._parameters)
                if result is not None:
                    return result
            if _is_tracing():
                return self._unfused(input)
            return ops.conv_pool2d(
                input,
                self.weight,
                self.bias,
                stride=self.stride,
                padding=self.padding,
                dilation=self.dilation,
                groups=self.groups,
                activation=self.activation,  # type: ignore[arg-type]
                pool_size=self.pool_size,
                pool_stride=self.pool_stride,
                pool_padding=self.pool_padding,
                ceil_mode=self.ceil_mode,
                accuracy=self.accuracy,  # type: ignore[arg-type]
            )

    def repack(self) -> None:
        """Pack the weights again at the next call.

        Needed after writes that torch does not count, such as
        ``layer.weight.data.mul_(2)``.

        Example:
            >>> from convship.nn import ConvPool2d
            >>> layer = ConvPool2d(1, 1, 3).eval()
            >>> layer.weight.data.mul_(2).shape
            torch.Size([1, 1, 3, 3])
            >>> layer.repack()
        """
        self.__dict__.pop("_packed", None)

    def _make_cache(self) -> _C.PackedCache:
        packed = _C.PackedCache(
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
            pool_size=self.pool_size,
            pool_stride=self.pool_stride,
            pool_padding=self.pool_padding,
            ceil_mode=self.ceil_mode,
            accuracy=self.accuracy,
        )
        # Two threads may both make one; the last stays.
        self.__dict__["_packed"] = packed
        return packed

    def __setattr__(self, name: str, value: object) -> None:
        """Forget what was packed for other arguments, and while training."""
        super().__setattr__(name, value)  # type: ignore[arg-type]
        if name == "training" or name in self.__constants__:
            self.repack()

    def __getstate__(self) -> dict[str, object]:
        """Everything but packed weights, for copies and pickles."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def _unfused(self, input: Tensor) -> Tensor:
        """The same answer from ATen's own ops, which every LibTorch has."""
        result = torch.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
        if self._has_relu:
            result = torch.relu(result)
        return torch.max_pool2d(
            result,
            self.pool_size,
            self.pool_stride,
            self.pool_padding,
            (1, 1),
            self.ceil_mode,
        )

    def extra_repr(self) -> str:
        """Arguments that differ from their defaults, for print(model)."""
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        optional = (
            ("padding", self.padding, (0, 0)),
            ("dilation", self.dilation, (1, 1)),
            ("groups", self.groups, 1),
            ("bias", self.bias is not None, True),
            ("activation", self.activation, "relu"),
            ("pool_size", self.pool_size, None),
            ("pool_stride", self.pool_stride, self.pool_size),
            ("pool_padding", self.pool_padding, (0, 0)),
            ("ceil_mode", self.ceil_mode, False),
            ("accuracy", self.accuracy, "default"),
        )
        parts += [f"{name}={value!r}" for name, value, default in optional if value != default]
        return ", ".join(parts)

    def _check_combinations(self) -> None:
        for name, channels in (
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
        ):
            if channels % self.groups != 0:
                msg = (
                    f"ConvPool2d: {name} must be divisible by groups, "
                    f"got {channels} and groups {self.groups}"
                )
                raise ValueError(msg)
        for size, padding in zip(self.pool_size, self.pool_padding, strict=True):
            if 2 * padding > size:
                msg = (
                    "ConvPool2d: pool_padding must be at most half of pool_size, "
                    f"got pool_padding {self.pool_padding} "
                    f"and pool_size {self.pool_size}"
                )
                raise ValueError(msg)


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def _integer(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"ConvPool2d: {name} must be an integer, got {value!r}"
        raise TypeError(msg)
    if value < least:
        msg = f"ConvPool2d: {name} must be at least {least}, got {value}"
        raise ValueError(msg)
    return value


def _pair(name: str, value: int | _Pair, least: int) -> _Pair:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            msg = (
                f"ConvPool2d: {name} must be one integer or a pair, "
                f"got {len(value)} values {tuple(value)}"
            )
            raise ValueError(msg)
        return _integer(name, value[0], least), _integer(name, value[1], least)
    one = _integer(name, value, least)
    return one, one


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        names = ", ".join(repr(choice) for choice in allowed)
        msg = f"ConvPool2d: {name} must be one of {names}, got {value!r}"
        raise ValueError(msg)
    return value
