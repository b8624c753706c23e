"""A report for people: tables and the lines around them."""

from __future__ import annotations

import io
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from convship.bench.intervals import Interval
from convship.bench.report import BEST_PEER, Report, Shape
from convship.bench.rounds import Row

__all__ = ["as_text"]

WIDTH = 240  # wider than any table: lines are for files and wide terminals, never wrapped


def as_text(report: Report, *, color: bool = False) -> str:
    """Return environment, times, ratios and summary as text.

    Args:
        report: From `bench_op`.
        color: Whether to mark words for a terminal.

    Example:
        >>> from convship.bench.op import bench_op
        >>> report = bench_op(shapes=["lenet2"], engines=["torch eager"], rounds=1, slot_ms=1)
        >>> "Microseconds per call" in as_text(report)
        True
    """
    buffer = io.StringIO()
    console = make_console(buffer, color=color)
    console.print(_settings_line(report.settings, report.environment))
    for line in environment_lines(report.environment):
        console.print(line)
    for name, reason in report.left_out.items():
        console.print(f"without {name}: {reason}")
    console.print()
    console.print(_times(report))
    for problem in _problems(report):
        console.print(problem)
    if report.summary:
        console.print()
        console.print(_ratios(report))
        console.print()
        console.print(_summary(report))
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow")
    # rich pads every line to the width of its table.
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def environment_lines(environment: dict[str, Any]) -> list[str]:
    """Return CPU, load, versions and build, for the top of a report.

    Example:
        >>> from convship.bench.environment import describe_environment
        >>> from convship.bench.settings import Settings
        >>> len(environment_lines(describe_environment(Settings(), (0,))))
        2
    """
    build = environment["build"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return [
        f"{environment['cpu']}, {environment['cores']} cores, {' '.join(environment['cpu_flags'])};"
        f" isa {environment['isa']}{' (forced)' if environment['isa_forced'] else ''};"
        f" load before {environment['load_before']}",
        f"{versions}; built {build['build_type']} with {build['compiler']}",
    ]


def _settings_line(settings: dict[str, Any], environment: dict[str, Any]) -> str:
    work = "forward and backward" if settings["train"] else "inference"
    return (
        f"{work}, {settings['dtype']}, {settings['layout']}, threads {environment['threads']}, "
        f"{settings['rounds']} rounds of {settings['slot_ms']:g} ms"
    )


def _times(report: Report) -> Table:
    table = make_table("Microseconds per call, median of the rounds (* best peer)")
    table.add_column("shape")
    table.add_column("floor", justify="right")
    for name in report.kinds:
        table.add_column(name.replace(" ", "\n", 1), justify="right")
    table.add_row(
        "nothing to do",
        "",
        *(_microseconds(report.nothing_s.get(name)) for name in report.kinds),
        end_section=True,
    )
    for shape in report.shapes:
        floor = "" if shape.floor_s is None else digits(1e6 * shape.floor_s)
        table.add_row(shape.case.name, floor, *(_cell(shape, row) for row in shape.rows))
    return table


def _cell(shape: Shape, row: Row) -> str:
    if row.problem:
        return "wrong" if row.error is not None else "failed"
    mark = "*" if row.engine == shape.best_peer else ""
    ordered = sorted(row.seconds)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return mark + digits(1e6 * middle)


def _problems(report: Report) -> list[str]:
    return [
        f"{row.engine} on {shape.case.name}: {row.problem}"
        for shape in report.shapes
        for row in shape.rows
        if row.problem
    ]


def _ratios(report: Report) -> Table:
    table = make_table(
        "Time of the best peer / ours, median and 95 % interval (above 1: ours is faster)"
    )
    table.add_column("shape")
    table.add_column("best peer")
    ours = [name for name, kind in report.kinds.items() if kind == "ours"]
    for name in ours:
        table.add_column(name, justify="right")
    for shape in report.shapes:
        found = {ratio.ours: ratio for ratio in shape.ratios if ratio.against == BEST_PEER}
        cells = [interval_text(found[name].interval) if name in found else "-" for name in ours]
        table.add_row(shape.case.name, shape.best_peer or "-", *cells)
    return table


def _summary(report: Report) -> Table:
    table = make_table("Over all shapes")
    for name in ("ours", "against"):
        table.add_column(name)
    for name in ("geometric mean", "smallest", "slower on"):
        table.add_column(name, justify="right")
    table.add_column("which is")
    for row in report.summary:
        table.add_row(
            row.ours,
            row.against,
            interval_text(row.geometric_mean),
            f"{digits(row.smallest)} ({row.smallest_shape})",
            f"{len(row.slower_shapes)} of {row.shapes}",
            ", ".join(row.slower_shapes[:4]) + (", ..." if len(row.slower_shapes) > 4 else ""),
        )
    return table


def make_console(buffer: io.StringIO, *, color: bool) -> Console:
    """Return a console that writes a report's lines there as they are."""
    return Console(
        file=buffer, width=WIDTH, force_terminal=color, highlight=False, emoji=False, markup=False
    )


def make_table(title: str) -> Table:
    """Return an empty table as all reports have it."""
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, pad_edge=False)


def _microseconds(interval: Interval | None) -> str:
    return "-" if interval is None else digits(1e6 * interval.value)


def interval_text(interval: Interval) -> str:
    """Return a value and its interval: "1.20 (1.18 - 1.22)"."""
    low, high = digits(interval.low), digits(interval.high)
    return f"{digits(interval.value)} ({low} - {high})"


def digits(value: float) -> str:
    """Return three digits, which is more than the noise allows; no exponents, though."""
    if value < 0.1:
        return f"{value:.3f}"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
