"""Which convolutions, batch norms and max pools one ConvPool2d can stand for, and the layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from convship.nn import ConvPool2d

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class NotFusedError(Exception):
    """Why a chain is left; caught where the report is written."""


def check_plain(module: nn.Module, kind: type[nn.Module]) -> None:
    """Raise NotFusedError unless `module` does what its class does, and nothing else sees it."""
    name, found = kind.__name__, type(module).__name__
    if parametrize.is_parametrized(module):
        raise NotFusedError(f"the {name} has parametrizations; remove them first")
    if "Lazy" in found:
        raise NotFusedError(f"the {found} has no parameters yet; run the model once first")
    if type(module) is not kind:
        raise NotFusedError(f"only {name} itself is fused, and {found} is a subclass of it")
    if "forward" in vars(module):
        raise NotFusedError(f"the {name} has a forward of its own")
    check_hooks(module)


def check_hooks(module: nn.Module) -> None:
    """Raise NotFusedError where a hook would see other values, or none, after fusing."""
    if any(getattr(module, name, None) for name in _HOOKS):
        raise NotFusedError(
            f"the {type(module).__name__} has hooks (as those of weight_norm and pruning); "
            "remove them first"
        )


def check_conv(conv: nn.Conv2d) -> None:
    """Raise NotFusedError where a ConvPool2d cannot take over from `conv`."""
    check_plain(conv, nn.Conv2d)
    if set(conv._parameters) != {"weight", "bias"} or conv._buffers or conv._modules:
        raise NotFusedError("the Conv2d holds more than weight and bias")
    if conv.padding_mode != "zeros":
        raise NotFusedError(f"only zeros are padded with, and padding_mode is {conv.padding_mode}")


def check_norm(norm: nn.BatchNorm2d) -> None:
    """Raise NotFusedError where `norm` cannot be folded into weights."""
    check_plain(norm, nn.BatchNorm2d)
    if norm.training:
        raise NotFusedError(
            "the BatchNorm2d is in training mode, where its statistics are those of the batch; "
            "call model.eval() first"
        )
    if norm.running_mean is None or norm.running_var is None:
        raise NotFusedError(
            "the BatchNorm2d has track_running_stats=False: its statistics are those of the batch"
        )


def arguments_of(conv: nn.Conv2d, pool: dict[str, Any], activation: str) -> dict[str, Any]:
    """Arguments of the ConvPool2d that does `conv`, `activation` and `pool`."""
    values = (v for value in pool.values() for v in (value if _is_pair(value) else (value,)))
    if not all(value is None or isinstance(value, int) for value in values):
        raise NotFusedError("an argument of the max pool is known only when forward runs")
    if pool["return_indices"]:
        raise NotFusedError("the max pool has return_indices=True")
    if pool["dilation"] not in (1, (1, 1), [1, 1]):
        raise NotFusedError(f"the max pool has dilation {pool['dilation']}; only 1 is fused")
    stride = pool["stride"]
    arguments = {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": padding_of(conv),
        "dilation": conv.dilation,
        "groups": conv.groups,
        "activation": activation,
        "pool_size": _plain(pool["kernel_size"]),
        "pool_stride": None if stride is None else _plain(stride),
        "pool_padding": _plain(pool["padding"]),
        "ceil_mode": bool(pool["ceil_mode"]),
    }
    try:
        ConvPool2d(**arguments, device="meta")
    except (ValueError, TypeError) as error:
        raise NotFusedError(str(error)) from None
    return arguments


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list))


def _plain(value: Any) -> Any:
    return tuple(value) if _is_pair(value) else value


def padding_of(conv: nn.Conv2d | ConvPool2d) -> tuple[int, ...]:
    """Zeros on each side; raise NotFusedError where one side gets more than the other."""
    if not isinstance(conv.padding, str):
        return tuple(conv.padding)
    if conv.padding == "valid":
        return (0, 0)
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if any(each % 2 for each in total):
        raise NotFusedError(
            f"padding='same' is one more on one side than on the other for kernel_size "
            f"{conv.kernel_size} and dilation {conv.dilation}"
        )
    return tuple(each // 2 for each in total)


def fused_layer(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, arguments: dict[str, Any]
) -> ConvPool2d:
    """Return the ConvPool2d: with the parameters of `conv`, or new ones with `norm` folded in."""
    # On the meta device nothing is drawn: fusing leaves the random state alone.
    layer = ConvPool2d(**arguments, device="meta", dtype=conv.weight.dtype)
    weight, bias = conv._parameters["weight"], conv._parameters["bias"]
    if norm is not None:
        weight, bias = folded(conv, norm)
    layer.register_parameter("weight", weight)
    layer.register_parameter("bias", bias)
    layer.training = conv.training
    return layer


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Return weight and bias of `conv` with `norm` folded in."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
    # The bias learns if one of the two that it was made of did.
    sources = [parameter for parameter in (conv.bias, norm.bias) if parameter is not None]
    bias.requires_grad_(any(parameter.requires_grad for parameter in sources))
    return weight, bias
