"""conv_pool2d on each instruction set of this machine, and proof of what ran."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from reference import (
    LAYOUTS,
    LENET,
    ODD,
    Case,
    assert_same,
    exact_conv_pool2d,
    random_cases,
    torch_conv_pool2d,
)

from convship import _C
from convship.ops import conv_pool2d

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# Enough channels for Winograd.
WIDE = Case(input=(2, 64, 14, 15), weight=(32, 64, 3, 3), padding=(1, 1))


@pytest.fixture(params=_C.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _C.active_isa()
    _C.set_isa(request.param)
    yield request.param
    _C.set_isa(before)


@pytest.fixture(autouse=True)
def same_accuracy() -> Iterator[None]:
    before = _C.default_accuracy()
    torch.set_num_threads(1)
    yield
    _C.set_default_accuracy(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reals_lie_within_the_proven_bound(isa: str, dtype: torch.dtype) -> None:
    for seed, case in enumerate([LENET, ODD, *random_cases(40, seed=11)]):
        tensors = case.reals(seed, dtype)
        exact, bound = exact_conv_pool2d(case, *tensors)
        actual = conv_pool2d(*tensors, **case.arguments, accuracy="direct")
        assert _C.last_isa() == isa, case
        assert actual.dtype == dtype
        assert ((actual.double() - exact).abs() <= bound).all(), case


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_equal_torch_in_every_layout(isa: str, dtype: torch.dtype) -> None:
    for case in (LENET, ODD):
        x, weight, bias = case.integers(0)
        # No sum is too long for the 8 bits of bfloat16.
        x, weight = x.clamp(-1, 1), weight.clamp(-1, 1)
        for name, layout in LAYOUTS.items():
            image = layout(x.to(dtype))
            expected = torch_conv_pool2d(
                image.double(), weight.double(), bias.double(), **case.arguments
            )
            actual = conv_pool2d(
                image, weight.to(dtype), bias.to(dtype), **case.arguments, accuracy="direct"
            )
            assert_same(actual.double(), expected, (name, case))


@pytest.mark.parametrize("accuracy", ["direct", "fast"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_has_the_same_bits_alone_in_a_batch_and_with_any_threads(
    isa: str, dtype: torch.dtype, accuracy: str
) -> None:
    for seed, case in enumerate([LENET, ODD, WIDE, *random_cases(15, seed=12)]):
        x, weight, bias = case.reals(seed, dtype)
        arguments = case.arguments | {"accuracy": accuracy}
        torch.set_num_threads(1)
        together = conv_pool2d(x, weight, bias, **arguments)
        torch.set_num_threads(2)
        assert torch.equal(conv_pool2d(x, weight, bias, **arguments), together), case
        torch.set_num_threads(1)
        for image, expected in zip(x, together, strict=True):
            misaligned = torch.cat([image.new_zeros(1), image.flatten()])[1:]
            alone = conv_pool2d(misaligned.view(image.shape), weight, bias, **arguments)
            assert torch.equal(alone, expected), case
            last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
            assert torch.equal(conv_pool2d(last, weight, bias, **arguments), expected), case


def test_fused_multiply_add_rounds_once_and_baseline_twice(isa: str) -> None:
    # x * w = 1 + 2^-11 + 2^-24, whose last term a rounded product loses.
    x = torch.full((1, 1, 8, 8), 1 + 2.0**-12)
    weight, bias = x[:, :, :1, :1].clone(), torch.tensor([-1 - 2.0**-11])
    actual = conv_pool2d(x, weight, bias, activation="none")
    assert _C.last_isa() == isa
    expected = 0.0 if isa == "baseline" else 2.0**-24
    assert torch.equal(actual, torch.full((1, 1, 4, 4), expected))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_copied(isa: str, dtype: torch.dtype) -> None:
    _, weight, bias = (t.to(dtype) for t in LENET.reals(0))
    for name in ("channels_last", "every_second_column", "transposed", "expanded", "misaligned"):
        x = LAYOUTS[name](LENET.reals(0)[0].to(dtype))
        with torch.profiler.profile() as profile, torch.no_grad():
            conv_pool2d(x, weight, bias)
        called = {event.name for event in profile.events()}
        assert "convship::conv_pool2d" in called
        assert not called & {"aten::copy_", "aten::contiguous", "aten::clone", "aten::to"}, name


# Accuracy


def test_accuracy_chooses_the_loop(isa: str) -> None:
    tensors = WIDE.reals(0)
    winograd = isa != "baseline"

    def family(**arguments: str) -> str:
        conv_pool2d(*tensors, **WIDE.arguments, **arguments)
        return _C.last_family()

    assert family(accuracy="fast").startswith("winograd") == winograd
    assert not family(accuracy="direct").startswith("winograd")
    assert family().startswith("winograd") == winograd
    _C.set_default_accuracy("direct")
    assert _C.default_accuracy() == "direct"
    assert not family().startswith("winograd")
    assert family(accuracy="fast").startswith("winograd") == winograd


def test_what_records_a_gradient_sums_directly(isa: str) -> None:
    x, weight, bias = WIDE.reals(0)
    direct = conv_pool2d(x, weight, bias, **WIDE.arguments, accuracy="direct")
    recorded = conv_pool2d(
        x, weight.requires_grad_(), bias, **WIDE.arguments, accuracy="fast"
    ).detach()
    assert not _C.last_family().startswith("winograd")
    assert torch.equal(direct, recorded)


def test_fast_sums_are_close_to_direct_ones(isa: str) -> None:
    tensors = WIDE.reals(0)
    exact, bound = exact_conv_pool2d(WIDE, *tensors)
    actual = conv_pool2d(*tensors, **WIDE.arguments, accuracy="fast")
    assert ((actual.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_an_image_out_of_range_leaves_its_neighbours_fast(isa: str, value: float) -> None:
    x, weight, bias = WIDE.reals(0)
    alone = conv_pool2d(x[:1], weight, bias, **WIDE.arguments, accuracy="fast")
    x[1, 3, 5, 5] = value
    both = conv_pool2d(x, weight, bias, **WIDE.arguments, accuracy="fast")
    direct = conv_pool2d(x, weight, bias, **WIDE.arguments, accuracy="direct")
    assert torch.equal(both[:1], alone)
    assert_same(both[1:], direct[1:])


def test_wrong_names_fail() -> None:
    with pytest.raises(ValueError, match="default accuracy must be 'direct' or 'fast', got 'e'"):
        _C.set_default_accuracy("e")
    with pytest.raises(ValueError, match=r"isa must be one of .*baseline.*, got 'mmx'"):
        _C.set_isa("mmx")


# Environment

CALL = """
import torch
from convship import _C
from convship.ops import conv_pool2d
try:
    conv_pool2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3))
    print(_C.last_isa(), _C.active_isa(), _C.default_accuracy())
