"""A run on the ladder as one HTML page that needs nothing else: no network, no scripts."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

from convship.bench.ladder_picture import (
    batches_figure,
    rounds_figure,
    stages_figure,
    times_figure,
)
from convship.bench.ladder_report import LadderReport
from convship.bench.table import digits, environment_lines, interval_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["as_page"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .5rem 0 } caption { text-align: left; color: #555 }
th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
tr.ours td { color: #b34700 } .warning { background: #fff3cd; padding: .4rem .8rem }
svg { max-width: 100%; height: auto } .quiet { color: #555; font-size: .9rem }
"""
_COLUMNS = {
    "p50_us": "p50, us",
    "p90_us": "p90, us",
    "p99_us": "p99, us",
    "images_per_s": "images/s",
    "load_us": "load, us",
    "first_us": "first call, us",
    "peak_mib": "peak, MiB",
}


def as_page(report: LadderReport) -> str:
    """Return the page.

    Example:
        >>> from convship.bench.ladder import bench_model
        >>> report = bench_model("lenet5", rungs=["python torchscript"], rounds=1, slot_ms=1)
        >>> page = as_page(report)
        >>> page.startswith("<!doctype html>"), "<svg" in page
        (True, True)
    """
    stages, batches = stages_figure(report), batches_figure(report)
    parts = [
        f"<h1>{escape(report.title)} on every rung</h1>",
        *(f'<p class="quiet">{escape(line)}</p>' for line in _about(report)),
        *(f'<p class="warning">{escape(line)}</p>' for line in report.warnings),
        "<h2>Times</h2>",
        _svg(times_figure(report), "times"),
        *(_section(report, key) for key in report.ratios),
        *(["<h2>From bytes to class</h2>", _svg(stages, "stages")] if stages else []),
        *(["<h2>Batches</h2>", _svg(batches, "batches")] if batches else []),
        "<h2>Rounds</h2>",
        '<p class="quiet">Median of each turn. On a quiet machine the lines are flat.</p>',
        _svg(rounds_figure(report), "rounds"),
        _left_out(report),
    ]
    body = "\n".join(part for part in parts if part)
    title = escape(f"convship bench {report.title}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _about(report: LadderReport) -> list[str]:
    settings = report.settings
    sizes = ", ".join("x".join(map(str, shape)) for shape in settings["input"].values())
    return [
        *environment_lines(report.environment),
        f"input {sizes}, float32; {settings['rounds']} rounds of {settings['slot_ms']:g} ms",
    ]


def _section(report: LadderReport, key: tuple[int, int]) -> str:
    batch, threads = key
    rows = [row for row in report.results if (row["batch"], row["threads"]) == key]
    cells = [[row["rung"], *(_cell(row, name) for name in _COLUMNS)] for row in rows]
    parts = [
        f"<h2>Batch {batch}, threads {threads}</h2>",
        _table(["rung", *_COLUMNS.values()], cells, [row["kind"] for row in rows]),
        *(
            f"<p>{escape(row['rung'])}: {escape(row['problem'])}</p>"
            for row in rows
            if row["problem"]
        ),
    ]
    if report.ratios[key]:
        ratios = [
            [ratio.ours, f"{ratio.against}, {ratio.peer}", interval_text(ratio.interval)]
            for ratio in report.ratios[key]
        ]
        heads = ["rung", "times as fast as", "median of the rounds, 95 % interval"]
        parts.append(_table(heads, ratios, ["ours"] * len(ratios)))
    return "\n".join(parts)


def _cell(row: dict[str, Any], name: str) -> str:
    if name == "p50_us" and row["problem"]:
        return "wrong" if row["error"] is not None else "failed"
    return digits(row[name]) if name in row else "-"


def _table(heads: list[str], rows: list[list[str]], classes: list[str]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    lines = [
        f'<tr class="{kind}">' + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
        for row, kind in zip(rows, classes, strict=True)
    ]
    return f"<table>\n<tr>{head}</tr>\n" + "\n".join(lines) + "\n</table>"


def _left_out(report: LadderReport) -> str:
    items = [
        f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in report.left_out.items()
    ]
    return "<h2>Left out</h2>\n<ul>" + "".join(items) + "</ul>" if items else ""


def _svg(figure: Figure, name: str) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    # Ids of their own, or figures of one page would share clip paths; text stays text.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # From <svg on: the XML declaration and the doctype belong to files, not to pages.
    drawing = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.S)
