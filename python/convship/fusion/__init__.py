"""Rewrites a model to use ConvPool2d, for training and for .pt2 files.

A folder called fusion, not a file called fuse: Python would put the module `convship.fuse` in
the place of the function.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import NamedTuple

import torch
from torch import nn

from convship.fusion import layers
from convship.fusion.chains import Chain, Model, find_chains
from convship.fusion.forward import Forward
from convship.fusion.report import FusedChain, LeftChain, Report
from convship.fusion.tracing import Explored, Region, Scratch, explore, is_layer

__all__ = ["Fused", "FusedChain", "LeftChain", "Report", "fuse"]


class Fused(NamedTuple):
    """What `fuse` returns: ``model, report = fuse(network)``.

    Attributes:
        model: The new model.
        report: What was fused, what was left and why.
    """

    model: nn.Module
    report: Report


def fuse(model: nn.Module) -> Fused:
    """Return a copy of `model` in which convolution, ReLU and max pool are one ConvPool2d.

    ``max_pool2d(relu(batch_norm(conv2d(x))))`` becomes ``ConvPool2d(x)``: batch norm and ReLU may
    be absent, ReLU and max pool may come in either order, each may be a module or (all but the
    convolution and batch norm) a function. Batch norm is folded into the weights where it is in
    evaluation mode; in training mode it is left, and what it is part of too.

    Chains are found in whatever torch.fx can trace: the model or, where it cannot be traced, its
    parts, such as an nn.Sequential, unless its parent's source shows that it is used piecemeal.

    The given model stays as it is, and the copy shares no memory with it. Parameters keep their
    names, order, dtype, device, memory format, requires_grad and sharing: a checkpoint of the one
    loads into the other, unless a batch norm was folded. The ConvPool2d has the name of the
    convolution, other layers that it replaces become nn.Identity. Where forward calls functions
    that are now part of a layer, it is rewritten; such a module keeps its class as a base class,
    and its methods but for those that forward called to make such a chain. Whatever reads
    intermediate results of a chain sees those of the fused layer.

    Args:
        model: Any nn.Module, but for scripted ones. In training mode, or in evaluation mode to fold
            batch norms.

    Returns:
        The new model and a report with an entry for each max pool.

    Raises:
        TypeError: `model` is no nn.Module, is scripted, or cannot be copied.

    Example:
        >>> from torch import nn
        >>> import convship
        >>> network = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2)
        ... )
        >>> model, report = convship.fuse(network.eval())
        >>> model[0]
        ConvPool2d(3, 8, kernel_size=(3, 3), stride=(1, 1), pool_size=(2, 2))
        >>> print(report)
        fused 1, left 1
        fused  0 + 1 + 2 + 3  -> 0
        left   4              its input comes from MaxPool2d 3, not from a convolution
    """
    _check(model)
    fused = _copy(model)
    scratch = Scratch(fused)
    explored = Explored([], {}) if is_layer(fused) else explore(scratch, fused)
    known = Model(fused, scratch)
    order = {module: number for number, module in enumerate(known.paths)}
    plan = _Plan(scratch)
    left: list[LeftChain] = []
    for region in sorted(explored.regions, key=lambda region: order[region.root]):
        for found in find_chains(known, region):
            try:
                chain = found if isinstance(found, LeftChain) else plan.add(found, region)
            except layers.NotFusedError as reason:
                assert isinstance(found, Chain)
                chain = LeftChain(found.names, str(reason))
            if isinstance(chain, LeftChain):
                left.append(chain)
    left += _unseen(known, explored)
    rewritten = tuple(known.name(module) for module in plan.without)
    report = Report(
        tuple(FusedChain(c.names[0], c.names) for c in plan.chains), tuple(left), rewritten
    )
    plan.apply(fused)
    return Fused(fused, report)


def _check(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"fuse: model must not be scripted, got {type(model).__name__}; fuse it, then script it"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"fuse: model must be an nn.Module, got {type(model).__name__}")


def _copy(model: nn.Module) -> nn.Module:
    # weight_norm and pruning compute the weight before each call and keep the last one, which
    # deepcopy refuses as it has a gradient function.
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, computed)
    except Exception as error:  # from whatever the model holds
        raise TypeError(f"fuse: {type(model).__name__} cannot be copied: {error}") from error


class _Plan:
    """Chains that will be fused. Nothing is changed before all of them are known."""

    def __init__(self, scratch: Scratch) -> None:
        self.chains: list[Chain] = []
        self.without: dict[nn.Module, set[int]] = defaultdict(set)
        self._scratch = scratch
        self._forwards: dict[nn.Module, Forward | layers.NotFusedError] = {}

    def add(self, chain: Chain, region: Region) -> Chain:
        """Take a chain in; raise NotFusedError where a forward cannot be rewritten for it."""
        rewrites = [r for r in chain.removals if r.module is None and not _is_sequential(r.owner)]
        for removal in rewrites:
            self._forward(removal.owner).check_steps(*region.steps_of(removal.owner))
        for removal in rewrites:
            self.without[removal.owner].add(removal.position)
        self.chains.append(chain)
        return chain

    def apply(self, model: nn.Module) -> None:
        for module, positions in self.without.items():
            self._forward(module).rewrite(positions)
        for chain in self.chains:
            _become(chain.conv, layers.fused_layer(chain.conv, chain.norm, dict(chain.arguments)))
            for removal in chain.removals:
                if removal.module is not None:
                    _become(removal.module, nn.Identity().train(removal.module.training))
                elif _is_sequential(removal.owner):
                    key = list(removal.owner._modules)[removal.position]
                    removal.owner._modules[key] = nn.Identity().train(removal.owner.training)

    def _forward(self, module: nn.Module) -> Forward:
        if module not in self._forwards:
            try:
                self._forwards[module] = Forward(self._scratch, module)
            except layers.NotFusedError as reason:
                self._forwards[module] = reason
        forward = self._forwards[module]
        if isinstance(forward, layers.NotFusedError):
            raise forward
        return forward


def _is_sequential(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _become(module: nn.Module, other: nn.Module) -> None:
    """Make an object another module, for all who hold it: names, and lists outside of torch."""
    module.__class__ = type(other)
    module.__dict__ = other.__dict__


def _unseen(model: Model, explored: Explored) -> list[LeftChain]:
    """Modules that no trace leads through, and the max pools in them that no region covers."""
    left = [
        LeftChain((model.name(module),), reason)
        for module, reason in explored.opaque.items()
        if type(module).forward is not nn.Module.forward
    ]
    seen = {
        module for region in explored.regions for trace in region.traces for module in trace.times
    }
    for module in model.paths:
        if isinstance(module, nn.MaxPool2d) and module not in seen:
            left.append(LeftChain((model.name(module),), "no forward that was traced calls it"))
    return left
