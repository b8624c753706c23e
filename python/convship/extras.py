"""Packages that are optional: found, or named with the way to get them."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, *, name: str, extra: str, verb: str) -> Any:
    """Return a module that only an extra of convship brings.

    Args:
        module: Such as "captum.attr".
        name: What people call it.
        extra: Of convship's package.
        verb: What needs it; opens the message.

    Raises:
        ModuleNotFoundError: It is not installed; the message says how to.

    Example:
        >>> import_extra("no.such", name="Such", extra="none", verb="explain")
        Traceback (most recent call last):
            ...
        ModuleNotFoundError: explain: Such is not installed; pip install 'convship[none]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"{verb}: {name} is not installed; pip install 'convship[{extra}]'"
        ) from error
