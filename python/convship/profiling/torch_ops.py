"""Time per operator, by PyTorch's profiler."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

__all__ = ["OUTSIDE", "OpTime", "Recording", "record"]

# Python, the interpreter of TorchScript, and a plan that is the whole network.
OUTSIDE = "(outside of operators)"
_WARM_UP = 3  # TorchScript watches the first calls before it optimises


@dataclass(frozen=True)
class OpTime:
    """One operator in one call.

    Attributes:
        name: Such as "aten::convolution".
        shapes: Sizes of its inputs; empty unless asked for.
        count: How many times a call runs it.
        ms: Its own time in a call, without that of operators it calls; median of the calls.
    """

    name: str
    shapes: str
    count: int
    ms: float


@dataclass
class Recording:
    """What the profiler saw.

    Attributes:
        ops: By name of the function, the slowest operator first.
        call_ms: By name of the function, the time of a whole call; median.
        trace: Chrome's trace format, as PyTorch wrote it.
    """

    ops: dict[str, list[OpTime]] = field(default_factory=dict)
    call_ms: dict[str, float] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)


def record(
    functions: Mapping[str, Callable[[], object]], *, calls: int, shapes: bool = False
) -> Recording:
    """Call each function `calls` times under the profiler, in inference mode.

    Args:
        functions: What to call, by name; in the trace, calls are named after it.
        calls: How many calls are recorded, after a few that are not.
        shapes: Whether an operator counts once per sizes of its inputs.

    Example:
        >>> x = torch.rand(64, 64)
        >>> found = record({"square": lambda: x @ x}, calls=2)
        >>> {op.name: op.count for op in found.ops["square"]}["aten::mm"]
        1
    """
    with torch.inference_mode():
        for function in functions.values():
            for _ in range(_WARM_UP):
                function()
        with profile(activities=[ProfilerActivity.CPU], record_shapes=shapes) as profiler:
            for name, function in functions.items():
                for _ in range(calls):
                    with record_function(name):
                        function()
    found = Recording(trace=_trace(profiler))
    # One list per call: (operator and shapes) -> microseconds, times run.
    spent: dict[str, list[dict[tuple[str, str], tuple[float, int]]]] = defaultdict(list)
    for event in profiler.events() or ():
        if event.name in functions and event.cpu_parent is None:
            spent[event.name].append(_within(event, shapes))
            found.call_ms[event.name] = 0.0
    for name in functions:
        found.ops[name] = _medians(spent[name])
        totals = (sum(us for us, _ in call.values()) for call in spent[name])
        found.call_ms[name] = statistics.median(totals) / 1e3
    return found


def _within(call: Any, shapes: bool) -> dict[tuple[str, str], tuple[float, int]]:
    """Own time and count of every operator below `call`."""
    spent: dict[tuple[str, str], tuple[float, int]] = {(OUTSIDE, ""): (call.self_cpu_time_total, 1)}
    pending = list(call.cpu_children)
    while pending:
        event = pending.pop()
        pending += event.cpu_children
        key = (event.name, _shapes_text(event.input_shapes) if shapes else "")
        us, count = spent.get(key, (0.0, 0))
        spent[key] = (us + event.self_cpu_time_total, count + 1)
    return spent


def _shapes_text(shapes: Any) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes or () if shape)


def _medians(calls: list[dict[tuple[str, str], tuple[float, int]]]) -> list[OpTime]:
    ops = []
    for key in {key for call in calls for key in call}:
        spent = [call.get(key, (0.0, 0)) for call in calls]
        count = statistics.median_high(count for _, count in spent)
        ops.append(OpTime(*key, count, statistics.median(us for us, _ in spent) / 1e3))
    return sorted(ops, key=lambda op: (-op.ms, op.name, op.shapes))


def _trace(profiler: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="convship-profile-") as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
