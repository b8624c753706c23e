"""conv_pool2d once more: slow, obvious, in float64; and the calls it is tried on."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Case:
    """Shapes and arguments of one call."""

    input: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    has_bias: bool = True
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: str = "relu"
    pool_size: tuple[int, int] = (2, 2)
    pool_stride: tuple[int, int] | None = None
    pool_padding: tuple[int, int] = (0, 0)
    ceil_mode: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the op."""
        not_arguments = ("input", "weight", "has_bias")
        fields = (field.name for field in dataclasses.fields(self))
        return {name: getattr(self, name) for name in fields if name not in not_arguments}

    def integers(self, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
        """Input, weight, bias whose sums are exact, and full of ties."""
        generator = torch.Generator().manual_seed(seed)

        def draw(shape: tuple[int, ...], most: int) -> Tensor:
            return torch.randint(-most, most + 1, shape, generator=generator).to(dtype)

        bias = draw(self.weight[:1], 8) if self.has_bias else None
        return [draw(self.input, 4), draw(self.weight, 4), bias]

    def reals(self, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor | None]:
        """Input, weight, bias from the normal distribution."""
        generator = torch.Generator().manual_seed(seed)

        def draw(shape: tuple[int, ...]) -> Tensor:
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            return torch.randn(shape, generator=generator, dtype=wide).to(dtype)

        return [
            draw(self.input),
            draw(self.weight),
            draw(self.weight[:1]) if self.has_bias else None,
        ]


LENET = Case(input=(4, 3, 32, 32), weight=(6, 3, 5, 5))
ODD = Case(
    input=(3, 4, 13, 18),
    weight=(6, 2, 3, 2),
    stride=(2, 1),
    padding=(1, 2),
    dilation=(1, 2),
    groups=2,
    pool_size=(3, 2),
    pool_stride=(2, 1),
    pool_padding=(1, 0),
    ceil_mode=True,
)

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every_second_column": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "every_second_channel": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "expanded": lambda x: x[:, :, :1, :1].expand(x.shape),
    "expanded_batch": lambda x: x[:1].expand(x.shape),
    "misaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "empty_batch": lambda x: x[:0],
    "empty_batch_channels_last": lambda x: x[:0].contiguous(memory_format=torch.channels_last),
    "one_image": lambda x: x[0],
    "one_image_channels_last": lambda x: x[:1].contiguous(memory_format=torch.channels_last)[0],
}


