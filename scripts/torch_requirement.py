"""Build-time metadata: a wheel requires the torch minor version it was built for.

LibTorch's C++ ABI changes with every minor version, so `torch==2.13.*` is what a
wheel built against 2.13 can load. An sdist has no such requirement yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

OLDEST = (2, 11)


def dynamic_metadata(settings: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the torch requirement for the torch that this build sees."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        oldest = ".".join(map(str, OLDEST))
        return {"dependencies": [f"torch>={oldest}"]}
    major, minor = (int(part) for part in installed.split(".")[:2])
    if (major, minor) < OLDEST:
        msg = (
            f"convship needs torch {OLDEST[0]}.{OLDEST[1]} or newer to build, "
            f"found {installed}; run: pip install torch==2.13.0"
        )
        raise SystemExit(msg)
    return {"dependencies": [f"torch=={major}.{minor}.*"]}


def dynamic_wheel(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Say that the requirement of a wheel may differ from the sdist's."""
    return {"dependencies": True}
