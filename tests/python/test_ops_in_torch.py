"""conv_pool2d in the rest of torch: derivatives, opcheck, script, export, compile, autocast."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from reference import (
    LAYOUTS,
    LENET,
    ODD,
    Case,
    assert_same,
    gradients,
    torch_conv_pool2d,
)
from torch import Tensor

from convship.ops import conv_pool2d


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of tiny calls: on a busy machine, waiting for a second thread takes minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Derivatives


def test_gradients_and_second_gradients_are_right() -> None:
    for seed, case in enumerate(small_cases()):
        tensors = tie_free(case, seed)
        wanted = tuple(t.requires_grad_() for t in tensors if t is not None)

        def function(*leaves: Tensor, case: Case = case) -> Tensor:
            return conv_pool2d(*leaves, **case.arguments)

        assert torch.autograd.gradcheck(function, wanted), case
        if seed % 4 == 0:
            assert torch.autograd.gradgradcheck(function, wanted), case


def small_cases() -> list[Case]:
    """64 configurations: every value of every argument, in changing company."""
    choices = itertools.product(
        [(1, 1), (2, 1)],
        [(0, 0), (1, 2)],
        [(1, 1), (1, 2)],
        [1, 2],
        ["relu", "none"],
        [((2, 2), None, (0, 0)), ((3, 2), (1, 2), (1, 1))],
    )
    return [
        Case(
            input=(2, 2, 6, 7),
            weight=(2, 2 // groups, 2, 3),
            has_bias=number % 3 != 0,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            activation=activation,
            pool_size=pool[0],
            pool_stride=pool[1],
            pool_padding=pool[2],
            ceil_mode=number % 2 == 0,
        )
        for number, (stride, padding, dilation, groups, activation, pool) in enumerate(choices)
    ]


def tie_free(case: Case, seed: int) -> list[Tensor | None]:
    """Tensors whose conv values keep apart from each other and from zero."""
    for attempt in itertools.count(1000 * seed):
        tensors = case.reals(attempt, torch.float64)
        arguments = case.arguments | {"activation": "none", "pool_size": 1, "pool_padding": 0}
        values = conv_pool2d(*tensors, **arguments | {"pool_stride": 1})
        gaps = values.flatten(1).sort().values.diff()
        if gaps.min() > 1e-5 and values.abs().min() > 1e-5:
            return tensors
    raise AssertionError


def test_forward_mode_and_function_transforms_equal_torch() -> None:
    x, weight, bias = (t.double() for t in LENET.reals(0))

    def ours(x: Tensor) -> Tensor:
        return conv_pool2d(x, weight, bias)

    def theirs(x: Tensor) -> Tensor:
        return torch_conv_pool2d(x, weight, bias)

    for transform in (
        lambda f: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
        lambda f: torch.func.grad(lambda x: f(x).square().sum())(x),
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.func.vmap(torch.func.grad(lambda x: f(x).square().sum()))(x),
    ):
        torch.testing.assert_close(transform(ours), transform(theirs))


# What torch asks of an op


def opcheck_inputs() -> list[tuple[tuple[Tensor | None, ...], dict[str, Any]]]:
    inputs = []
    for case in (LENET, ODD, *small_cases()[::8]):
        for requires_grad in (False, True):
            x, weight, bias = case.reals(0)
            x = x.contiguous(memory_format=torch.channels_last) if case.ceil_mode else x
            for tensor in (x, weight, bias):
                if tensor is not None:
                    tensor.requires_grad_(requires_grad)
            inputs.append(((x, weight, bias), case.arguments))
    x, weight, bias = LENET.reals(0)
    inputs.append(((x[0], weight, bias), {}))
    inputs.append(((x[:0], weight, bias), {}))
    inputs.append(((x.bfloat16(), weight.bfloat16().requires_grad_(), None), {}))
    return inputs


def test_opcheck() -> None:
    for tensors, arguments in opcheck_inputs():
        torch.library.opcheck(torch.ops.convship.conv_pool2d.default, tensors, arguments)


def test_opcheck_of_the_inner_ops() -> None:
    tensors = LENET.reals(0)
    _, index = torch.ops.convship._conv_pool2d_with_index(*tensors)
    pooled = torch.randn(index.shape, requires_grad=True)
    conv = torch.randn(4, 6, 28, 28, requires_grad=True)
    pool = ([2, 2], [2, 2], [0, 0])
    ops = torch.ops.convship
    torch.library.opcheck(ops._conv_pool2d_with_index.default, tensors)
    torch.library.opcheck(ops._pool_route.default, (pooled, index, [28, 28], *pool))
    torch.library.opcheck(ops._pool_gather.default, (conv, index, *pool))


def literal_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.convship.conv_pool2d(
        x, weight, bias, stride=1, padding=[1, 2], activation="relu", pool_size=2
    )


def test_script_of_the_literal_op() -> None:
    tensors = LENET.reals(0)
    scripted = torch.jit.script(literal_op)
    assert "convship::conv_pool2d" in str(scripted.graph)
    assert torch.equal(scripted(*tensors), literal_op(*tensors))


class Network(torch.nn.Module):
    """Two fused layers, the second odd."""

    def __init__(self) -> None:
        super().__init__()
        _, weight, bias = LENET.reals(0)
        self.weight = torch.nn.Parameter(weight)
        self.bias = torch.nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        x = conv_pool2d(x, self.weight, self.bias)
        return conv_pool2d(
            x,
            self.weight[:, :, :3],
            None,
            groups=2,
            pool_size=3,
            pool_stride=2,
            pool_padding=1,
            ceil_mode=True,
        )


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")  # torch's own
def test_export_keeps_the_op_and_a_dynamic_batch() -> None:
    network = Network()
    x = LENET.reals(1)[0]
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called.count("convship.conv_pool2d.default") == 2
    for module in (program.module(), program.run_decompositions().module()):
        for batch in (x, x[:2], torch.cat([x, x, x])):
            assert torch.equal(module(batch), network(batch))


def test_export_with_dynamic_height_and_width() -> None:
    network = Network()
    x = LENET.reals(1)[0]
    h, w = (torch.export.Dim(name, min=24, max=96) for name in "hw")
    program = torch.export.export(network, (x,), dynamic_shapes=({2: h, 3: w},))
    for size in ((32, 32), (40, 27), (65, 90)):
        image = torch.randn(4, 3, *size)
        assert torch.equal(program.module()(image), network(image))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_fullgraph_with_gradients(dynamic: bool) -> None:
    torch.compiler.reset()
    network = Network()
    compiled = torch.compile(network, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for layout in ("contiguous", "channels_last"):
        x = LAYOUTS[layout](LENET.reals(1)[0])
        ours, theirs = [], []
        for function, results in ((compiled, ours), (network, theirs)):
            leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
            network.zero_grad()
            result = function(leaf)
            result.square().sum().backward()
            results += [result.detach(), leaf.grad, network.weight.grad, network.bias.grad]
            with torch.no_grad():
                results.append(function(x))
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)


def test_compile_with_inductor() -> None:
    torch.compiler.reset()
    network = Network()
    x = LENET.reals(1)[0]
    with torch.no_grad():
        assert torch.equal(torch.compile(network, fullgraph=True)(x), network(x))


# Other dtypes


def test_float16_without_a_kernel_equals_torch() -> None:
    for case in (LENET, ODD):
        tensors = [t.half() for t in case.reals(0)]
        actual = conv_pool2d(*tensors, **case.arguments)
        assert_same(actual, torch_conv_pool2d(*tensors, **case.arguments))


def test_training_under_autocast_is_at_least_as_accurate_as_torch() -> None:
    # Rounded to bfloat16, many values of a window are equal, and torch's gradient goes to the
    # first of them. Ours goes to the largest sum, which was pooled before it was rounded.
    tensors = LENET.reals(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = conv_pool2d(*tensors), torch_conv_pool2d(*tensors)
        assert actual.dtype == torch.bfloat16
        assert_same(actual, expected)
        ours, theirs = (
            gradients(op, tensors, torch.ones_like(actual))
            for op in (conv_pool2d, torch_conv_pool2d)
        )
    rounded = [t.bfloat16().double() for t in tensors]
    exact = gradients(torch_conv_pool2d, rounded, torch.ones_like(actual, dtype=torch.float64))
    for a, b, truth in zip(ours, theirs, exact, strict=True):
        assert a.dtype == torch.float32
        assert a.stride() == b.stride()
        error, torch_error = ((x.double() - truth).abs() for x in (a, b))
        # What is left is LibTorch's convolution_backward in bfloat16.
        assert error.max() <= 2.0**-6 * truth.abs().max()
        assert error.sum() <= torch_error.sum()


def test_bfloat16_winners_are_those_of_float64() -> None:
    tensors = [t.bfloat16() for t in LENET.reals(0)]
    _, index = torch.ops.convship._conv_pool2d_with_index(*tensors)
    x, weight, bias = (t.double() for t in tensors)
    conv = torch.relu(torch.conv2d(x, weight, bias))
    place = torch.nn.functional.max_pool2d(conv, 2, return_indices=True)[1]
    rows, columns = place // 28 % 2, place % 28 % 2
    assert torch.equal(index.long(), 2 * rows + columns)


def test_gradients_of_overlapping_windows_in_bfloat16_are_rounded_once() -> None:
    case = Case(input=(2, 3, 17, 19), weight=(4, 3, 3, 3), pool_size=(3, 3), pool_stride=(1, 1))
    tensors = case.integers(0, torch.bfloat16)
    output, index = torch.ops.convship._conv_pool2d_with_index(*tensors, **case.arguments)
    pooled = torch.randn_like(output)
    pool = ([3, 3], [1, 1], [0, 0])
    route = torch.ops.convship._pool_route
    routed = route(pooled, index, [15, 17], *pool)
    assert torch.equal(routed, route(pooled.float(), index, [15, 17], *pool).bfloat16())
    gathered = torch.ops.convship._pool_gather(routed, index, *pool)
    assert gathered.dtype == torch.bfloat16
