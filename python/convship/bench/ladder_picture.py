"""A run on the ladder as pictures: times per rung, rounds, and the way from image to class."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convship.atomic import write_atomically
from convship.bench.ladder_report import LadderReport
from convship.bench.picture import COLORS, time_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["batches_figure", "draw_ladder", "rounds_figure", "stages_figure", "times_figure"]

_STAGE_COLORS = {
    "decode": "#1b9e77",
    "preprocess": "#7570b3",
    "network": "#b9c0c9",
    "rest": "#e3e3e3",
}
_KINDS = {"stock": "torch as it is", "peer": "other engines", "ours": "convship"}
_TEXT: dict[str, Any] = {"va": "center", "fontsize": 8}


def draw_ladder(report: LadderReport, path: str | Path) -> None:
    """Draw the times of all rungs, and below them one image's way to its class, as PNG.

    Example:
        >>> import tempfile
        >>> from convship.bench.example import example_report
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_ladder(example_report(), Path(folder) / "ladder.png")
    """
    buffer = io.BytesIO()
    times_figure(report, with_stages=True).savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def times_figure(report: LadderReport, *, with_stages: bool = False) -> Figure:
    """Return a panel of bars per batch and threads.

    Args:
        report: From `bench_model`.
        with_stages: Whether the way from image to class has a panel too, where it was measured.

    Example:
        >>> from convship.bench.example import example_report
        >>> len(times_figure(example_report()).axes)
        1
    """
    keys = list(report.ratios)
    stages = _with_stages(report) if with_stages else []
    count = len(keys) + (1 if stages else 0)
    columns = min(2, count)
    rungs = max(sum(_key(row) == key for row in report.results) for key in keys)
    figure = _figure(count, columns, 0.8 + 0.24 * rungs)
    axes = figure.subplots(-(-count // columns), columns, squeeze=False).flatten()
    for axis, key in zip(axes, keys, strict=False):
        _times(axis, report, key)
    if stages:
        _stages(axes[len(keys)], stages)
    for axis in axes[count:]:
        axis.axis("off")
    _kinds(figure, {row["kind"] for row in report.results})
    environment = report.environment
    figure.suptitle(
        f"{report.title}: median time of a call (shorter is faster)\n"
        f"{environment['cpu']}, isa {environment['isa']}, float32",
        fontsize=10,
    )
    return figure


def rounds_figure(report: LadderReport) -> Figure:
    """Return the medians of all rounds: a quiet machine draws flat lines.

    Example:
        >>> from convship.bench.example import example_report
        >>> len(rounds_figure(example_report()).axes)
        1
    """
    keys = list(report.ratios)
    columns = min(2, len(keys))
    figure = _figure(len(keys), columns, 3.0)
    axes = figure.subplots(-(-len(keys) // columns), columns, squeeze=False).flatten()
    for axis, key in zip(axes, keys, strict=False):
        rows = [row for row in report.results if _key(row) == key and "round_us" in row]
        for row in rows:
            _line(axis, range(1, len(row["round_us"]) + 1), row["round_us"], row["rung"])
        axis.set_yscale("log")
        _label(axis, "round", "microseconds", _name(key))
    _legend(figure, axes[0])
    return figure


def batches_figure(report: LadderReport) -> Figure | None:
    """Return the time per image over the batch size; None where there is one size only.

    Example:
        >>> from convship.bench.example import example_report
        >>> batches_figure(example_report()) is None
        True
    """
    if len({batch for batch, _ in report.ratios}) < 2:
        return None
    threads = list(dict.fromkeys(threads for _, threads in report.ratios))
    figure = _figure(len(threads), min(2, len(threads)), 3.0)
    axes = figure.subplots(-(-len(threads) // 2), min(2, len(threads)), squeeze=False).flatten()
    for axis, count in zip(axes, threads, strict=False):
        rows = [row for row in report.results if row["threads"] == count and "p50_us" in row]
        for rung in dict.fromkeys(row["rung"] for row in rows):
            own = sorted((row["batch"], row["p50_us"]) for row in rows if row["rung"] == rung)
            _line(axis, [batch for batch, _ in own], [us / batch for batch, us in own], rung)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        _label(axis, "batch", "microseconds per image", f"threads {count}")
    _legend(figure, axes[0])
    return figure


def _line(axis: Axes, x: Sequence[int], y: Sequence[float], name: str) -> None:
    number = len(axis.lines)
    axis.plot(
        x,
        y,
        marker=".",
        linewidth=1,
        color=f"C{number % 10}",
        linestyle="-" if number < 10 else "--",
        label=name,
    )


def _label(axis: Axes, x: str, y: str, title: str) -> None:
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_title(title, fontsize=9)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7, frameon=False)


def stages_figure(report: LadderReport) -> Figure | None:
    """Return one image's way from bytes to class; None where that was not measured.

    Example:
        >>> from convship.bench.example import example_report
        >>> stages_figure(example_report()) is None  # no file with preprocessing
        True
    """
    rows = _with_stages(report)
    if not rows:
        return None
    figure = _figure(1, 1, 0.8 + 0.24 * len(rows))
    _stages(figure.subplots(), rows)
    return figure


def _figure(panels: int, columns: int, height: float) -> Figure:
    # Not pyplot: it needs no display, and leaves the caller's figures and backend alone.
    from matplotlib.figure import Figure

    rows = -(-panels // columns)
    return Figure(figsize=(1.0 + 5.2 * columns, 0.7 + height * rows), layout="constrained")


def _kinds(figure: Figure, kinds: set[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=COLORS[kind], label=_KINDS[kind]) for kind in _KINDS if kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def _key(row: dict[str, Any]) -> tuple[int, int]:
    return row["batch"], row["threads"]


def _name(key: tuple[int, int]) -> str:
    return f"batch {key[0]}, {key[1]} thread{'s' if key[1] > 1 else ''}"


def _times(axis: Axes, report: LadderReport, key: tuple[int, int]) -> None:
    rows = [row for row in report.results if _key(row) == key]
    scale, unit = _unit(max((row["p50_us"] for row in rows if "p50_us" in row), default=1.0))
    longest = max((scale * row["p50_us"] for row in rows if "p50_us" in row), default=1.0)
    for position, row in enumerate(rows):
        if "p50_us" not in row:
            word = "wrong" if row["error"] is not None else "failed"
            axis.text(0.01 * longest, position, word, **_TEXT)
            continue
        middle, late = scale * row["p50_us"], min(scale * row["p90_us"], 1.1 * longest)
        axis.barh(position, middle, color=COLORS[row["kind"]], height=0.75)
        axis.plot([middle, max(middle, late)], [position] * 2, color="black", linewidth=0.8)
        end = max(middle, late)
        label = time_text(1e-6 * row["p50_us"])
        axis.text(end + 0.015 * longest, position, label, **_TEXT)
    axis.set_xlim(0, 1.25 * longest)
    _rungs(axis, [row["rung"] for row in rows], unit)
    axis.set_title(f"{_name(key)} (line: to the 90th percentile)", fontsize=9)


def _with_stages(report: LadderReport) -> list[dict[str, Any]]:
    """Of the first number of threads: more of them change the network, not the way to it."""
    rows = [row for row in report.results if "stages_us" in row]
    return [row for row in rows if row["threads"] == rows[0]["threads"]]


def _stages(axis: Axes, rows: list[dict[str, Any]]) -> None:
    longest = max(row["stages_us"]["end_to_end"] for row in rows)
    scale, unit = _unit(longest)
    labelled: set[str] = set()
    for position, row in enumerate(rows):
        stages = {name: scale * value for name, value in row["stages_us"].items()}
        whole = stages.pop("end_to_end")
        stages["rest"] = max(0.0, whole - sum(stages.values()))
        left = 0.0
        for name, color in _STAGE_COLORS.items():
            if name not in stages:
                continue
            label = "" if name in labelled else name
            labelled.add(name)
            axis.barh(
                position, stages[name], left=left, color=color, height=0.75, label=label or None
            )
            left += stages[name]
        axis.text(left, position, f" {time_text(1e-6 * whole / scale)}", **_TEXT)
    axis.set_xlim(0, 1.25 * scale * longest)
    axis.legend(
        fontsize=7,
        frameon=False,
        columnspacing=1.0,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.24),  # below the name of the axis
        ncols=5,
    )
    _rungs(axis, [row["rung"] for row in rows], unit)
    axis.set_title(f"from bytes to class, {_name(_key(rows[0]))}", fontsize=9)


def _unit(longest_us: float) -> tuple[float, str]:
    return (1e-3, "milliseconds") if longest_us >= 1000 else (1.0, "microseconds")


def _rungs(axis: Axes, names: list[str], unit: str) -> None:
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7)
    axis.set_xlabel(unit, fontsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
