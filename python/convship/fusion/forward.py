"""Writes a module's forward anew, without the ReLUs and max pools that a fused layer does.

A rewritten module gets a class of its own, derived from the one it had. torch.fx's GraphModule
would drop what forward does not use, be it a submodule or an attribute, and would remain for ever
in the mode, training or evaluation, that it was traced in.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import linecache
import operator
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import fx, nn

from convship.fusion import steps
from convship.fusion.layers import NotFusedError
from convship.fusion.tracing import Scratch, Trace

# Names that generated code takes for values which know no module of theirs.
_VALUES = {"inf": ("math", "inf"), "nan": ("math", "nan"), "NoneType": ("types", "NoneType")}

_Imports = tuple[tuple[str, str, str], ...]
_numbers = itertools.count()


class Forward:
    """The forward of one module, as a graph that serves training and evaluation.

    Raises:
        NotFusedError: It cannot be told by a graph.
    """

    def __init__(self, scratch: Scratch, module: nn.Module) -> None:
        self._module = module
        parameters = inspect.signature(type(module).forward).parameters.values()
        if "forward" in vars(module) or any(
            p.kind is not p.POSITIONAL_OR_KEYWORD or p.default is not p.empty for p in parameters
        ):
            raise self._failure("has optional arguments or belongs to the instance")
        try:
            trained, trace = (
                scratch.trace(module, lambda _: True, training=training)
                for training in (True, False)
            )
        except Exception as error:  # forward is any code, and may raise anything
            raise self._failure(f"cannot be traced: {error}") from error
        if len(set(trace.modes.values()) | set(trained.modes.values())) > 1:
            raise self._failure("switches gradients or autocast")
        self._check_attributes(trace.graph)
        self._unite(trained.graph, trace.graph)
        self._graph = trace.graph
        self._steps = trace.calls[next(iter(trace.graph.nodes))].steps
        self._names = [_signature(trace, node) for node in self._steps]
        self._methods = [trace.methods[node] for node in self._steps]

    def check_steps(self, trace: Trace, nodes: list[fx.Node]) -> None:
        """Raise NotFusedError unless another trace found the same ReLUs and max pools."""
        if self._names != [_signature(trace, node) for node in nodes]:
            raise self._failure("takes another way when it is traced alone")
        self._code()

    def rewrite(self, without: set[int]) -> None:
        """Give the module a forward without these steps, numbered in the order of calls."""
        methods: set[str] = set()
        for position in without:
            node = self._steps[position]
            methods |= self._methods[position]
            node.replace_all_uses_with(steps.input_of(node))
            self._graph.erase_node(node)
        if isinstance(self._module, fx.GraphModule):  # has a class of its own, made anew by itself
            self._graph._tracer_cls = None  # unpickling would look for ours
            self._module.graph = self._graph
            return
        base: Any = type(self._module)
        if issubclass(base, _Rewritten):  # a model that was fused before
            base = base._recipe[0]
        self._module.__class__ = _class(base, *self._code(), tuple(sorted(methods)))

    def _failure(self, what: str) -> NotFusedError:
        name = type(self._module).__name__
        return NotFusedError(f"forward of {name} would have to be rewritten, but it {what}")

    def _check_attributes(self, graph: fx.Graph) -> None:
        """Tensors that forward makes, or holds outside buffers, would be frozen into the code."""
        for node in graph.find_nodes(op="get_attr"):
            first = str(node.target).split(".")[0]
            if not any(
                first in vars(self._module)[kind]
                for kind in ("_parameters", "_buffers", "_modules")
            ):
                raise self._failure("makes tensors that depend on no input")

    def _unite(self, trained: fx.Graph, graph: fx.Graph) -> None:
        """Let `graph` say `self.training` where training differs by True instead of False."""
        if len(trained.nodes) != len(graph.nodes):
            raise self._failure("takes another way in training")
        first = next(node for node in graph.nodes if node.op != "placeholder")
        with graph.inserting_before(first):
            flag = graph.get_attr("training")
        pairs: dict[Any, fx.Node] = {}
        for theirs, ours in zip(
            trained.nodes, [n for n in graph.nodes if n is not flag], strict=True
        ):
            if theirs.op != ours.op or theirs.target != ours.target:
                raise self._failure("takes another way in training")
            ours.args = self._united(theirs.args, ours.args, pairs, flag)
            ours.kwargs = self._united(theirs.kwargs, ours.kwargs, pairs, flag)
            pairs[theirs] = ours
        if not flag.users:
            graph.erase_node(flag)

    def _united(self, theirs: Any, ours: Any, pairs: dict[Any, fx.Node], flag: fx.Node) -> Any:
        unite = functools.partial(self._united, pairs=pairs, flag=flag)
        if isinstance(theirs, fx.Node):
            if pairs.get(theirs) is ours:
                return ours
        elif isinstance(theirs, slice) and isinstance(ours, slice):
            parts = operator.attrgetter("start", "stop", "step")
            return slice(*map(unite, parts(theirs), parts(ours)))
        elif isinstance(theirs, dict) and isinstance(ours, dict) and theirs.keys() == ours.keys():
            return {key: unite(theirs[key], ours[key]) for key in ours}
        elif isinstance(theirs, (tuple, list)) and len(theirs) == len(ours):
            return (
                [unite(*pair) for pair in zip(theirs, ours, strict=True)]
                if isinstance(theirs, list)
                else tuple(unite(*pair) for pair in zip(theirs, ours, strict=True))
            )
        elif theirs is True and ours is False:
            return flag
        elif type(theirs) is type(ours) and theirs == ours:
            return ours
        raise self._failure("computes with other values in training")

    def _code(self) -> tuple[str, _Imports]:
        for node in self._graph.nodes:
            if isinstance(node.type, str):  # postponed annotations name what the code cannot see
                node.type = None
        code = self._graph.python_code("self")
        used = {
            name: value
            for name, value in code.globals.items()
            if re.search(rf"\b{name}\b", code.src)
        }
        return code.src, tuple((name, *self._import(name, used[name])) for name in sorted(used))

    def _import(self, name: str, value: Any) -> tuple[str, str]:
        """Module and attribute to import a value from: the class must be made again elsewhere."""
        if name in _VALUES:
            return _VALUES[name]
        if isinstance(value, ModuleType):
            return value.__name__, ""
        place = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
        try:
            if _imported(*place) is value:
                return place
        except (ImportError, AttributeError, ValueError):
            pass
        raise self._failure(f"uses {name}, which cannot be imported by its name")


def _signature(trace: Trace, node: fx.Node) -> Any:
    return trace.module(node) or (node.op, node.target)


def _imported(module: str, attribute: str) -> Any:
    value: Any = importlib.import_module(module)
    return operator.attrgetter(attribute)(value) if attribute else value


class _Rewritten:
    """What makes instances of a generated class survive pickle and deepcopy."""

    _recipe: tuple[type[nn.Module], str, _Imports, tuple[str, ...]]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _instance, self._recipe, self.__dict__


def _instance(*recipe: Any) -> nn.Module:
    kind = _class(*recipe)
    return kind.__new__(kind)


@functools.cache
def _class(base: Any, source: str, imports: _Imports, methods: tuple[str, ...]) -> type[nn.Module]:
    # TorchScript and tracebacks read a function's source through its file name.
    filename = f"<convship.fuse {base.__name__} {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    names = {name: _imported(module, attribute) for name, module, attribute in imports}
    exec(compile(source, filename, "exec"), names)
    members = {
        **{method: _gone(base.__name__, method) for method in methods},
        "forward": names["forward"],
        "_recipe": (base, source, imports, methods),
        "__module__": base.__module__,
        "__doc__": base.__doc__,
    }
    return type(base.__name__, (_Rewritten, base), members)


def _gone(owner: str, method: str) -> Callable[..., None]:
    """A method that forward called, and that would apply a fused layer's ReLU or pool again."""

    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError(
            f"{owner}.{method}: its layers are fused into forward; call forward, or {method} of "
            "the model before convship.fuse"
        )

    return refuse
