"""conv_pool2d against torch's own ops and a float64 reference: values, layouts, bits, errors."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference import (
    LAYOUTS,
    LENET,
    ODD,
    Case,
    assert_same,
    exact_conv_pool2d,
    gradients,
    random_cases,
    torch_conv_pool2d,
)
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from convship import _C
from convship.ops import conv_pool2d

# Random shapes per kind of data; more by the environment for a long run.
CASES = int(os.environ.get("CONVSHIP_CASES", "150"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny calls: on a busy machine, waiting for a second thread takes minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Reference


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_integers_equal_torch_and_reference_with_gradients(layout: str) -> None:
    counted = 0
    for seed, case in enumerate(random_cases(CASES, seed=1)):
        tensors = case.integers(seed)
        if layout == "nhwc":
            tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
        # Winograd's factors of 1/6 are not exact, not even on integers.
        actual = conv_pool2d(*tensors, **case.arguments, accuracy="direct")
        exact, _ = exact_conv_pool2d(case, *tensors)
        assert torch.equal(actual.double(), exact), case
        assert_same(actual, torch_conv_pool2d(*tensors, **case.arguments), case)
        # Full of ties: equal gradients mean the same winners.
        grad = torch.randint(-3, 4, actual.shape, generator=torch.Generator().manual_seed(seed))
        ours, theirs = (
            gradients(op, tensors, grad.float(), **case.arguments)
            for op in (conv_pool2d, torch_conv_pool2d)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b, case, all_strides=False)
        counted += (actual != 0).float().mean().item() >= 0.3
    assert counted >= 0.9 * CASES, "too many results are zeros to prove anything"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reals_lie_within_the_proven_bound(dtype: torch.dtype) -> None:
    for seed, case in enumerate(random_cases(CASES, seed=2)):
        tensors = case.reals(seed, dtype)
        exact, bound = exact_conv_pool2d(case, *tensors)
        actual = conv_pool2d(*tensors, **case.arguments, accuracy="direct")
        assert actual.dtype == dtype
        assert ((actual.double() - exact).abs() <= bound).all(), case


def test_every_width_around_the_vectors() -> None:
    for width, kernel, pool in itertools.product(range(1, 36), (1, 2, 3, 5), (1, 2, 3)):
        if width < pool:
            continue
        case = Case(
            input=(1, 2, kernel + pool, width + kernel - 1),
            weight=(5, 2, kernel, kernel),
            pool_size=(pool, pool),
            activation="none",
        )
        tensors = case.integers(width)
        actual = conv_pool2d(*tensors, **case.arguments)
        assert_same(actual, torch_conv_pool2d(*tensors, **case.arguments), case)


def test_large_windows_keep_wide_indices() -> None:
    case = Case(input=(2, 2, 40, 50), weight=(3, 2, 3, 3), pool_size=(17, 19), pool_stride=(5, 3))
    tensors = case.integers(0)
    grad = torch.ones_like(conv_pool2d(*tensors, **case.arguments))
    ours, theirs = (
        gradients(op, tensors, grad, **case.arguments) for op in (conv_pool2d, torch_conv_pool2d)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)


def test_a_window_larger_than_everything_is_one_window_in_ceil_mode() -> None:
    tensors = LENET.integers(0)
    arguments = {"pool_size": 2**31 - 1, "ceil_mode": True}
    for requires_grad in (False, True):
        tensors[1].requires_grad_(requires_grad)
        actual = conv_pool2d(*tensors, **arguments)
        assert torch.equal(actual, conv_pool2d(*tensors, pool_size=28))


# Layouts


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("weight_layout", ["contiguous", "channels_last", "misaligned"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_equal_torch_in_values_and_strides(
    layout: str, weight_layout: str, requires_grad: bool
) -> None:
    for case in (LENET, ODD):
        x, weight, bias = case.integers(0)
        x = LAYOUTS[layout](x)
        weight = LAYOUTS[weight_layout](weight).requires_grad_(requires_grad)
        actual = conv_pool2d(x, weight, bias, **case.arguments)
        expected = torch_conv_pool2d(x, weight, bias, **case.arguments)
        assert_same(actual, expected)
        assert_same(_C.conv_pool2d(x, weight, bias, **case.arguments), expected)
        with FakeTensorMode() as mode:
            fakes = [mode.from_tensor(t) for t in (x, weight, bias)]
            fake = conv_pool2d(*fakes, **case.arguments)
        assert (fake.shape, fake.stride(), fake.dtype) == (
            actual.shape,
            actual.stride(),
            actual.dtype,
        )
        if requires_grad and x.numel() > 0:
            grad = torch.ones_like(actual)
            (ours,) = torch.autograd.grad(actual, weight, grad)
            (theirs,) = torch.autograd.grad(expected, weight, grad)
            assert_same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fake_results_have_the_strides_of_real_ones(dtype: torch.dtype) -> None:
    for seed, case in enumerate(random_cases(60, seed=3)):
        for layout in ("contiguous", "channels_last"):
            tensors = [None if t is None else t.to(dtype) for t in case.integers(seed)]
            tensors[0] = LAYOUTS[layout](tensors[0])
            actual = conv_pool2d(*tensors, **case.arguments)
            with FakeTensorMode() as mode:
                fakes = [None if t is None else mode.from_tensor(t) for t in tensors]
                fake = conv_pool2d(*fakes, **case.arguments)
            assert fake.shape == actual.shape, case
            assert fake.stride() == actual.stride(), case
            meta = conv_pool2d(
                *(None if t is None else t.to("meta") for t in tensors), **case.arguments
            )
            assert meta.stride() == actual.stride(), case


# Special values

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("activation", ["relu", "none"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 3e38, 1e-45])
def test_special_values_in_every_position_mean_what_they_mean_in_torch(
    value: float, activation: str
) -> None:
    case = Case(input=(1, 1, 4, 21), weight=(1, 1, 3, 2), activation=activation, pool_stride=(1, 1))
    _, weight, bias = case.integers(5)
    weight = weight.abs() + 1
    for position in range(4 * 21):
        x = torch.ones(case.input)
        x.view(-1)[position] = value
        actual = conv_pool2d(x, weight, bias, **case.arguments)
        assert_same(actual, torch_conv_pool2d(x, weight, bias, **case.arguments), position)


def test_nan_in_weight_or_bias_reaches_its_channel() -> None:
    x, weight, bias = LENET.reals(0)
    weight[1, 0, 0, 0] = NAN
    bias[3] = NAN
    actual = conv_pool2d(x, weight, bias)
    assert actual.isnan().all((0, 2, 3)).tolist() == [False, True, False, True, False, False]


@pytest.mark.parametrize("fill", [NAN, -INF, INF, 0.0])
def test_windows_without_a_single_maximum_route_gradients_as_torch(fill: float) -> None:
    # The conv is the identity, so that whole windows hold `fill`.
    x = torch.full((1, 1, 6, 6), fill)
    x[0, 0, 2:, 3:] = torch.arange(12.0).view(4, 3)
    weight = torch.ones(1, 1, 1, 1)
    for pool_padding, activation in itertools.product((0, 1), ("relu", "none")):
        arguments = {
            "activation": activation,
            "pool_size": 3,
            "pool_stride": 1,
            "pool_padding": pool_padding,
        }
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        actual = conv_pool2d(a, weight, **arguments)
        expected = torch_conv_pool2d(b, weight, **arguments)
        assert_same(actual, expected)
        grad = torch.arange(1.0, 1 + actual.numel()).view(actual.shape)
        actual.backward(grad)
        expected.backward(grad)
        assert_same(a.grad, b.grad)


def test_a_sum_is_never_minus_zero() -> None:
    # Sums start at +0.0, as in oneDNN; LibTorch's other back ends do otherwise.
    x = torch.full((1, 2, 6, 20), -0.0)
    for bias in (None, torch.full((3,), -0.0)):
        actual = conv_pool2d(x, torch.ones(3, 2, 3, 3), bias, activation="none")
        assert not actual.signbit().any()


def test_padding_contributes_nothing() -> None:
    # LibTorch multiplies weights by the zeros of the padding, which makes NaN.
    weight = torch.ones(1, 1, 3, 3)
    weight[0, 0, 0, 0] = INF
    actual = conv_pool2d(torch.ones(1, 1, 4, 4), weight, padding=1)
    assert torch.equal(actual, torch.full((1, 1, 2, 2), INF))


# Same bits


def test_an_image_has_the_same_bits_alone_in_a_batch_and_with_any_threads() -> None:
    for seed, case in enumerate([LENET, ODD, *random_cases(40, seed=4)]):
        x, weight, bias = case.reals(seed)
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(conv_pool2d(x, weight, bias, **case.arguments))
        for other in results[1:]:
            assert torch.equal(results[0], other), case
        for image, expected in zip(x, results[0], strict=True):
            misaligned = torch.cat([image.new_zeros(1), image.flatten()])[1:]
            alone = conv_pool2d(misaligned.view(image.shape), weight, bias, **case.arguments)
            assert torch.equal(alone, expected), case


def test_one_openmp_runtime_and_more_than_one_thread() -> None:
    script = """
