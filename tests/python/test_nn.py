"""ConvPool2d: the module, and what it becomes when it is scripted, traced or exported."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from reference import torch_conv_pool2d
from torch import nn

from convship.nn import ConvPool2d

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"bias": False, "activation": "none"},
    {"stride": 2, "padding": (1, 2), "dilation": (2, 1), "groups": 2},
    {"pool_size": (3, 2), "pool_stride": 2, "pool_padding": (1, 0), "ceil_mode": True},
]


def layer(arguments: dict[str, Any]) -> ConvPool2d:
    torch.manual_seed(0)
    return ConvPool2d(4, 6, (3, 5), **arguments)


def unfused(module: ConvPool2d, x: torch.Tensor) -> torch.Tensor:
    names = (
        "stride",
        "padding",
        "dilation",
        "groups",
        "activation",
        "pool_size",
        "pool_stride",
        "pool_padding",
        "ceil_mode",
    )
    arguments = {name: getattr(module, name) for name in names}
    return torch_conv_pool2d(x, module.weight, module.bias, **arguments)


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_parameters_are_those_of_conv2d(arguments: dict[str, Any]) -> None:
    names = ("stride", "padding", "dilation", "groups", "bias")
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, (3, 5), **{k: v for k, v in arguments.items() if k in names})
    module = layer(arguments)
    assert list(module.state_dict()) == list(conv.state_dict())
    for ours, theirs in zip(module.parameters(), conv.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    module.load_state_dict(conv.state_dict())


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_forward_equals_the_composition(arguments: dict[str, Any]) -> None:
    module, x = layer(arguments), torch.randn(2, 4, 20, 23)
    torch.testing.assert_close(module(x), unfused(module, x))
    torch.testing.assert_close(module(x[0]), unfused(module, x[0]))
    module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert torch.equal(copy.deepcopy(module)(x), module(x))


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_scripted_and_traced_modules_contain_plain_torch_only(
    arguments: dict[str, Any], how: str
) -> None:
    module, x = layer(arguments), torch.randn(2, 4, 20, 23)
    scripted = torch.jit.script(module) if how == "script" else torch.jit.trace(module, x)
    kinds = {node.kind() for node in scripted.inlined_graph.nodes()}
    activation = {"aten::relu"} if module.activation == "relu" else set()
    conv = "aten::conv2d" if how == "script" else "aten::_convolution"
    assert {k for k in kinds if not k.startswith("prim::")} == {
        conv,
        "aten::max_pool2d",
        *activation,
    }
    assert "prim::If" not in kinds
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    assert torch.equal(torch.jit.load(buffer)(x), unfused(module, x))


def test_export_and_compile_keep_the_op() -> None:
    module, x = layer(ARGUMENTS[3]), torch.randn(2, 4, 20, 23)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert "convship.conv_pool2d.default" in str(program.graph)
    assert torch.equal(program.module()(x[:1]), module(x[:1]))
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))


def test_channels_last_and_double_modules() -> None:
    module = layer({}).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 20, 23).contiguous(memory_format=torch.channels_last)
    assert module(x).is_contiguous(memory_format=torch.channels_last)
    assert module.double()(x.double()).dtype == torch.float64


def test_repr_names_what_differs_from_the_defaults() -> None:
    assert repr(ConvPool2d(3, 6, 5)) == (
        "ConvPool2d(3, 6, kernel_size=(5, 5), stride=(1, 1), pool_size=(2, 2))"
    )
    text = repr(ConvPool2d(4, 6, 3, bias=False, groups=2, pool_stride=1, accuracy="direct"))
    assert text == (
        "ConvPool2d(4, 6, kernel_size=(3, 3), stride=(1, 1), groups=2, bias=False, "
        "pool_size=(2, 2), pool_stride=(1, 1), accuracy='direct')"
    )


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1, got 0"),
        ({"out_channels": 2.0}, TypeError, "out_channels must be an integer, got 2.0"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size must be one integer or a pair"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"padding": "same"}, TypeError, "padding must be an integer, got 'same'"),
        ({"dilation": True}, TypeError, "dilation must be an integer, got True"),
        ({"groups": 3}, ValueError, "in_channels must be divisible by groups, got 4 and groups 3"),
        ({"groups": 4}, ValueError, "out_channels must be divisible by groups, got 6 and groups"),
        ({"activation": "tanh"}, ValueError, "activation must be one of 'relu', 'none', got 'ta"),
        ({"pool_padding": 2}, ValueError, "pool_padding must be at most half of pool_size"),
        ({"accuracy": "exact"}, ValueError, "accuracy must be one of 'default', 'direct', 'fast'"),
    ],
)
def test_wrong_arguments_fail(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match="ConvPool2d: " + message):
        ConvPool2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3} | arguments)
