"""Loads the compiled part of the package, once."""

import functools
import re
from importlib import metadata
from types import ModuleType

import torch


@functools.cache
def load() -> ModuleType:
    """Load `convship._C`, and with it the ops in `torch.ops.convship`.

    Returns:
        The extension module.

    Raises:
        ImportError: it cannot be loaded; the message names likely causes.

    Example:
        >>> from convship import _library
        >>> "torch_version" in _library.load().build_info()
        True
    """
    try:
        from convship import _C
    except ImportError as error:
        raise ImportError(_explain(str(error), _required_torch())) from error
    built_for = _C.build_info()["torch_version"]
    if built_for.split(".")[:2] != torch.__version__.split(".")[:2]:
        raise ImportError(_explain("the versions of torch differ", built_for))
    return _C


def _explain(problem: str, built_for: str | None) -> str:
    return (
        f"convship: the compiled library convship._C cannot be loaded: {problem}. Likely causes:\n"
        f"  1. It was built for torch {built_for or '(unknown)'} and this is torch "
        f"{torch.__version__}; a build serves one minor version of torch. "
        "Install that torch, or build convship again.\n"
        "  2. It was not built: install the package with `pip install .`, "
        "do not import it from the source folder.\n"
        "  3. This Python is not the one it was built for."
    )


def _required_torch() -> str | None:
    """The torch that the installed package asks for: the one it was built for."""
    try:
        requirements = metadata.requires("convship") or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        match = re.match(r"torch\s*([=<>~!][^;]*)", requirement)
        if match:
            return match.group(1).strip()
    return None
