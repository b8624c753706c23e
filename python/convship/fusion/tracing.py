"""torch.fx traces of a model or, where it cannot be traced, of its parts."""

from __future__ import annotations

import copy
import inspect
import itertools
import operator
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from convship.fusion import source, steps
from convship.nn import ConvPool2d


@dataclass(eq=False)
class Call:
    """One call of a module while a graph is traced."""

    module: nn.Module
    caller: Call | None
    position: int  # how many modules the caller had called before
    calls: int = 0
    steps: list[fx.Node] = field(default_factory=list)  # ReLUs and max pools called directly

    def line(self) -> list[Call]:
        """This call and those that it happened in."""
        return [self, *(self.caller.line() if self.caller else [])]


@dataclass(eq=False)
class Trace:
    """A graph, and where each of its nodes comes from. Modules are those of the model."""

    graph: fx.Graph
    calls: dict[fx.Node, Call]
    modes: dict[fx.Node, tuple[bool, ...]]
    times: Counter[nn.Module]
    methods: dict[fx.Node, set[str]]  # of the owner, in which a ReLU or max pool is called

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        return self.calls[node].module if node.op == "call_module" else None

    def owner(self, node: fx.Node) -> Call:
        """The call whose forward contains the node."""
        call = self.calls[node]
        return call.caller if node.op == "call_module" and call.caller else call


@dataclass(frozen=True)
class Region:
    """A module that can be traced, with its traces: each way its forward may go."""

    root: nn.Module
    traces: tuple[Trace, ...]

    def steps_of(self, owner: nn.Module) -> tuple[Trace, list[fx.Node]]:
        """The ReLUs and max pools that the forward of `owner` calls itself."""
        trace = self.traces[0]
        calls = itertools.chain.from_iterable(call.line() for call in trace.calls.values())
        return trace, next(call.steps for call in calls if call.module is owner)


@dataclass
class Explored:
    """Regions of a model, and the modules that no trace leads through, with the reason."""

    regions: list[Region]
    opaque: dict[nn.Module, str]


