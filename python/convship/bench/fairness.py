"""What makes a comparison unfair, in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from convship.bench.intervals import relative_spread

__all__ = ["build_warnings", "facts_warnings", "noise_warnings", "spread_of"]

_NOISY = 0.1  # variation of what never changes
_CROWDED = 0.02  # share of time without the core


def noise_warnings(spread: float | None, waited: float) -> list[str]:
    """Say that the machine was busy or noisy.

    Args:
        spread: By how much varied what should not; None where not measured.
        waited: Share of time in which other programs had the cores.

    Example:
        >>> noise_warnings(0.01, 0.0)
        []
    """
    warnings = []
    if waited > _CROWDED:
        warnings.append(
            f"busy machine: other programs had the cores {100 * waited:.0f} % of the time; "
            "close them and measure again"
        )
    if spread is not None and spread > _NOISY:
        warnings.append(
            f"noisy machine: what never changes varied by {100 * spread:.0f} % between "
            "rounds; close other programs and measure again"
        )
    return warnings


def spread_of(flop_seconds: Sequence[float], steady: Sequence[Sequence[float]]) -> float | None:
    """Return how much that varied which should not: the FMA rate, else the middle of `steady`.

    One series may vary by itself; a noisy machine disturbs all.

    Example:
        >>> spread_of([], [[1.0, 1.0], [1.0, 2.0], [5.0, 5.0]])
        0.0
    """
    if len(flop_seconds) > 1:
        return relative_spread(flop_seconds)
    spreads = [relative_spread(values) for values in steady if len(values) > 1]
    return statistics.median(spreads) if spreads else None


def build_warnings(build: Mapping[str, str]) -> list[str]:
    """Say that our own code was built without optimisation.

    Example:
        >>> build_warnings({"build_type": "Release"})
        []
    """
    if build["build_type"] in ("Release", "RelWithDebInfo"):
        return []
    return [
        f"debug build: convship was built as {build['build_type'] or 'nothing in particular'}; "
        "build it as Release"
    ]


def facts_warnings(name: str, facts: Mapping[str, Any], threads: int) -> list[str]:
    """Say that an engine does not run as the others do.

    Args:
        name: The engine.
        facts: What it says of itself: "threads", "grad".
        threads: What was asked for.

    Example:
        >>> facts_warnings("a", {"threads": 2}, 1)
        ['thread mismatch: a runs with 2 threads, asked for were 1; its times are no comparison']
    """
    warnings = []
    if facts.get("threads", threads) != threads:
        warnings.append(
            f"thread mismatch: {name} runs with {facts['threads']} threads, asked for were "
            f"{threads}; its times are no comparison"
        )
    if facts.get("grad", False):
        warnings.append(
            f"gradients on: {name} records for a backward pass; its times are no comparison"
        )
    return warnings
