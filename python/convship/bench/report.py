"""What a run means: medians, ratios, summary; as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from convship.bench.catalogue import EngineSpec
from convship.bench.fairness import noise_warnings, spread_of
from convship.bench.grid import Case
from convship.bench.intervals import (
    Interval,
    geometric_mean_interval,
    median_interval,
)
from convship.bench.rounds import Measured, Row
from convship.bench.settings import Settings

__all__ = ["Ratio", "Report", "Shape", "Summary", "make_report"]

SCHEMA = 1
BEST_PEER = "best peer"


@dataclass
class Ratio:
    """How many times as long a peer takes as one of ours; above 1, ours is faster.

    Attributes:
        ours: One of our rows.
        against: "best peer", or the name of torch's eager row.
        peer: The engine that this is.
        rounds: Peer / ours in each round.
        interval: Median of the rounds with its 95 % interval.
    """

    ours: str
    against: str
    peer: str
    rounds: list[float]
    interval: Interval


@dataclass
class Shape:
    """Everything about one shape; `rows` are sorted as the engines are."""

    case: Case
    floor_s: float | None
    rows: list[Row]
    best_peer: str | None
    ratios: list[Ratio]


@dataclass
class Summary:
    """One of our rows over the whole grid.

    Attributes:
        ours: The row.
        against: What it is compared with.
        shapes: Number of shapes on which both have times.
        geometric_mean: Over the shapes, of the median of peer / ours.
        smallest: The smallest of these medians.
        smallest_shape: Where it is.
        slower_shapes: Shapes on which the median is below 1.
    """

    ours: str
    against: str
    shapes: int
    geometric_mean: Interval
    smallest: float
    smallest_shape: str
    slower_shapes: list[str]


@dataclass
class Report:
    """A finished run: what `convship bench op` prints, draws and writes."""

    settings: dict[str, Any]
    environment: dict[str, Any]
    kinds: dict[str, str]
    left_out: dict[str, str]
    shapes: list[Shape]
    summary: list[Summary]
    nothing_s: dict[str, Interval]
    gflops: float | None
    spread: float | None
    waited: float
    warnings: list[str] = field(default_factory=list)

    @property
    def ours_is_right(self) -> bool:
        """Whether no row of ours has a problem."""
        return not any(
            row.problem
            for shape in self.shapes
            for row in shape.rows
            if self.kinds[row.engine] == "ours"
        )

    def to_json(self) -> str:
        """Return all of it as JSON; docs/benchmarks.md names the fields."""
        nothing = {name: asdict(value) for name, value in self.nothing_s.items()}
        content = {
            "schema": SCHEMA,
            "settings": self.settings,
            "environment": self.environment,
            "warnings": self.warnings,
            "engines": [
                {"name": name, "kind": kind, "nothing_s": nothing.get(name)}
                for name, kind in self.kinds.items()
            ],
            "left_out": [
                {"engine": name, "reason": reason} for name, reason in self.left_out.items()
            ],
            "sustained_gflops": self.gflops,
            "noise": self.spread,
            "waited": self.waited,
            "summary": [asdict(summary) for summary in self.summary],
            "shapes": [_shape_fields(shape) for shape in self.shapes],
        }
        return json.dumps(content, indent=1)


def make_report(
    measured: Measured,
    specs: list[EngineSpec],
    settings: Settings,
    *,
    run: dict[str, Any],
    environment: dict[str, Any],
    left_out: dict[str, str],
) -> Report:
    """Turn what was measured into ratios and a summary.

    Args:
        measured: From `rounds.measure`.
        specs: The engines that took part.
        settings: Of the run.
        run: What else was asked for: grid, rounds and the like.
        environment: From `describe_environment`.
        left_out: Engines that did not take part, and why.

    Example:
        >>> from convship.bench.grid import NOTHING
        >>> rows = [Row("a", seconds=[2.0, 2.0]), Row("b", seconds=[1.0, 1.0])]
        >>> specs = [EngineSpec("a", "peer", ""), EngineSpec("b", "ours", "")]
        >>> report = make_report(
        ...     Measured({NOTHING: rows}), specs, Settings(), run={}, environment={}, left_out={}
        ... )
        >>> report.shapes[0].ratios[0].interval.value
        2.0
    """
    kinds: dict[str, str] = {spec.name: spec.kind for spec in specs}
    flop_s = statistics.median(measured.flop_seconds) if measured.flop_seconds else None
    eager = "torch channels_last" if settings.layout == "channels_last" else "torch eager"
    # The sustained rate is that of float32; other types have other floors.
    floor_rate = flop_s / settings.threads if flop_s and settings.dtype == "float32" else None
    shapes = [_shape(case, rows, kinds, eager, floor_rate) for case, rows in measured.rows.items()]
    waited = [share for rows in measured.rows.values() for row in rows for share in row.waited]
    report = Report(
        settings=run | asdict(settings),
        environment=environment,
        kinds=kinds,
        left_out=left_out,
        shapes=shapes,
        summary=_summaries(shapes),
        nothing_s=_nothing(measured),
        gflops=1e-9 / flop_s if flop_s else None,
        # Row by row, because what a shape leaves in the caches is no noise.
        spread=spread_of(
            measured.flop_seconds,
            [row.nothing for rows in measured.rows.values() for row in rows],
        ),
        waited=statistics.fmean(waited) if waited else 0.0,
    )
    report.warnings += noise_warnings(report.spread, report.waited)
    return report


def _shape(
    case: Case, rows: list[Row], kinds: dict[str, str], eager: str, floor_rate: float | None
) -> Shape:
    timed = {row.engine: row.seconds for row in rows if row.seconds}
    peers = [name for name in timed if kinds[name] == "peer"]
    best = min(peers, key=lambda name: statistics.median(timed[name]), default=None)
    ratios = []
    for ours in timed:
        for against, peer in ((BEST_PEER, best), (eager, eager)):
            if kinds[ours] == "ours" and peer in timed:
                rounds = [a / b for a, b in zip(timed[peer], timed[ours], strict=True)]
                ratios.append(Ratio(ours, against, peer, rounds, median_interval(rounds)))
    floor_s = case.flops * floor_rate if floor_rate is not None else None
    return Shape(case, floor_s, rows, best, ratios)


def _summaries(shapes: list[Shape]) -> list[Summary]:
    pairs = dict.fromkeys((ratio.ours, ratio.against) for shape in shapes for ratio in shape.ratios)
    found = []
    for pair in pairs:
        ratios = {
            shape.case.name: ratio
            for shape in shapes
            for ratio in shape.ratios
            if (ratio.ours, ratio.against) == pair
        }
        medians = {name: ratio.interval.value for name, ratio in ratios.items()}
        worst = min(medians, key=lambda name: medians[name])
        found.append(
            Summary(
                *pair,
                shapes=len(ratios),
                geometric_mean=geometric_mean_interval([r.rounds for r in ratios.values()]),
                smallest=medians[worst],
                smallest_shape=worst,
                slower_shapes=[name for name, median in medians.items() if median < 1],
            )
        )
    return found


def _nothing(measured: Measured) -> dict[str, Interval]:
    found: dict[str, list[float]] = {}
    for rows in measured.rows.values():
        for row in rows:
            found.setdefault(row.engine, []).extend(row.nothing)
    return {engine: median_interval(values) for engine, values in found.items() if values}


def _shape_fields(shape: Shape) -> dict[str, Any]:
    return {
        **asdict(shape.case),
        "flops": shape.case.flops,
        "floor_s": shape.floor_s,
        "best_peer": shape.best_peer,
        "rows": [
            {
                **asdict(row),
                # JSON has no infinity.
                "error": row.error if row.error != float("inf") else "infinite",
                "median_s": asdict(median_interval(row.seconds)) if row.seconds else None,
            }
            for row in shape.rows
        ],
        "ratios": [asdict(ratio) for ratio in shape.ratios],
    }