class Scratch:
    """A copy of a model to trace in: forward may leave proxies behind, in attributes and lists.

    Parameters and buffers are shared with the model; traces see proxies in their place. Hooks are
    absent: they would be called with proxies, and may keep them.
    """

    def __init__(self, model: nn.Module) -> None:
        tensors = itertools.chain(model.parameters(), model.buffers())
        self._copy = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        self.original = dict(zip(self._copy.modules(), model.modules(), strict=True))
        self.copy = {original: module for module, original in self.original.items()}
        self.callers: dict[nn.Module, set[nn.Module]] = defaultdict(set)
        for module in self.original:
            module._forward_hooks = OrderedDict()
            module._forward_pre_hooks = OrderedDict()

    def trace(
        self,
        root: nn.Module,
        is_leaf: Callable[[nn.Module], bool],
        *,
        training: bool,
        use_defaults: bool = False,
    ) -> Trace:
        """Trace the forward of `root`, a module of the model; raise whatever it raises."""
        copied = self.copy[root]
        for module in copied.modules():
            module.training = training
        tracer = _Tracer(self, root, is_leaf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = tracer.trace(copied, defaults_of(root) if use_defaults else None)
        return Trace(graph, tracer.calls_of, tracer.modes, tracer.times, tracer.methods)


class _Tracer(fx.Tracer):
    """Notes for each node which call it belongs to."""

    proxy_buffer_attributes = True

    def __init__(
        self, scratch: Scratch, root: nn.Module, is_leaf: Callable[[nn.Module], bool]
    ) -> None:
        super().__init__()
        self._scratch = scratch
        self._is_leaf = is_leaf
        self._call = Call(root, None, 0)
        self.calls_of: dict[fx.Node, Call] = {}
        self.modes: dict[fx.Node, tuple[bool, ...]] = {}
        self.times: Counter[nn.Module] = Counter()
        self.methods: dict[fx.Node, set[str]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self._is_leaf(self._scratch.original[m])

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        caller = self._call
        module = self._scratch.original.get(m)
        if module is None:  # made in forward, as a slice of an nn.Sequential is: part of forward
            return forward(*args, **kwargs)
        self.times[module] += 1
        self._scratch.callers[module].add(caller.module)
        self._call = Call(module, caller, caller.calls)
        caller.calls += 1
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._call = caller

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.calls_of[node] = self._call
        self.modes[node] = _modes()
        module = self._call.module if node.op == "call_module" else None
        if steps.is_relu(node, module) or steps.is_pool(node, module):
            owner = self._call.caller if module is not None else self._call
            assert owner is not None
            owner.steps.append(node)
            self.methods[node] = _methods_running(self._scratch.copy[owner.module])
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    """Also records `x += y` as what it is; torch.fx would take it for `x = x + y`."""


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[[_Proxy, Any], Any]:
    def method(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ipow"):
    setattr(_Proxy, f"__{_name}__", _in_place(getattr(operator, _name)))


def _methods_running(module: nn.Module) -> set[str]:
    names = set()
    frame = inspect.currentframe()
    while frame is not None:
        first = frame.f_code.co_varnames[:1]
        if first and frame.f_locals.get(first[0]) is module:
            names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names - {"forward", *dir(nn.Module)}


def _modes() -> tuple[bool, ...]:
    """Modes that a `with` in forward may switch, and that a graph does not show."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        *(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")),
    )


def defaults_of(module: nn.Module) -> dict[str, Any]:
    """Optional arguments of a module's forward, with their defaults."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def is_layer(module: nn.Module) -> bool:
    """Whether traces take a module as one step: torch's own, ours, and what derives from them."""
    if isinstance(module, (ConvPool2d, torch.jit.ScriptModule, *steps.LAYERS)):
        return True
    is_container = isinstance(
        module, (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.DataParallel)
    )
    return type(module).__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not is_container


def explore(scratch: Scratch, root: nn.Module) -> Explored:
    """Trace `root`; where that fails its children, and then what lies between them."""
    try:
        return _region(scratch, root, frozenset())
    except Exception as failure:  # forward is any code, and may raise anything
        error = failure
    parts = [_explore_child(scratch, root, name) for name in root._modules]
    regions = [region for part in parts for region in part.regions]
    opaque = {module: reason for part in parts for module, reason in part.opaque.items()}
    if opaque:
        try:
            whole = _region(scratch, root, frozenset(opaque))
        except Exception as failure:
            error = failure
        else:
            inside = {inner for module in opaque for inner in module.modules()}
            whole.regions += [region for region in regions if region.root in inside]
            whole.opaque |= opaque
            return whole
    lines = str(error).strip().splitlines() or [""]
    reason = f"forward cannot be traced: {type(error).__name__}: {lines[0]}"
    return Explored(regions, opaque | {root: reason})


def _explore_child(scratch: Scratch, parent: nn.Module, name: str) -> Explored:
    child = parent._modules[name]
    if child is None or is_layer(child):
        return Explored([], {})
    is_list = isinstance(child, (nn.ModuleList, nn.ModuleDict))  # meant to be used in parts
    if not is_list and source.uses_parts(parent, name):
        reason = f"{type(parent).__name__} uses it in parts, where no trace leads"
        return Explored([], {child: reason})
    return explore(scratch, child)


def _region(scratch: Scratch, root: nn.Module, leaves: frozenset[nn.Module]) -> Explored:
    traces = _variants(scratch, root, leaves)
    called_again = frozenset(
        module
        for trace in traces
        for module, times in trace.times.items()
        if times > 1 and module not in leaves and not is_layer(module)
    )
    if not called_again:
        return Explored([Region(root, traces)], {})
    # A block that is called twice is one step here, and a region of its own.
    traces = _variants(scratch, root, leaves | called_again)
    explored = Explored([Region(root, traces)], {})
    for module in called_again.intersection(*[set().union(*(trace.times for trace in traces))]):
        part = explore(scratch, module)
        explored.regions += part.regions
        explored.opaque |= part.opaque
    return explored


def _variants(scratch: Scratch, root: nn.Module, leaves: frozenset[nn.Module]) -> tuple[Trace, ...]:
    # With a proxy for an optional argument, forward takes the way where it is given.
    return tuple(
        scratch.trace(
            root,
            lambda module: module in leaves or is_layer(module),
            training=training,
            use_defaults=use_defaults,
        )
        for use_defaults in ((False, True) if defaults_of(root) else (False,))
        for training in (False, True)
    )