def random_cases(count: int, seed: int) -> Iterator[Case]:
    """Valid calls of all kinds, at most 2 million multiplications each."""
    rng = random.Random(seed)
    found = 0
    while found < count:
        groups = rng.choice([1, 1, 1, 2, 3, 8])
        c_in = groups * rng.randint(1, 67 // groups)
        c_out = groups * rng.randint(1, 67 // groups)
        kernel = _pair(rng, 1, rng.choice([3, 7]))
        pool_size = _pair(rng, 1, 4)
        case = Case(
            input=(rng.randint(1, 5), c_in, rng.randint(1, 70), rng.randint(1, 70)),
            weight=(c_out, c_in // groups, *kernel),
            has_bias=rng.random() < 0.7,
            stride=_pair(rng, 1, rng.choice([1, 4])),
            padding=(rng.randint(0, kernel[0]), rng.randint(0, kernel[1])),
            dilation=_pair(rng, 1, rng.choice([1, 3])),
            groups=groups,
            activation=rng.choice(["relu", "relu", "none"]),
            pool_size=pool_size,
            pool_stride=rng.choice([None, _pair(rng, 1, 4)]),
            pool_padding=(rng.randint(0, pool_size[0] // 2), rng.randint(0, pool_size[1] // 2)),
            ceil_mode=rng.random() < 0.3,
        )
        conv = conv_size(case)
        fits = all(
            c >= 1 and c + 2 * p >= k
            for c, p, k in zip(conv, case.pool_padding, pool_size, strict=True)
        )
        if fits and case.input[0] * math.prod(case.weight) * math.prod(conv) <= 2_000_000:
            found += 1
            yield case


def conv_size(case: Case) -> tuple[int, int]:
    """Height and width of the conv result."""
    h, w = (
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, padding, dilation, kernel, stride in zip(
            case.input[2:], case.padding, case.dilation, case.weight[2:], case.stride, strict=True
        )
    )
    return h, w


def torch_conv_pool2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, **arguments: Any
) -> Tensor:
    """The three ops of torch that the fused op stands for."""
    a = {"activation": "relu", "pool_size": 2, "pool_stride": None, "pool_padding": 0} | arguments
    conv_arguments = {
        name: a[name] for name in ("stride", "padding", "dilation", "groups") if name in a
    }
    result = F.conv2d(input, weight, bias, **conv_arguments)
    if a["activation"] == "relu":
        result = F.relu(result)
    return F.max_pool2d(
        result,
        a["pool_size"],
        a["pool_stride"],
        a["pool_padding"],
        ceil_mode=a.get("ceil_mode", False),
    )


def exact_conv_pool2d(
    case: Case, input: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Result in float64, and how far a correct sum in `input`'s dtype may be from it.

    A sum of K rounded products, in any order, with or without fused multiply-add, is within
    K u / (1 - K u) * sum |x w| of the true one; activation and maximum do not enlarge that.
    bfloat16 is summed in float32 and rounded once more at the end.
    The float64 run itself has the same kind of error, with its own u.
    """
    terms = math.prod(case.weight[1:]) + 1
    unit = 2.0**-53 + (2.0**-53 if input.dtype == torch.float64 else 2.0**-24)
    conv = _conv(case, input.double(), weight.double(), None if bias is None else bias.double())
    magnitude = _conv(
        case,
        input.double().abs(),
        weight.double().abs(),
        None if bias is None else bias.double().abs(),
    )
    error = terms * unit / (1 - terms * unit) * magnitude + terms * 2.0**-149
    if input.dtype == torch.bfloat16:
        error += 2.0**-8 * (conv.abs() + error)
    if case.activation == "relu":
        conv = conv.clamp(min=0)
    return _max_pool(case, conv), _max_pool(case, error)


def assert_same(
    actual: Tensor, expected: Tensor, what: object = "", *, all_strides: bool = True
) -> None:
    """Same values bit for bit (NaN equals NaN), same sizes and strides.

    all_strides: Strides of dimensions of size 1, too. They are no layout, and those of torch's
    gradients depend on which of its loops ran.
    """
    assert actual.shape == expected.shape, what
    if all_strides:
        assert actual.stride() == expected.stride(), what
    for size, *strides in zip(actual.shape, actual.stride(), expected.stride(), strict=True):
        assert size == 1 or strides[0] == strides[1], what
    assert torch.equal(actual.isnan(), expected.isnan()), what
    numbers = ~expected.isnan()
    assert torch.equal(actual[numbers], expected[numbers]), what


def gradients(
    op: Callable[..., Tensor], tensors: list[Tensor | None], grad: Tensor, **arguments: Any
) -> tuple[Tensor, ...]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in tensors]
    wanted = [t for t in leaves if t is not None]
    return torch.autograd.grad(op(*leaves, **arguments), wanted, grad)


def _conv(case: Case, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    conv_h, conv_w = conv_size(case)
    (s_h, s_w), (d_h, d_w), (p_h, p_w) = case.stride, case.dilation, case.padding
    padded = F.pad(x, (p_w, p_w, p_h, p_h))
    c_out, c_in, k_h, k_w = weight.shape
    result = x.new_zeros(x.shape[0], c_out, conv_h, conv_w)
    out = c_out // case.groups
    for g in range(case.groups):
        group = padded[:, g * c_in : (g + 1) * c_in]
        for i in range(k_h):
            for j in range(k_w):
                taps = group[:, :, i * d_h :: s_h, j * d_w :: s_w][:, :, :conv_h, :conv_w]
                products = torch.einsum(
                    "nchw,oc->nohw", taps, weight[g * out : (g + 1) * out, :, i, j]
                )
                result[:, g * out : (g + 1) * out] += products
    return result if bias is None else result + bias[:, None, None]


def _max_pool(case: Case, conv: Tensor) -> Tensor:
    (k_h, k_w), (p_h, p_w) = case.pool_size, case.pool_padding
    s_h, s_w = case.pool_stride or case.pool_size
    h = _windows(conv.shape[2], k_h, s_h, p_h, case.ceil_mode)
    w = _windows(conv.shape[3], k_w, s_w, p_w, case.ceil_mode)
    rows = [
        torch.stack([conv[:, :, y0:y1, x0:x1].amax((2, 3)) for x0, x1 in w], -1) for y0, y1 in h
    ]
    return torch.stack(rows, -2)


def _windows(
    extent: int, size: int, stride: int, padding: int, ceil_mode: bool
) -> list[tuple[int, int]]:
    """Begin and end of each window, cut to what is inside."""
    result = []
    begin = -padding
    while begin + size <= extent + padding or (ceil_mode and begin < extent):
        result.append((max(begin, 0), min(begin + size, extent)))
        if begin + size >= extent + padding and ceil_mode:
            break
        begin += stride
    return result


def _pair(rng: random.Random, least: int, most: int) -> tuple[int, int]:
    """Two numbers, equal in half of all draws."""
    first = rng.randint(least, most)
    return (first, first) if rng.random() < 0.5 else (first, rng.randint(least, most))
