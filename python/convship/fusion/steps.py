"""Which nodes of a torch.fx graph are a ReLU or a max pool, however they are spelled."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Node

# Subclasses are recognised, so that they can be reported; only these very types are fused.
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)

_RELU_FUNCTIONS = (F.relu, F.relu_, torch.relu, torch.relu_)
_RELU_METHODS = ("relu", "relu_")
# Order of the positional arguments after the input.
_POOL_ARGUMENTS = {
    F.max_pool2d: "kernel_size stride padding dilation ceil_mode return_indices",
    F.max_pool2d_with_indices: "kernel_size stride padding dilation ceil_mode return_indices",
    torch.max_pool2d: "kernel_size stride padding dilation ceil_mode",
}

# Their result may share memory with their input: a change in place below them reaches above.
_VIEWS = (
    *("flatten", "view", "reshape", "squeeze", "unsqueeze", "transpose", "permute", "contiguous"),
    *("narrow", "getitem", "chunk", "split", "unflatten", "view_as", "expand", "to", "float"),
    *("Identity", "Flatten", "Unflatten"),
)
_IN_PLACE_OPERATORS = frozenset(
    (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow)
)


def is_relu(node: Node, module: nn.Module | None) -> bool:
    """Whether `node`, which calls `module` if it calls one, is a ReLU."""
    if node.op == "call_module":
        return type(module) is nn.ReLU
    if node.op == "call_method":
        return node.target in _RELU_METHODS
    return node.op == "call_function" and node.target in _RELU_FUNCTIONS


def is_pool(node: Node, module: nn.Module | None) -> bool:
    """Whether `node` is a two-dimensional max pool or a subclass of one."""
    if node.op == "call_module":
        return isinstance(module, nn.MaxPool2d)
    return node.op == "call_function" and node.target in _POOL_ARGUMENTS


def input_of(node: Node) -> Any:
    """The first argument of a call, by position or by name."""
    return node.args[0] if node.args else node.kwargs.get("input")


def pool_arguments(node: Node, module: nn.Module | None) -> dict[str, Any]:
    """Arguments of a max pool by the names that nn.MaxPool2d gives them."""
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    if module is not None:
        return {name: getattr(module, name) for name in names}
    positional = _POOL_ARGUMENTS[node.target].split()  # type: ignore[index]
    defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
    given = dict(zip(positional, node.args[1:], strict=False)) | dict(node.kwargs)
    arguments = defaults | {"return_indices": node.target is F.max_pool2d_with_indices} | given
    # Empty in torch.max_pool2d means what None means in the others.
    arguments["stride"] = arguments["stride"] or None
    return arguments


def name_of(node: Node, module: nn.Module | None) -> str:
    """What a node calls, for a message: a class or a function."""
    if module is not None:
        return type(module).__name__
    if node.op == "call_method":
        return str(node.target)
    if node.target is F.max_pool2d:  # its __name__ is that of a dispatcher
        return "max_pool2d"
    return str(getattr(node.target, "__name__", node.target))


def changes_input(node: Node, module: nn.Module | None) -> bool:
    """Whether a call works in place on its first argument."""
    if node.op == "call_module":
        return getattr(module, "inplace", False) is True
    name = name_of(node, module)
    return (
        node.target in _IN_PLACE_OPERATORS
        or node.kwargs.get("inplace") is True
        or (name.endswith("_") and not name.endswith("__"))
    )


def may_be_view(node: Node, module: nn.Module | None) -> bool:
    """Whether the result of a call may share memory with its first argument."""
    return name_of(node, module) in _VIEWS
