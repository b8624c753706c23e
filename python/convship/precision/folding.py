"""Batch norm into the weights before it, while these are still float32."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from convship.fusion.layers import NotFusedError, check_plain
from convship.nn import ConvPool2d

# Subclasses may compute something else.
_PLAIN = (nn.Conv2d, ConvPool2d, nn.Linear, nn.BatchNorm2d)


def is_plain(module: nn.Module) -> bool:
    """Whether `module` does what its class does, and nothing else sees or changes it."""
    try:
        check_plain(module, type(module))
    except NotFusedError:
        return False
    return type(module) in _PLAIN


def fold_batch_norms(network: nn.Module) -> None:
    """Fold in place where tracing shows a batch norm right behind a convolution, and nothing else.

    Left where torch.fx cannot trace: freezing folds them when the file is loaded.
    """
    try:
        nodes = list(fx.symbolic_trace(copy.deepcopy(network)).graph.nodes)
    except Exception:  # whatever tracing meets; the network works all the same
        return
    calls = Counter(node.target for node in nodes if node.op == "call_module")

    def called_once(node: object) -> nn.Module | None:
        if not isinstance(node, fx.Node) or node.op != "call_module" or calls[node.target] != 1:
            return None
        return network.get_submodule(str(node.target))

    for node in nodes:
        norm = called_once(node)
        before = node.args[0] if node.args else None
        conv = called_once(before)
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(conv, nn.Conv2d):
            continue
        if not is_plain(norm) or not is_plain(conv):
            continue
        assert isinstance(before, fx.Node)
        if len(before.users) == 1 and norm.running_mean is not None:
            _fold(conv, norm)
            parent, _, attribute = str(node.target).rpartition(".")
            network.get_submodule(parent).register_module(attribute, nn.Identity())


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
