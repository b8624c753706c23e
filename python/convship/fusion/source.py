"""Reads the source of a module that cannot be traced: does it call a child as a whole?"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

from torch import nn


def uses_parts(parent: nn.Module, name: str) -> bool:
    """Whether a method of `parent` indexes, iterates, passes on or reaches into its child `name`.

    Such a method may see results in the middle of a chain. Where there is no source, nothing is
    known, and the answer is no.
    """
    kinds: Any = type(parent).__mro__
    child = parent._modules[name]
    inner = {*child._modules, *dir(type(child))} - set(dir(nn.Module)) if child is not None else ()
    return any(
        (use is None or use in inner)
        for kind in kinds
        if issubclass(kind, nn.Module) and not kind.__module__.startswith("torch.")
        for use in _uses(kind).get(name, ())
    )


@functools.lru_cache(maxsize=64)
def _uses(kind: Any) -> dict[str, set[str | None]]:
    """How attributes are used other than by a call: by which attribute of theirs, or None."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    uses: dict[str, set[str | None]] = {}
    for method in ast.walk(tree):
        if isinstance(method, ast.FunctionDef) and method.name != "__init__":
            around = {
                part: node for node in ast.walk(method) for part in ast.iter_child_nodes(node)
            }
            for node in around:
                if isinstance(node, ast.Attribute) and not _is_whole(node, around[node]):
                    outer = around[node]
                    use = outer.attr if isinstance(outer, ast.Attribute) else None
                    uses.setdefault(node.attr, set()).add(use)
    return uses


def _is_whole(node: ast.Attribute, around: ast.AST) -> bool:
    """Whether an attribute is called, compared (as with None), tested or assigned to."""
    is_called = isinstance(around, ast.Call) and around.func is node
    is_tested = isinstance(around, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.If))
    return is_called or is_tested or not isinstance(node.ctx, ast.Load)
