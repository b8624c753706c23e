"""What a profile found, for people and for machines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from convship.bench.table import digits, make_console, make_table
from convship.profiling.native_steps import NativePlan
from convship.profiling.torch_ops import OpTime

__all__ = ["ProfileReport", "as_text"]


@dataclass
class ProfileReport:
    """Where the time of a call goes.

    Attributes:
        model: The file, run or name.
        inputs: Sizes of each input, by name.
        threads: Threads inside one call.
        calls: How many calls were recorded.
        call_ms: Median time of a call, of torch ("torch.jit.load", of .pt2 files
            "aoti_load_package") and of "convship.load".
        ops: Operators of each, the slowest first.
        native: Steps of the native program; None where it could not tell.
        left_out: What could not be profiled, and why.
        trace: All of it in Chrome's trace format.
    """

    model: str
    inputs: dict[str, list[int]]
    threads: int
    calls: int
    call_ms: dict[str, float]
    ops: dict[str, list[OpTime]]
    native: NativePlan | None
    left_out: dict[str, str] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return everything but the trace as one JSON object."""
        return json.dumps({k: v for k, v in asdict(self).items() if k != "trace"})

    def trace_json(self) -> str:
        """Return the trace, for chrome://tracing and ui.perfetto.dev."""
        return json.dumps(self.trace)


def as_text(report: ProfileReport, *, top: int = 15, color: bool = False) -> str:
    """Return the report as tables, the slowest operators first, native steps in their order.

    Args:
        report: From `profile_model`.
        top: How many operators of each table are shown.
        color: Whether to mark words for a terminal.

    Example:
        >>> report = ProfileReport("m.pt", {"x": [1, 3]}, 1, 9, {}, {}, None, {"native": "no"})
        >>> print(as_text(report))
        m.pt, input 1x3, threads 1, median of 9 calls
        without native: no
    """
    buffer = io.StringIO()
    console = make_console(buffer, color=color)
    sizes = ", ".join("x".join(map(str, shape)) or "1" for shape in report.inputs.values())
    console.print(
        f"{report.model}, input {sizes}, threads {report.threads}, median of {report.calls} calls"
    )
    for name, reason in report.left_out.items():
        console.print(f"without {name}: {reason}")
    for name, ops in report.ops.items():
        console.print(f"\n{name}, {digits(report.call_ms[name])} ms a call", style="bold")
        console.print(_ops(ops, top))
    if report.native is not None:
        if report.native.whole:
            console.print("Outside of operators convship runs its plan; these are its steps.")
        whole = "the whole network" if report.native.whole else "parts of the network"
        total = digits(sum(step.ms for step in report.native.steps))
        console.print(f"\nconvship-run, steps of {whole}, {total} ms", style="bold")
        console.print(_steps(report.native))
        left = report.native.left_to_libtorch
        if left:
            names = ", ".join(f"{name} x{count}" for name, count in left.items())
            console.print(f"LibTorch runs, without times here: {names}")
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _ops(ops: list[OpTime], top: int) -> Table:
    table = make_table("")
    with_shapes = any(op.shapes for op in ops)
    _columns(table, "times", "operator", *(["inputs"] if with_shapes else []))
    shown, rest = ops[:top], ops[top:]
    total = sum(op.ms for op in ops)
    for op in shown:
        cells = [str(op.count), op.name, *([op.shapes] if with_shapes else [])]
        table.add_row(*_time(op.ms, total), *cells)
    if rest:
        counts = str(sum(op.count for op in rest))
        table.add_row(*_time(sum(op.ms for op in rest), total), counts, f"{len(rest)} others")
    return table


def _steps(plan: NativePlan) -> Table:
    total = sum(step.ms for step in plan.steps)
    table = make_table("")
    _columns(table, "step")
    for step in plan.steps:
        table.add_row(*_time(step.ms, total), step.name)
    return table


def _columns(table: Table, *others: str) -> None:
    for name in ("ms", "share"):
        table.add_column(name, justify="right")
    for name in others:
        table.add_column(name, justify="right" if name == "times" else "left")


def _time(ms: float, total: float) -> Iterable[str]:
    return digits(ms), f"{100 * ms / total:.1f} %" if total else "-"
