"""What a run on the ladder means: percentiles, ratios, warnings; as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from convship.bench.fairness import build_warnings, facts_warnings, noise_warnings, spread_of
from convship.bench.intervals import median_interval
from convship.bench.report import Ratio
from convship.bench.rungs import RungSpec

if TYPE_CHECKING:
    from convship.bench.ladder import RungRow

__all__ = ["AGAINST", "LadderReport", "make_ladder_report"]

SCHEMA = 1
_US = 1e6
# What ours is compared with: the bottom of the ladder, the best of LibTorch, the best of others.
AGAINST = ("first rung", "best stock", "best peer")


@dataclass
class LadderReport:
    """A finished run: what `convship bench model.pt` prints, draws and writes.

    Attributes:
        title: The network.
        settings: What was asked for.
        environment: From `describe_environment`.
        results: A dict per rung, batch and threads; docs/benchmarks.md names the fields.
        ratios: Of rungs of ours, by (batch, threads).
        left_out: Rungs that did not take part, and why.
        warnings: What makes the comparison unfair.
        spread: Variation of what never changes; None where not measured.
        waited: Share of time in which other programs had the cores.
    """

    title: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    results: list[dict[str, Any]]
    ratios: dict[tuple[int, int], list[Ratio]]
    left_out: dict[str, str]
    spread: float | None
    waited: float
    warnings: list[str] = field(default_factory=list)

    @property
    def ours_is_right(self) -> bool:
        """Whether no rung of ours has a problem."""
        return not any(row["problem"] for row in self.results if row["kind"] == "ours")

    def to_json(self) -> str:
        """Return all of it as JSON."""
        ratios = [
            {"batch": batch, "threads": threads, **asdict(ratio)}
            for (batch, threads), found in self.ratios.items()
            for ratio in found
        ]
        content = {
            "schema": SCHEMA,
            "model": self.title,
            "settings": self.settings,
            "environment": self.environment,
            "warnings": self.warnings,
            "left_out": [
                {"rung": name, "reason": reason} for name, reason in self.left_out.items()
            ],
            "noise": self.spread,
            "waited": self.waited,
            "results": self.results,
            "ratios": ratios,
        }
        return json.dumps(content, indent=1)


def make_ladder_report(
    rows: Sequence[RungRow],
    specs: Sequence[RungSpec],
    *,
    title: str,
    settings: dict[str, Any],
    environment: dict[str, Any],
    left_out: dict[str, str],
    flop_seconds: Sequence[float],
) -> LadderReport:
    """Turn what was measured into percentiles and ratios.

    Args:
        rows: A row per rung, batch and threads.
        specs: The rungs that took part.
        title: The network.
        settings: What was asked for.
        environment: From `describe_environment`; its build is judged.
        left_out: Rungs that did not take part, and why.
        flop_seconds: From `Meter`.

    Example:
        >>> from convship.bench.ladder import RungRow
        >>> rows = [RungRow("a", 1, 1, calls=[[2e-6]]), RungRow("b", 1, 1, calls=[[1e-6]])]
        >>> specs = [RungSpec("a", "stock", ""), RungSpec("b", "ours", "")]
        >>> report = make_ladder_report(
        ...     rows, specs, title="net", settings={}, left_out={}, flop_seconds=[],
        ...     environment={"build": {"build_type": "Release"}},
        ... )
        >>> report.results[0]["p50_us"], report.ratios[1, 1][0].interval.value
        (2.0, 2.0)
    """
    kinds: dict[str, str] = {spec.name: spec.kind for spec in specs}
    waited = [share for row in rows for share in row.waited]
    spread = spread_of(flop_seconds, [_round_medians(row) for row in rows])
    report = LadderReport(
        title=title,
        settings=settings,
        environment=environment,
        results=[_result(row, kinds) for row in rows],
        ratios=_ratios(rows, kinds),
        left_out=left_out,
        spread=spread,
        waited=statistics.fmean(waited) if waited else 0.0,
    )
    report.warnings += build_warnings(environment["build"])
    for row in rows:
        report.warnings += facts_warnings(row.rung, row.facts, row.threads)
    report.warnings += noise_warnings(report.spread, report.waited)
    return report


def _result(row: RungRow, kinds: dict[str, str]) -> dict[str, Any]:
    error = row.error if row.error is None or np.isfinite(row.error) else "infinite"
    result: dict[str, Any] = {
        "rung": row.rung,
        "kind": kinds[row.rung],
        "batch": row.batch,
        "threads": row.threads,
        "problem": row.problem,
        "error": error,
    }
    for name in ("load", "first"):
        if f"{name}_s" in row.facts:
            result[f"{name}_us"] = _US * row.facts[f"{name}_s"]
    result["peak_mib"] = row.peak_mib
    if not row.calls:
        return result
    calls = np.concatenate(row.calls)
    p50, p90, p99 = (_US * float(value) for value in np.quantile(calls, [0.5, 0.9, 0.99]))
    result |= {
        "calls": len(calls),
        "p50_us": p50,
        "p90_us": p90,
        "p99_us": p99,
        "images_per_s": row.batch * len(calls) / float(calls.sum()),
        "round_us": [_US * value for value in _round_medians(row)],
    }
    if row.stages:
        result["stages_us"] = {
            name: max(0.0, _US * statistics.median(turns)) for name, turns in row.stages.items()
        }
    return result


def _round_medians(row: RungRow) -> list[float]:
    return [statistics.median(calls) for calls in row.calls]


def _ratios(rows: Sequence[RungRow], kinds: dict[str, str]) -> dict[tuple[int, int], list[Ratio]]:
    groups: dict[tuple[int, int], dict[str, list[float]]] = {}
    for row in rows:
        times = groups.setdefault((row.batch, row.threads), {})
        if row.calls:
            times[row.rung] = _round_medians(row)
    return {key: _ratios_of(times, kinds) for key, times in groups.items()}


def _ratios_of(times: dict[str, list[float]], kinds: dict[str, str]) -> list[Ratio]:
    def best(kind: str) -> str | None:
        names = [name for name in times if kinds[name] == kind]
        return min(names, key=lambda name: statistics.median(times[name]), default=None)

    others = zip(AGAINST, (next(iter(times), None), best("stock"), best("peer")), strict=True)
    found = []
    for against, other in others:
        for ours in times:
            if other is None or ours == other or kinds[ours] != "ours":
                continue
            rounds = [a / b for a, b in zip(times[other], times[ours], strict=True)]
            found.append(Ratio(ours, against, other, rounds, median_interval(rounds)))
    return found