import os, torch
from convship.ops import conv_pool2d
torch.set_num_threads(2)
tensors = torch.ones(8, 8, 64, 64), torch.ones(8, 8, 3, 3)
conv_pool2d(*tensors)
maps = {line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "omp5" in line}
print(len(maps), len(os.listdir("/proc/self/task")), flush=True)
child = os.fork()
if child == 0:
    conv_pool2d(*tensors)
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    before = "import os, torch; print(len(os.listdir('/proc/self/task')))"
    idle, busy = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.split()
        for code in (before, script)
    )
    runtimes, tasks, child_status = busy
    assert runtimes == "1"
    assert int(tasks) > int(idle[0]), "parallel_for ran serially"
    assert child_status == "0"


# Errors

HOSTILE = [0, -1, 2**31, 2**62, 2**63 - 1, -(2**63)]
LEAST = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "groups": 1,
    "pool_size": 1,
    "pool_stride": 1,
    "pool_padding": 0,
}


@pytest.mark.parametrize("op", [conv_pool2d, _C.conv_pool2d])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_hostile_integers_fail(op: Callable[..., Tensor], device: str) -> None:
    tensors = [t.to(device) for t in LENET.integers(0)]
    for (name, value), (other, second) in itertools.product(
        itertools.product(LEAST, HOSTILE), itertools.product(LEAST, HOSTILE)
    ):
        if value == LEAST[name] or name == other:
            continue
        with pytest.raises(ValueError, match="conv_pool2d"):
            op(*tensors, **{name: value, other: second})


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ["stride", "padding", "dilation", "groups", "pool_size"])
def test_the_largest_integers_fail_or_equal_torch(name: str, requires_grad: bool) -> None:
    tensors = LENET.integers(0)
    tensors[1].requires_grad_(requires_grad)
    if name == "stride":
        with pytest.raises(ValueError, match="pooling window"):
            conv_pool2d(*tensors, stride=2**31 - 1)
        actual = conv_pool2d(*tensors, stride=2**31 - 1, pool_size=1)
        assert torch.equal(actual, torch_conv_pool2d(*tensors, pool_size=1)[:, :, :1, :1])
    else:
        with pytest.raises(ValueError, match="conv_pool2d"):
            conv_pool2d(*tensors, **{name: 2**31 - 1})


