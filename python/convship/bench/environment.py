"""Where a run took place: without it, numbers mean nothing."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from convship import _library
from convship._version import __version__
from convship.bench.settings import Settings

__all__ = ["check_isa", "choose_cpus", "describe_environment"]

_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
_PACKAGES = ("torch", "numpy", "onnx", "onnxruntime", "openvino")


def describe_environment(settings: Settings, cpus: tuple[int, ...]) -> dict[str, Any]:
    """Return CPU, instruction sets, versions, build and load of this moment.

    Example:
        >>> sorted(describe_environment(Settings(), (0,)))[:3]
        ['build', 'cores', 'cpu']
    """
    library = _library.load()
    model, flags = _cpu()
    return {
        "cpu": model,
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "pinned_to": list(cpus),
        "threads": settings.threads,
        "isa": settings.isa or library.active_isa(),
        "isa_forced": settings.isa is not None,
        "build": {key: value for key, value in library.build_info().items() if key != "version"},
        "versions": {"python": platform.python_version(), "convship": __version__} | _versions(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def choose_cpus(threads: int) -> tuple[int, ...]:
    """Return the first cores that this process may use, one per thread.

    Raises:
        ValueError: There are fewer cores than threads.

    Example:
        >>> len(choose_cpus(1))
        1
    """
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        msg = f"bench: threads must be at most {len(allowed)}, the cores there are, got {threads}"
        raise ValueError(msg)
    return tuple(allowed[:threads])


def check_isa(name: str | None) -> None:
    """Check that an instruction set can be forced.

    Raises:
        ValueError: It is not available; the message lists those that are.

    Example:
        >>> check_isa(None)
    """
    available = _library.load().available_isas()
    if name is not None and name not in available:
        msg = f"bench: isa must be one of {', '.join(available)} on this machine, got '{name}'"
        raise ValueError(msg)


def _cpu() -> tuple[str, set[str]]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    return (
        model.group(1) if model else platform.machine(),
        set(flags.group(1).split()) if flags else set(),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
