"""Batch norm into the weights before it, while these are still float32."""

from __future__ import annotations

import copy
from collections import Counter

from torch import fx, nn

from convship.fusion.layers import NotFusedError, check_norm, check_plain, folded


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
        assert isinstance(before, fx.Node)
        try:
            check_norm(norm)
            check_plain(conv, nn.Conv2d)
        except NotFusedError:
            continue
        if len(before.users) == 1:
            conv.weight, conv.bias = folded(conv, norm)
            parent, _, attribute = str(node.target).rpartition(".")
            network.get_submodule(parent).register_module(attribute, nn.Identity())
