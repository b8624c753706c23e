"""PyTorch's trace, with the native steps as a track of their own."""

from __future__ import annotations

from typing import Any

from convship.profiling.native_steps import NativePlan

__all__ = ["NATIVE_TRACK", "with_native_track"]

NATIVE_TRACK = "convship-run: median of each step"


def with_native_track(trace: dict[str, Any], plan: NativePlan, beside: str) -> dict[str, Any]:
    """Return `trace` with the steps of `plan`, one after the other, as another process.

    They begin where the first call named `beside` does, so that both can be seen together. Only
    their lengths and their order were measured.

    Example:
        >>> from convship.profiling.native_steps import NativeStep
        >>> call = {"ph": "X", "name": "call", "ts": 5.0, "dur": 9.0, "pid": 7, "tid": 7}
        >>> plan = NativePlan(True, [NativeStep("conv", 0.002), NativeStep("linear", 0.001)])
        >>> merged = with_native_track({"traceEvents": [call]}, plan, "call")
        >>> [(e["name"], e["ts"], e["dur"]) for e in merged["traceEvents"] if e["ph"] == "X"][1:]
        [('conv', 5.0, 2.0), ('linear', 7.0, 1.0)]
    """
    events = trace["traceEvents"]
    pid = 1 + max(event["pid"] for event in events if isinstance(event.get("pid"), int))
    start = min(event["ts"] for event in events if event.get("name") == beside)
    track = [_label("process_name", NATIVE_TRACK, pid), _label("thread_name", "steps", pid)]
    for step in plan.steps:
        us = 1e3 * step.ms
        event = {"ph": "X", "cat": "native", "name": step.name, "ts": start, "dur": us}
        track.append({**event, "pid": pid, "tid": 0})
        start += us
    return {**trace, "traceEvents": [*events, *track]}


def _label(kind: str, text: str, pid: int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": 0, "ts": 0, "args": {"name": text}}