def test_steps_far_beyond_the_image_cost_no_memory() -> None:
    # The padded image would have 2^64 values; of 3x3 conv values, the middle one sees the image.
    far = 2**31 - 1
    x, weight = torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 1, 1), 2.0)
    actual = conv_pool2d(x, weight, stride=far, padding=far, pool_size=1)
    expected = torch.zeros(1, 1, 3, 3)
    expected[0, 0, 1, 1] = 6
    assert torch.equal(actual, expected)


ERRORS: list[tuple[str, type[Exception], dict[str, Any]]] = [
    (
        r"input must be \[N, C_in, H, W\] or \[C_in, H, W\], got 2 dimensions \[3, 4\]",
        ValueError,
        {"input": torch.ones(3, 4)},
    ),
    (
        r"weight must be \[C_out, C_in/groups, K_h, K_w\], got 3 dimensions \[8, 3, 3\]",
        ValueError,
        {"weight": torch.ones(8, 3, 3)},
    ),
    (
        r"channels, got input \[4, 3, 32, 32\], weight \[6, 2, 5, 5\] and groups 1",
        ValueError,
        {"weight": torch.ones(6, 2, 5, 5)},
    ),
    (
        r"C_out must be divisible by groups, got weight \[5, 1, 5, 5\] and groups 3",
        ValueError,
        {"weight": torch.ones(5, 1, 5, 5), "bias": None, "groups": 3},
    ),
    (r"bias must be \[C_out\], got \[5\]", ValueError, {"bias": torch.ones(5)}),
    (
        r"weight must have the dtype of input, got Double and input Float",
        TypeError,
        {"weight": torch.ones(6, 3, 5, 5).double()},
    ),
    (
        r"bias must be on the device of input, got meta",
        ValueError,
        {"bias": torch.ones(6, device="meta")},
    ),
    (r"batch dimension only, got \[4, 3, 0, 32\]", ValueError, {"input": torch.ones(4, 3, 0, 32)}),
    (r"weight must not be empty", ValueError, {"weight": torch.ones(0, 3, 5, 5), "bias": None}),
    (r"kernel must fit into the padded input", ValueError, {"dilation": 9}),
    (r"pooling window must fit", ValueError, {"pool_size": 29}),
    (r"activation must be 'relu' or 'none', got 'tanh'", ValueError, {"activation": "tanh"}),
    (
        r"accuracy must be 'default', 'direct' or 'fast', got 'exact'",
        ValueError,
        {"accuracy": "exact"},
    ),
    (r"pool_padding must be at most half of pool_size", ValueError, {"pool_padding": 2}),
    (r"stride must be one integer or a pair, got 3 values", ValueError, {"stride": [1, 1, 1]}),
]


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(("message", "kind", "change"), ERRORS)
def test_wrong_arguments_fail(
    message: str, kind: type[Exception], change: dict[str, Any], requires_grad: bool
) -> None:
    x, weight, bias = LENET.integers(0)
    arguments: dict[str, Any] = {"input": x, "weight": weight, "bias": bias} | change
    tensors = [arguments.pop(name) for name in ("input", "weight", "bias")]
    tensors[0] = tensors[0].clone().requires_grad_(requires_grad)
    with pytest.raises(kind, match="conv_pool2d: .*" + message):
        conv_pool2d(*tensors, **arguments)


