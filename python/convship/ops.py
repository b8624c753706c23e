"""The ops as Python functions: documentation, then `torch.ops`."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from convship import _library

_library.load()

ACTIVATIONS = ("relu", "none")
ACCURACIES = ("default", "direct", "fast")


def conv_pool2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: Literal["relu", "none"] = "relu",
    pool_size: int | Sequence[int] = 2,
    pool_stride: int | Sequence[int] | None = None,
    pool_padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    accuracy: Literal["default", "direct", "fast"] = "default",
) -> Tensor:
    """Convolution, bias, activation and max pooling in one pass.

    ``y[n,o,p,q] = max over the window at (p,q) of
    act(bias[o] + sum over c,i,j of weight[o,c,i,j] * input[n,g(o)+c,...])``

    It means ``max_pool2d(act(conv2d(input, weight, bias)))``: same shapes,
    edge cases, memory format of the result, NaN, infinities, signed zeros and
    gradients. The answer for one image does not depend on the other images of
    the batch, nor on the number of threads.

    Works in eager mode, with autograd (second derivatives included), autocast,
    `torch.compile`, `torch.export` (dynamic sizes too) and TorchScript, where
    the spelling is ``torch.ops.convship.conv_pool2d``. float32, float64 and
    bfloat16 on the CPU have kernels of their own, which read and write tensors
    of any strides without copies; other dtypes and devices run the three torch
    ops. bfloat16 is summed and pooled in float32 and rounded once; where the CPU has AMX,
    its numbers below 1.2e-38 count as 0.

    Args:
        input: images [N, C_in, H, W], or one image [C_in, H, W]; any strides.
        weight: kernels [C_out, C_in / groups, K_h, K_w], dtype of `input`.
        bias: [C_out] or None, dtype of `input`.
        stride: step of the convolution, one integer or a pair (h, w).
        padding: zeros added on each side of the input.
        dilation: distance between taps of the kernel.
        groups: number of channel groups; divides C_in and C_out.
        activation: "relu" or "none".
        pool_size: window of the max pooling.
        pool_stride: step of the pooling; `pool_size` where None.
        pool_padding: implicit -inf on each side before pooling, at most half
            of `pool_size`.
        ceil_mode: whether windows that hang over the edge are kept.
        accuracy: "direct" sums products directly, each within the usual error
            bound of a dot product. "fast" may use Winograd's algorithm for
            float32, with about ten times the rounding error on 3x3 and 5x5
            kernels; not where a gradient is recorded, and not for images whose
            values are so large that it could overflow. "default" is the
            setting of the process: "fast", unless the environment variable
            CONVSHIP_ACCURACY or ``convship._C.set_default_accuracy`` says
            "direct".

    Returns:
        Tensor [N, C_out, P, Q], or [C_out, P, Q] for one image.

    Raises:
        ValueError: a shape or an argument is out of range.
        TypeError: dtypes of input, weight and bias differ, or are not
            floating point.

    Example:
        >>> import torch
        >>> from convship.ops import conv_pool2d
        >>> image, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
        >>> conv_pool2d(image, weight, torch.tensor([-1.0]))
        tensor([[[[8.]]]])
    """
    return cast(
        Tensor,
        torch.ops.convship.conv_pool2d(
            input,
            weight,
            bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            activation=activation,
            pool_size=pool_size,
            pool_stride=pool_stride,
            pool_padding=pool_padding,
            ceil_mode=ceil_mode,
            accuracy=accuracy,
        ),
    )