except ValueError as error:
    print(error)
"""


def output_with(**environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CALL],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"OMP_NUM_THREADS": "1", **environment},
    ).stdout


@pytest.mark.parametrize("name", _C.available_isas())
def test_environment_forces_an_isa(name: str) -> None:
    accuracy = "direct" if name == "baseline" else "fast"
    assert output_with(CONVSHIP_ISA=name, CONVSHIP_ACCURACY=accuracy).split() == [
        name,
        name,
        accuracy,
    ]


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("CONVSHIP_ISA", "CONVSHIP_ISA must be one of {isas} on this machine, got 'mmx'\n"),
        ("CONVSHIP_ACCURACY", "CONVSHIP_ACCURACY must be 'direct' or 'fast', got 'mmx'\n"),
    ],
)
def test_wrong_environment_is_one_clear_line(variable: str, message: str) -> None:
    isas = ", ".join(_C.available_isas())
    assert output_with(**{variable: "mmx"}) == message.format(isas=isas)


def test_fma_rate_is_that_of_vectors(isa: str) -> None:
    if isa == "baseline":
        with pytest.raises(ValueError, match="'baseline' has no loops over vectors"):
            _C.fma_rate(0.01)
    else:
        # Two units of 4 lanes at 1 GHz would reach as much.
        assert _C.fma_rate(0.05) > 1e9
        with pytest.raises(ValueError, match="seconds must be positive"):
            _C.fma_rate(0)


def test_isas_agree_on_integers_exactly() -> None:
    before = _C.active_isa()
    for seed, case in enumerate(itertools.chain([LENET, ODD], random_cases(20, seed=13))):
        results = []
        for name in _C.available_isas():
            _C.set_isa(name)
            results.append(conv_pool2d(*case.integers(seed), **case.arguments, accuracy="direct"))
        _C.set_isa(before)
        for other in results[1:]:
            assert_same(results[0], other, case)
