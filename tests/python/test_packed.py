"""Packed weights: as an op, and as what ConvPool2d keeps while it does not learn."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference import LAYOUTS, LENET, ODD, assert_same, random_cases
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrize

from convship import _C
from convship.nn import ConvPool2d
from convship.ops import conv_pool2d

OPS = torch.ops.convship


@pytest.fixture(autouse=True)
def same_settings() -> Iterator[None]:
    isa, accuracy = _C.active_isa(), _C.default_accuracy()
    torch.set_num_threads(1)
    yield
    _C.set_isa(isa)
    _C.set_default_accuracy(accuracy)


# The ops


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_packed_equals_the_function_bit_for_bit(dtype: torch.dtype) -> None:
    for seed, case in enumerate([LENET, ODD, *random_cases(40, seed=21)]):
        x, weight, bias = case.reals(seed, dtype)
        packed = _C.conv_pool2d_prepack(weight, bias, **case.arguments)
        as_op = OPS.conv_pool2d_prepack(weight, bias, **case.arguments)
        for layout in ("contiguous", "channels_last", "expanded_batch", "empty_batch", "one_image"):
            image = LAYOUTS[layout](x)
            expected = conv_pool2d(image, weight, bias, **case.arguments)
            assert_same(_C.conv_pool2d_packed(image, packed), expected, (layout, case))
            assert_same(OPS.conv_pool2d_packed(image, as_op), expected, (layout, case))
            meta = OPS.conv_pool2d_packed(image.to("meta"), as_op)
            assert (meta.shape, meta.stride()) == (expected.shape, expected.stride())


def test_the_format_of_the_weight_is_remembered() -> None:
    x, weight, bias = LENET.reals(0)
    weight = weight.contiguous(memory_format=torch.channels_last)
    packed = _C.conv_pool2d_prepack(weight, bias)
    assert_same(_C.conv_pool2d_packed(x, packed), conv_pool2d(x, weight, bias))


def test_packed_weights_are_copies() -> None:
    x, weight, bias = LENET.reals(0)
    expected = conv_pool2d(x, weight, bias)
    packed = _C.conv_pool2d_prepack(weight, bias)
    weight.zero_()
    bias.zero_()
    for isa in _C.available_isas():
        _C.set_isa(isa)
        torch.testing.assert_close(_C.conv_pool2d_packed(x, packed), expected)
        assert _C.last_isa() == isa


def test_accuracy_is_resolved_when_weights_are_packed() -> None:
    x, weight = torch.randn(1, 64, 12, 12), torch.randn(32, 64, 3, 3)
    fast = _C.conv_pool2d_prepack(weight)
    _C.set_default_accuracy("direct")
    direct = _C.conv_pool2d_prepack(weight)
    _C.conv_pool2d_packed(x, fast)
    was_winograd = _C.last_family().startswith("winograd")
    assert was_winograd == (_C.active_isa() != "baseline")
    _C.conv_pool2d_packed(x, direct)
    assert not _C.last_family().startswith("winograd")


PREPACK_ERRORS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, r"weight must be \[C_out, C_in/groups, K_h, K_w\]", {"weight": torch.ones(8, 3)}),
    (ValueError, r"bias must be \[C_out\], got \[5\]", {"bias": torch.ones(5)}),
    (ValueError, "C_out must be divisible by groups", {"groups": 4}),
    (ValueError, "weight must not be empty", {"weight": torch.ones(0, 3, 5, 5), "bias": None}),
    (
        TypeError,
        "bias must have the dtype of weight, got Double and weight Float",
        {"bias": torch.ones(6).double()},
    ),
    (ValueError, "stride must lie between 1", {"stride": 0}),
    (
        NotImplementedError,
        "weight must be a strided float32, float64 or bfloat16 tensor of the CPU.*got Half",
        {"weight": torch.ones(6, 3, 5, 5).half(), "bias": None},
    ),
    (NotImplementedError, "got Float, .*meta", {"weight": torch.ones(6, 3, 5, 5, device="meta")}),
]


@pytest.mark.parametrize("prepack", [_C.conv_pool2d_prepack, OPS.conv_pool2d_prepack])
@pytest.mark.parametrize(("kind", "message", "change"), PREPACK_ERRORS)
def test_prepack_fails(
    kind: type[Exception], message: str, change: dict[str, Any], prepack: Callable[..., Any]
) -> None:
    _, weight, bias = LENET.reals(0)
    if "weight" in change and change["weight"].is_meta:
        bias = None
    with pytest.raises(kind, match="conv_pool2d(_prepack)?: .*" + message):
        prepack(**{"weight": weight, "bias": bias} | change)


def test_packed_fails_as_the_function_does() -> None:
    x, weight, bias = LENET.reals(0)
    packed, as_op = _C.conv_pool2d_prepack(weight, bias), OPS.conv_pool2d_prepack(weight, bias)
    for wrong in (x[:, :2], x[0, 0], x.double(), x[:, :, :3], x[:, :, :0]):
        with pytest.raises((ValueError, TypeError)) as expected:
            conv_pool2d(wrong, weight, bias)
        for call in (
            lambda wrong=wrong: _C.conv_pool2d_packed(wrong, packed),
            lambda wrong=wrong: OPS.conv_pool2d_packed(wrong, as_op),
        ):
            with pytest.raises(expected.type) as actual:
                call()
            assert str(actual.value) == str(expected.value)


def test_packed_refuses_to_lose_a_gradient() -> None:
    x, weight, bias = LENET.reals(0)
    x.requires_grad_()
    packed, as_op = _C.conv_pool2d_prepack(weight, bias), OPS.conv_pool2d_prepack(weight, bias)
    message = "input must not require grad, because packed weights have no derivatives"
    with pytest.raises(NotImplementedError, match=message):
        _C.conv_pool2d_packed(x, packed)
    with pytest.raises(NotImplementedError, match=message):
        OPS.conv_pool2d_packed(x, as_op)
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        with pytest.raises(NotImplementedError, match=message):
            _C.conv_pool2d_packed(dual, packed)
    with torch.no_grad():
        assert not _C.conv_pool2d_packed(x, packed).requires_grad


def test_opcheck() -> None:
    x, weight, bias = LENET.reals(0)
    packed = OPS.conv_pool2d_prepack(weight, bias)
    # torch's check of schemas takes the length of every argument, and an object has none.
    checks = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(OPS.conv_pool2d_packed.default, (x, packed), test_utils=checks)
    # Tensors without values cannot be packed.
    checks = ("test_schema", "test_autograd_registration")
    torch.library.opcheck(OPS.conv_pool2d_prepack.default, (weight, bias), test_utils=checks)


def test_ops_work_in_a_script() -> None:
    def function(x: Tensor, weight: Tensor) -> Tensor:
        packed = torch.ops.convship.conv_pool2d_prepack(weight, None, padding=[1, 1])
        return torch.ops.convship.conv_pool2d_packed(x, packed)

    x, weight, _ = LENET.reals(0)
    assert torch.equal(torch.jit.script(function)(x, weight), conv_pool2d(x, weight, padding=1))


def test_the_profiler_sees_the_packed_op() -> None:
    x, weight, bias = LENET.reals(0)
    packed = _C.conv_pool2d_prepack(weight, bias)
    with torch.profiler.profile() as profile:
        _C.conv_pool2d_packed(x, packed)
    assert "convship::conv_pool2d_packed" in {event.name for event in profile.events()}


def test_timing_gives_the_output_and_a_duration() -> None:
    x, weight, bias = LENET.reals(0)
    packed = _C.conv_pool2d_prepack(weight, bias)
    output, seconds = _C.time_conv_pool2d(packed, x, 0.02)
    assert torch.equal(output, conv_pool2d(x, weight, bias))
    assert 1e-7 < seconds < 1
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        _C.time_conv_pool2d(packed, x, 0)


# The module


def layer(**arguments: Any) -> tuple[ConvPool2d, Tensor]:
    torch.manual_seed(0)
    return ConvPool2d(4, 6, 3, **arguments).eval(), torch.randn(2, 4, 15, 14)


def unpacked(module: ConvPool2d, x: Tensor) -> Tensor:
    return conv_pool2d(
        x,
        module.weight,
        module.bias,
        stride=module.stride,
        padding=module.padding,
        pool_size=module.pool_size,
        pool_stride=module.pool_stride,
    )


def keeps_packed(module: ConvPool2d, x: Tensor) -> bool:
    """Whether a write that torch does not count goes unseen, as documented."""
    before = module(x)
    module.weight.data.mul_(2)
    unseen = torch.equal(module(x), before)
    module.weight.data.div_(2)
    return unseen


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_eval_without_gradients_packs_once(mode: Callable[..., Any]) -> None:
    module, x = layer()
    with mode():
        assert_same(module(x), unpacked(module, x))
        assert keeps_packed(module, x)
        module.weight.data.mul_(2)
        module.repack()
        assert_same(module(x), unpacked(module, x))
    assert not keeps_packed(module, x)
    with mode():
        module.train()
        assert not keeps_packed(module, x)


def step(module: ConvPool2d) -> None:
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(module.parameters(), lr=0.1).step()


def in_inference_mode(module: ConvPool2d) -> None:
    with torch.inference_mode():
        module.weight.add_(1)


def same_address(module: ConvPool2d) -> None:
    # The allocator likes to give the old memory to the new tensor.
    module.weight.data = module.weight.data.new_zeros(1)
    module.weight.data = torch.full((6, 4, 3, 3), 0.5)


CHANGES: dict[str, Callable[[ConvPool2d], object]] = {
    "weight in place": lambda m: m.weight.detach().add_(1),
    "bias in place": lambda m: m.bias.detach().add_(1),
    "in inference mode": in_inference_mode,
    "optimizer": step,
    "load_state_dict": lambda m: m.load_state_dict(ConvPool2d(4, 6, 3).state_dict()),
    "assigned": lambda m: m.load_state_dict(ConvPool2d(4, 6, 3).state_dict(), assign=True),
    "replaced weight": lambda m: setattr(m, "weight", nn.Parameter(m.weight + 1)),
    "replaced bias": lambda m: setattr(m, "bias", nn.Parameter(m.bias + 1)),
    "no bias": lambda m: setattr(m, "bias", None),
    "other data": lambda m: setattr(m.weight, "data", m.weight.data + 1),
    "same address": same_address,
    "transposed data": lambda m: setattr(m.weight, "data", m.weight.data.transpose(2, 3)),
    "double": lambda m: m.double(),
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "channels_last": lambda m: m.to(memory_format=torch.channels_last),
    "pool_size": lambda m: (setattr(m, "pool_size", (3, 3)), setattr(m, "pool_stride", (1, 1))),
    "padding": lambda m: setattr(m, "padding", (1, 0)),
    "reset_parameters": lambda m: m.reset_parameters(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(change: Callable[[ConvPool2d], object]) -> None:
    module, x = layer()
    with torch.no_grad():
        before = module(x)
    change(module)
    with torch.no_grad():
        x = x.to(module.weight.dtype)
        after = module(x)
        assert_same(after, unpacked(module, x))
        assert (
            after.dtype != before.dtype
            or after.stride() != before.stride()
            or not torch.equal(after, before)
        )


def test_isa_and_default_accuracy_are_followed() -> None:
    module, x = ConvPool2d(64, 32, 3).eval(), torch.randn(1, 64, 12, 12)
    with torch.no_grad():
        for isa in _C.available_isas():
            _C.set_isa(isa)
            for accuracy in ("fast", "direct", "fast"):
                _C.set_default_accuracy(accuracy)
                assert_same(module(x), conv_pool2d(x, module.weight, module.bias))
                assert _C.last_isa() == isa
                winograd = accuracy == "fast" and isa != "baseline"
                assert _C.last_family().startswith("winograd") == winograd
        assert keeps_packed(module, x)


def test_inference_tensors_count_as_frozen() -> None:
    with torch.inference_mode():
        module, x = layer()
        expected = unpacked(module, x)
        assert_same(module(x), expected)
        module.weight.add_(1)
        assert_same(module(x), expected)
        module.repack()
        assert_same(module(x), unpacked(module, x))


def test_copies_pickles_and_state_dicts_are_free_of_packed_weights() -> None:
    module, x = layer()
    names, size = list(module.state_dict()), len(pickle.dumps(module))
    with torch.no_grad():
        expected = module(x)
        assert module._packed is not None
        assert list(module.state_dict()) == names
        assert len(pickle.dumps(module)) == size
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        for other in (
            copy.deepcopy(module),
            copy.copy(module),
            pickle.loads(pickle.dumps(module)),
            torch.load(buffer, weights_only=False),
        ):
            assert other._packed is None
            assert_same(other(x), expected)
        with torch.no_grad():
            clone = copy.deepcopy(module)
            clone.weight.zero_()
            assert_same(module(x), expected)


def test_programs_are_made_without_packed_weights() -> None:
    module, x = layer()
    with torch.no_grad():
        expected = module(x)
        assert "convship::" not in str(torch.jit.script(module).inlined_graph)
        assert "convship::" not in str(torch.jit.trace(module, x).inlined_graph)
        for strict in (False, True):
            program = torch.export.export(module, (x,), strict=strict)
            (target,) = (n.target for n in program.graph.nodes if n.op == "call_function")
            assert target == OPS.conv_pool2d.default
        torch.compiler.reset()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert_same(compiled(x), expected)
        graph = torch.fx.symbolic_trace(module)
        assert_same(graph(x), expected)


class Subclass(Tensor):
    """A tensor that counts the ops it meets."""

    calls = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        cls.calls += "conv_pool2d" in str(func)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_what_torch_must_see_goes_through_the_op() -> None:
    module, x = layer()
    with torch.no_grad():
        expected = module(x)

        module(x.as_subclass(Subclass))
        assert Subclass.calls == 1
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fake = module(mode.from_tensor(x))
        assert (fake.shape, fake.stride()) == (expected.shape, expected.stride())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(x).dtype == torch.bfloat16
        assert module.to("meta")(x.to("meta")).shape == expected.shape


def test_functional_calls_and_transforms() -> None:
    module, x = layer()
    doubled = {name: 2 * p.detach() for name, p in module.named_parameters()}
    with torch.no_grad():
        expected = module(x)
        twice = torch.func.functional_call(module, doubled, (x,))
        torch.testing.assert_close(twice, 2 * expected)
        assert torch.equal(module(x), expected)
        mapped = torch.func.vmap(lambda image: module(image[None])[0])(x)
        torch.testing.assert_close(mapped, expected)
        assert keeps_packed(module, x)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_parametrised_weights_are_never_packed() -> None:
    module, x = layer()
    parametrize.register_parametrization(module, "weight", Doubled())
    with torch.no_grad():
        first = module(x)
        module.parametrizations.weight.original.data.mul_(2)
        assert_same(module(x), unpacked(module, x))
        assert not torch.equal(module(x), first)


def test_two_threads_may_call_one_module() -> None:
    module, x = layer()
    with torch.no_grad():
        expected = module(x)
    wrong = []

    def call() -> None:
        torch.set_num_threads(1)
        with torch.no_grad():
            for number in range(300):
                if number % 50 == 0:
                    module.repack()
                if not torch.equal(module(x), expected):
                    wrong.append(number)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_repr_and_wrong_arguments_of_the_native_parts() -> None:
    packed = _C.conv_pool2d_prepack(torch.ones(6, 3, 5, 5))
    assert repr(packed) == "PackedConv(weight=[6, 3, 5, 5], Float)"
    with pytest.raises(ValueError, match="stride must lie between 1"):
        _C.PackedCache(stride=0)