def test_routing_refuses_indices_outside_of_the_window() -> None:
    grad, index = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="window_index must point into its window"):
        torch.ops.convship._pool_route(grad, index, [4, 4], [2, 2], [2, 2], [0, 0])
    with pytest.raises(ValueError, match="window_index must point into its window"):
        torch.ops.convship._pool_gather(torch.ones(1, 1, 3, 3), index - 1, [2, 2], [2, 2], [0, 0])


# The binding


def test_binding_equals_op_with_gradients() -> None:
    for seed, case in enumerate([LENET, ODD, *random_cases(20, seed=5)]):
        tensors = case.reals(seed)
        expected = conv_pool2d(*tensors, **case.arguments)
        assert_same(_C.conv_pool2d(*tensors, **case.arguments), expected)
        grad = torch.ones_like(expected)
        ours, theirs = (
            gradients(op, tensors, grad, **case.arguments) for op in (conv_pool2d, _C.conv_pool2d)
        )
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)


def test_binding_reports_build_and_isas() -> None:
    info = _C.build_info()
    assert info["torch_version"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert _C.active_isa() in _C.available_isas()
    _C.set_isa(_C.active_isa())
    with pytest.raises(ValueError, match=r"isa must be one of .*baseline.*, got 'mmx'"):
        _C.set_isa("mmx")


def test_floating_point_environment_is_left_alone() -> None:
    smallest = torch.tensor([2.0**-149])
    conv_pool2d(*LENET.reals(0))
    assert (smallest * 1).item() > 0
