"""Time per step, by the native program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convship.verify import run_native

__all__ = ["NativePlan", "NativeStep", "native_plan"]


@dataclass(frozen=True)
class NativeStep:
    """One step of the plan: its name and the median of its time."""

    name: str
    ms: float


@dataclass
class NativePlan:
    """What `convship-run info --plan` tells.

    Attributes:
        whole: Whether LibTorch takes no part in the network.
        steps: What convship's kernels run, in order.
        left_to_libtorch: Operators that LibTorch runs, and how many of each; they have no times.
    """

    whole: bool
    steps: list[NativeStep] = field(default_factory=list)
    left_to_libtorch: dict[str, int] = field(default_factory=dict)


def native_plan(
    path: str | Path,
    *,
    batch: int = 1,
    threads: int = 1,
    size: Sequence[int] | None = None,
    plain: bool = False,
) -> NativePlan:
    """Ask the native program for its steps and their times.

    Args:
        path: A shipped file.
        batch: Images per call.
        threads: Threads inside one call.
        size: Sizes of one image; None: as the file says.
        plain: Accept a TorchScript file that convship did not write.

    Raises:
        FileNotFoundError: The native program is not installed.
        ModelFileError: The file is damaged or of another kind.
        ValueError: The program cannot make up such inputs, or the network refuses them.

    Example:
        >>> native_plan("README.md")
        Traceback (most recent call last):
            ...
        convship.errors.ModelFileError: README.md: this is not a convship model (no ZIP archive)
    """
    lines = run_native(
        "info",
        *("--plan", "--json", "--batch", str(batch), "--threads", str(threads)),
        *(("--size", "x".join(map(str, size))) if size else ()),
        *(("--plain",) if plain else ()),
        *("--", path),
    )
    plan = json.loads(lines)["plan"]
    steps = [NativeStep(step["step"], step["ms"]) for step in plan["steps"]]
    return NativePlan(plan["whole"], steps, plan["left_to_libtorch"])
