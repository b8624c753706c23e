"""A report as a picture: one panel per shape, one bar per engine."""

from __future__ import annotations

import io
import statistics
from pathlib import Path
from typing import Any

from convship.atomic import write_atomically
from convship.bench.report import Report, Shape

__all__ = ["draw"]

_LONGEST = 3.0  # longer bars are cut and only say their value: near 1 is what matters
COLORS = {"ours": "#d95f02", "peer": "#7a8aa0", "stock": "#b9c0c9"}


def draw(report: Report, path: str | Path) -> None:
    """Draw the time of every engine relative to the best peer of the shape, as PNG.

    Example:
        >>> import tempfile
        >>> from convship.bench.op import bench_op
        >>> report = bench_op(shapes=["lenet2"], engines=["torch eager"], rounds=1, slot_ms=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw(report, Path(folder) / "op.png")
    """
    # Not pyplot: it needs no display, and leaves the caller's figures and backend alone.
    from matplotlib.figure import Figure

    columns = min(4, len(report.shapes))
    rows = -(-len(report.shapes) // columns)
    height = 0.7 + 0.19 * len(report.kinds)
    figure = Figure(figsize=(2.0 + 2.9 * columns, 0.9 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axis, shape in zip(axes, report.shapes, strict=False):
        _panel(axis, shape, report.kinds)
    for axis in axes[len(report.shapes) :]:
        axis.axis("off")
    environment = report.environment
    figure.suptitle(
        "conv + bias + relu + max pool: time relative to the best peer (shorter is faster)\n"
        f"{environment['cpu']}, isa {environment['isa']}, threads {environment['threads']}, "
        f"{report.settings['dtype']}",
        fontsize=10,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _panel(axis: Any, shape: Shape, kinds: dict[str, str]) -> None:
    medians = {row.engine: statistics.median(row.seconds) for row in shape.rows if row.seconds}
    # Without a peer, relative to the fastest there is.
    unit = medians.get(shape.best_peer or "", min(medians.values(), default=1.0))
    for position, row in enumerate(shape.rows):
        if row.engine not in medians:
            axis.text(0.03, position, "wrong" if row.error is not None else "failed", **_TEXT)
            continue
        ratio = medians[row.engine] / unit
        length = min(ratio, _LONGEST)
        axis.barh(position, length, color=COLORS[kinds[row.engine]], height=0.75)
        label = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
        if ratio > _LONGEST:
            axis.text(
                _LONGEST - 0.05,
                position,
                f"{label} \N{RIGHTWARDS ARROW}",
                ha="right",
                color="white",
                **_TEXT,
            )
        else:
            axis.text(length + 0.04, position, label, **_TEXT)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlim(0, _LONGEST + 0.35)
    axis.set_yticks(range(len(shape.rows)), [row.engine for row in shape.rows], fontsize=8)
    axis.set_ylim(len(shape.rows) - 0.4, -0.6)
    axis.tick_params(axis="x", labelsize=7)
    axis.set_title(f"{shape.case.name}: 1 = {time_text(unit)}", fontsize=9)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


_TEXT: dict[str, Any] = {"va": "center", "fontsize": 7}


def time_text(seconds: float) -> str:
    """Return a time with its unit: "12.3 us", "4.5 ms"."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.1f} us"
    return f"{1e3 * seconds:.1f} ms"
