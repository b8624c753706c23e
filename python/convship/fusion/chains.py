"""Finds conv, batch norm, ReLU and max pool in a row, in any of their orders that commute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.fx import Node

from convship.fusion import layers, steps
from convship.fusion.layers import NotFusedError
from convship.fusion.report import LeftChain
from convship.fusion.tracing import Call, Region, Scratch, Trace


@dataclass(frozen=True)
class Removal:
    """How a step that the fused layer does now goes away.

    Attributes:
        module: Becomes an Identity, wherever it is registered; or
        owner: Its forward makes the call. An nn.Sequential gets an Identity at `position`; any
            other module a new forward, without the ReLU or max pool number `position`.
    """

    module: nn.Module | None
    owner: nn.Module
    position: int


@dataclass(frozen=True)
class Chain:
    """Steps that one ConvPool2d replaces. Equal when found in two traces of one model."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    removals: tuple[Removal, ...]
    arguments: tuple[tuple[str, Any], ...]
    names: tuple[str, ...]


class Model:
    """What the matching needs to know of the whole model."""

    def __init__(self, model: nn.Module, scratch: Scratch) -> None:
        self.callers = scratch.callers
        self.paths: dict[nn.Module, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(module, []).append(path)
        self._uses = Counter(
            id(parameter)
            for module in self.paths
            for parameter in module._parameters.values()
            if parameter is not None
        )

    def name(self, module: nn.Module) -> str:
        """The module's qualified name; the model itself has none."""
        return self.paths[module][0] or "the model"

    def is_only_in(self, module: nn.Module, root: nn.Module) -> bool:
        """Whether `module` is registered below `root` and nowhere else."""
        prefixes = tuple(f"{path}." if path else "" for path in self.paths[root])
        return all(path.startswith(prefixes) for path in self.paths[module])

    def shares_parameters(self, module: nn.Module) -> bool:
        """Whether another module holds a parameter of this one."""
        return any(
            self._uses[id(parameter)] > 1
            for parameter in module._parameters.values()
            if parameter is not None
        )


def find_chains(model: Model, region: Region) -> Iterator[Chain | LeftChain]:
    """Yield an entry for each max pool in the traces of `region`."""
    by_pool: dict[Any, list[Chain | LeftChain]] = {}
    for trace in region.traces:
        seen: Counter[Any] = Counter()
        for node in trace.graph.nodes:
            module = trace.module(node)
            if steps.is_pool(node, module):
                place = module or trace.owner(node).module
                seen[place] += 1
                found = _Matcher(model, region, trace).match(node)
                by_pool.setdefault((place, seen[place]), []).append(found)
    for found_ones in by_pool.values():
        left = [found for found in found_ones if isinstance(found, LeftChain)]
        if left:
            yield left[0]
        elif found_ones == found_ones[:1] * len(region.traces):
            yield found_ones[0]
        else:
            reason = "forward takes another way in training, or with its optional arguments given"
            yield LeftChain(cast(Chain, found_ones[0]).names, reason)


class _Matcher:
    """Looks at one trace."""

    def __init__(self, model: Model, region: Region, trace: Trace) -> None:
        self.model, self.region, self.trace = model, region, trace

    def match(self, pool: Node) -> Chain | LeftChain:
        nodes = [pool]
        try:
            return self._chain(pool, nodes)
        except NotFusedError as reason:
            return LeftChain(tuple(self._name(node) for node in nodes), str(reason))

    def _chain(self, pool: Node, nodes: list[Node]) -> Chain:
        """Walk up from the pool to the convolution, adding to `nodes` what lies on the way."""
        relu = norm = None
        node = steps.input_of(pool)
        if isinstance(node, Node) and steps.is_relu(node, self.trace.module(node)):
            relu = node
            nodes.insert(0, relu)
            node = steps.input_of(relu)
        if isinstance(node, Node) and isinstance(self.trace.module(node), nn.BatchNorm2d):
            norm = node
            nodes.insert(0, norm)
            node = steps.input_of(norm)
        conv = self._conv(node)
        nodes.insert(0, conv)
        for before in nodes[:-1]:
            if len(before.users) > 1:
                raise NotFusedError(f"the result of {self._name(before)} is used elsewhere too")
        # ReLU and max pool commute; without a ReLU yet, one below the pool is taken in.
        below = list(pool.users)
        if relu is None and len(below) == 1 and steps.is_relu(below[0], self._module(below[0])):
            relu = below[0]
            nodes.append(relu)
        return self._checked(nodes, conv, norm, relu, pool)

    def _checked(
        self, nodes: list[Node], conv: Node, norm: Node | None, relu: Node | None, pool: Node
    ) -> Chain:
        conv_layer = cast(nn.Conv2d, self._module(conv))
        norm_layer = cast("nn.BatchNorm2d | None", norm and self._module(norm))
        layers.check_conv(conv_layer)
        self._check_called_once(conv_layer)
        if norm_layer is not None:
            layers.check_norm(norm_layer)
            self._check_called_once(norm_layer)
            for layer in (conv_layer, norm_layer):
                if self.model.shares_parameters(layer):
                    raise NotFusedError(
                        f"{self.model.name(layer)} shares parameters with another layer, "
                        "which folding a batch norm would separate"
                    )
        for node, kind in ((relu, nn.ReLU), (pool, nn.MaxPool2d)):
            module = self._module(node) if node is not None else None
            if module is not None:
                layers.check_plain(module, kind)
        arguments = layers.arguments_of(
            conv_layer,
            steps.pool_arguments(pool, self._module(pool)),
            "none" if relu is None else "relu",
        )
        self._check_surroundings(nodes)
        if relu is not None:
            self._check_not_changed(nodes[-1])
        removals = tuple(self._removal(node) for node in nodes if node is not conv)
        names = tuple(self._name(node) for node in nodes)
        return Chain(conv_layer, norm_layer, removals, tuple(arguments.items()), names)

    def _conv(self, node: Any) -> Node:
        if not isinstance(node, Node):
            raise NotFusedError("its input is no tensor of the graph")
        module = self._module(node)
        if isinstance(module, nn.Conv2d):
            return node
        if node.op == "placeholder":
            region = self.model.name(self.region.root)
            raise NotFusedError(f"its input is the input of {region}, not a convolution")
        if steps.name_of(node, module) == "conv2d":
            raise NotFusedError(
                "the convolution is a function; only modules are fused, so write it as nn.Conv2d"
            )
        what = steps.name_of(node, module)
        where = f" {self.model.name(module)}" if module is not None else ""
        raise NotFusedError(f"its input comes from {what}{where}, not from a convolution")

    def _check_called_once(self, module: nn.Module) -> None:
        name = self.model.name(module)
        if self.trace.times[module] > 1:
            raise NotFusedError(f"{name} is called {self.trace.times[module]} times")
        callers = self.model.callers[module]
        if len(callers) > 1 or not self.model.is_only_in(module, self.region.root):
            raise NotFusedError(f"{name} belongs to more than one part of the model")

    def _check_surroundings(self, nodes: list[Node]) -> None:
        """The chain may cross modules if nobody watches there, but not a `with torch.no_grad()`."""
        if len({self.trace.modes[node] for node in nodes}) > 1:
            raise NotFusedError("forward switches gradients or autocast between its layers")
        lines = [self.trace.owner(node).line() for node in nodes]
        crossed: set[Call] = set().union(*lines) - set(lines[0]).intersection(*lines)
        for call in crossed:
            layers.check_hooks(call.module)
            self._check_called_once(call.module)

    def _check_not_changed(self, end: Node) -> None:
        """The gradient of a fused ReLU needs the layer's output as it was."""
        for user in end.users:
            module = self._module(user)
            if steps.input_of(user) is not end:
                continue
            if steps.changes_input(user, module):
                raise NotFusedError(
                    f"{self._name(user)} changes the result in place, which the gradient of the "
                    "fused layer needs"
                )
            if steps.may_be_view(user, module):
                self._check_not_changed(user)

    def _removal(self, node: Node) -> Removal:
        module, owner = self._module(node), self.trace.owner(node)
        if module is not None:
            try:
                self._check_called_once(module)
            except NotFusedError:
                if type(owner.module).forward is nn.Sequential.forward:
                    return Removal(None, owner.module, self.trace.calls[node].position)
            else:
                return Removal(module, owner.module, 0)
        return Removal(None, owner.module, owner.steps.index(node))

    def _module(self, node: Node) -> nn.Module | None:
        return self.trace.module(node)

    def _name(self, node: Node) -> str:
        module = self._module(node)
        if module is not None:
            return self.model.name(module)
        function = f"{steps.name_of(node, None)}()"
        owner = self.trace.owner(node).module
        path = self.model.paths[owner][0]
        return f"{function} in {path}" if path else function
