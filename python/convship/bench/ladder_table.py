"""A run on the ladder for people: a table per batch and threads, and the lines around them."""

from __future__ import annotations

import io
from typing import Any

from rich.table import Table

from convship.bench.ladder_report import AGAINST, LadderReport
from convship.bench.table import (
    digits,
    environment_lines,
    interval_text,
    make_console,
    make_table,
)

__all__ = ["ladder_as_text"]


def ladder_as_text(report: LadderReport, *, color: bool = False) -> str:
    """Return environment, times, ratios and warnings as text.

    Args:
        report: From `bench_model`.
        color: Whether to mark words for a terminal.

    Example:
        >>> from convship.bench.example import example_report
        >>> "native fast" in ladder_as_text(example_report())
        True
    """
    buffer = io.StringIO()
    console = make_console(buffer, color=color)
    settings = report.settings
    sizes = ", ".join("x".join(map(str, shape)) or "1" for shape in settings["input"].values())
    console.print(f"{report.title}, input {sizes}, float32")
    for line in environment_lines(report.environment):
        console.print(line)
    console.print(f"{settings['rounds']} rounds of {settings['slot_ms']:g} ms")
    for name, reason in report.left_out.items():
        console.print(f"without {name}: {reason}")
    for key in report.ratios:
        rows = [row for row in report.results if (row["batch"], row["threads"]) == key]
        console.print()
        console.print(_times(rows, key))
        for row in rows:
            if row["problem"]:
                console.print(f"{row['rung']}: {row['problem']}")
        if report.ratios[key]:
            console.print(_ratios(report, key))
        if any("stages_us" in row for row in rows):
            console.print(_stages(rows))
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow")
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _times(rows: list[dict[str, Any]], key: tuple[int, int]) -> Table:
    table = make_table(f"Batch {key[0]}, threads {key[1]}: microseconds per call")
    table.add_column("rung")
    for name in ("p50", "p90", "p99", "images/s", "load ms", "first ms", "peak MiB"):
        table.add_column(name, justify="right")
    for row in rows:
        times = [row.get(f"{name}_us") for name in ("p50", "p90", "p99")]
        cells = [digits(time) if time is not None else "-" for time in times]
        if row["problem"]:
            cells[0] = "wrong" if row["error"] is not None else "failed"
        rate = row.get("images_per_s")
        cells.append("-" if rate is None else digits(rate))
        for name in ("load_us", "first_us"):
            cells.append(digits(row[name] / 1e3) if name in row else "-")
        cells.append(f"{row['peak_mib']:.0f}")
        table.add_row(row["rung"], *cells)
    return table


def _ratios(report: LadderReport, key: tuple[int, int]) -> Table:
    table = make_table("Times as fast as, median of the rounds and 95 % interval")
    table.add_column("rung")
    ratios = report.ratios[key]
    peers = {ratio.against: ratio.peer for ratio in ratios}
    columns = [name for name in AGAINST if name in peers]
    for name in columns:
        table.add_column(f"{name}\n{peers[name]}", justify="right")
    for ours in dict.fromkeys(ratio.ours for ratio in ratios):
        found = {ratio.against: ratio.interval for ratio in ratios if ratio.ours == ours}
        cells = [interval_text(found[name]) if name in found else "-" for name in columns]
        table.add_row(ours, *cells)
    return table


def _stages(rows: list[dict[str, Any]]) -> Table:
    table = make_table("One image from its bytes to its class, microseconds")
    table.add_column("rung")
    for name in ("decode", "preprocess", "network", "end to end", "images/s"):
        table.add_column(name, justify="right")
    for row in rows:
        stages = row.get("stages_us")
        if stages is None:
            continue
        table.add_row(
            row["rung"],
            *(digits(stages[name]) for name in ("decode", "preprocess", "network", "end_to_end")),
            digits(1e6 / stages["end_to_end"]),
        )
    return table
