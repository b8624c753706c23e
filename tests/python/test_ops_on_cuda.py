"""conv_pool2d on a GPU: the three torch ops, for forward, backward and everything around them.

Skipped where torch sees no GPU.
"""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from reference import LAYOUTS, LENET, ODD, Case, random_cases, torch_conv_pool2d
from torch import Tensor

import convship
from convship.ops import conv_pool2d

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CASES = [LENET, ODD, *random_cases(12, seed=17)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def on_gpu(tensors: list[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.cuda() for tensor in tensors]


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_are_those_of_the_cpu_in_every_layout(dtype: torch.dtype) -> None:
    for (name, layout), case in itertools.product(LAYOUTS.items(), CASES[:2]):
        image, weight, bias = case.integers(3)
        assert image is not None
        expected = torch_conv_pool2d(layout(image), weight, bias, **case.arguments)
        moved = layout(image.cuda().to(dtype))
        actual = conv_pool2d(
            moved,
            *(None if t is None else t.cuda().to(dtype) for t in (weight, bias)),
            **case.arguments,
        )
        assert actual.is_cuda, name
        assert actual.dtype == dtype, name
        torch.testing.assert_close(actual.cpu().float(), expected.to(dtype).float(), msg=name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_three_ops(case: Case) -> None:
    tensors = on_gpu(case.reals(5, torch.float64))
    both = [[t if t is None else t.clone().requires_grad_() for t in tensors] for _ in range(2)]
    actual = conv_pool2d(*both[0], **case.arguments)
    expected = torch_conv_pool2d(*both[1], **case.arguments)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    actual.backward(grad)
    expected.backward(grad)
    for mine, theirs in zip(*both, strict=True):
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_second_derivatives() -> None:
    case = Case(input=(1, 2, 6, 6), weight=(2, 2, 3, 3))
    tensors = [t if t is None else t.requires_grad_() for t in on_gpu(case.reals(7, torch.float64))]
    assert torch.autograd.gradcheck(lambda *t: conv_pool2d(*t, **case.arguments), tensors)
    assert torch.autograd.gradgradcheck(lambda *t: conv_pool2d(*t, **case.arguments), tensors)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_dtype(narrow: torch.dtype) -> None:
    tensors = on_gpu(LENET.reals(9))
    with torch.autocast("cuda", narrow):
        actual = conv_pool2d(*tensors, **LENET.arguments)
        expected = torch_conv_pool2d(*tensors, **LENET.arguments)
    assert actual.dtype == expected.dtype == narrow
    torch.testing.assert_close(actual, expected)


def test_compiled_calls() -> None:
    tensors = on_gpu(LENET.reals(11))
    compiled = torch.compile(partial(conv_pool2d, **LENET.arguments), fullgraph=True)
    expected = torch_conv_pool2d(*tensors, **LENET.arguments)
    torch.testing.assert_close(compiled(*tensors), expected)


def test_vmap() -> None:
    image, *weights = on_gpu(LENET.reals(11))
    each = torch.vmap(lambda one: conv_pool2d(one, *weights, **LENET.arguments))(image)
    expected = torch_conv_pool2d(image, *weights, **LENET.arguments)
    torch.testing.assert_close(each, expected)


def test_tensors_of_two_devices_are_refused() -> None:
    image, weight, bias = LENET.reals(13)
    assert image is not None
    with pytest.raises(ValueError, match="must be on the device of input"):
        conv_pool2d(image.cuda(), weight, bias, **LENET.arguments)
    with pytest.raises(ValueError, match="must be on the device of input"):
        conv_pool2d(image, weight.cuda(), bias.cuda(), **LENET.arguments)  # type: ignore[union-attr]


def test_a_module_moves_to_the_gpu_and_back() -> None:
    module = convship.ConvPool2d(3, 8, 3, padding=1).eval()
    image = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        before = module(image)
        there = module.cuda()(image.cuda())
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), before, rtol=1e-4, atol=1e-4)
        # Weights that were packed for the CPU must not outlive a change on the GPU.
        module.weight.mul_(2)
        module.bias.mul_(2)
        again = module.cpu()(image)
    torch.testing.assert_close(again, 2 * before, rtol=1e-4, atol=1e-4)


def test_training_on_the_gpu_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        convship.ConvPool2d(3, 16, 3, padding=1),
        convship.ConvPool2d(16, 32, 3, padding=1),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 4 * 4, 4),
    ).cuda()
    images, labels = torch.randn(64, 3, 16, 16).cuda(), torch.arange(64).cuda() % 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
