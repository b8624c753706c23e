"""`convship bench compare`: two reports side by side, and conditions for a build to fail."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convship.bench.table import digits

__all__ = ["Comparison", "Condition", "compare", "parse_condition"]

# What conditions may name, and the field of a result that it is.
METRICS = {
    "p50": "p50_us",
    "p90": "p90_us",
    "p99": "p99_us",
    "load": "load_us",
    "first": "first_us",
    "peak": "peak_mib",
    "rate": "images_per_s",
}
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "MiB": 1.0, "/s": 1.0}
_CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*([0-9.]+)\s*(x|us|ms|s|MiB|/s)\s*")
_ENVIRONMENT = ("cpu", "isa", "build")

Key = tuple[str, int, int]


@dataclass(frozen=True)
class Condition:
    """When a build fails: "p50>1.1x" relative to the older report, "p50>20ms" on its own.

    Attributes:
        text: As written.
        metric: Name in `METRICS`.
        above: Whether larger values fail; else smaller ones.
        limit: Factor, or value in the field's unit.
        relative: Whether `limit` is a factor.
    """

    text: str
    metric: str
    above: bool
    limit: float
    relative: bool

    def holds(self, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether the pair of results makes a build fail."""
        value = float(new[METRICS[self.metric]])
        limit = self.limit * (float(old[METRICS[self.metric]]) if self.relative else 1.0)
        return value > limit if self.above else value < limit


@dataclass
class Comparison:
    """Two reports side by side.

    Attributes:
        lines: A line per rung, batch and threads that both have, for people.
        notes: Differences of environment, and what only one of the two has.
        failures: Conditions that hold, and measurements that are gone.
    """

    lines: list[str]
    notes: list[str]
    failures: list[str]


def parse_condition(text: str) -> Condition:
    """Return the condition that `text` is.

    Raises:
        ValueError: It is none, or names another metric.

    Example:
        >>> parse_condition("p50>1.1x").limit
        1.1
    """
    match = _CONDITION.fullmatch(text)
    if match is None or match[1] not in METRICS or not re.fullmatch(r"\d+\.?\d*|\.\d+", match[3]):
        raise ValueError(
            f"bench compare: a condition is METRIC>LIMIT or METRIC<LIMIT with {', '.join(METRICS)} "
            f"and a limit as 1.1x, 20ms or 300MiB, got '{text}'"
        )
    metric, sign, number, unit = match.groups()
    fits = {"peak": ("x", "MiB"), "rate": ("x", "/s")}.get(metric, ("x", "us", "ms", "s"))
    if unit not in fits:
        raise ValueError(
            f"bench compare: the limit of {metric} must be in {', '.join(fits)}, got '{text}'"
        )
    relative = unit == "x"
    limit = float(number) * (1.0 if relative else _UNITS[unit])
    return Condition(text.strip(), metric, sign == ">", limit, relative)


def compare(
    old: str | Path,
    new: str | Path,
    conditions: Sequence[Condition] = (),
    rungs: Sequence[str] | None = None,
) -> Comparison:
    """Compare two reports of `convship bench model.pt` or `convship-run bench`.

    Args:
        old: JSON file of the older report.
        new: JSON file of the newer one.
        conditions: When it fails; each is tried on every measurement that both have.
        rungs: Only these; None for all.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: A file is no report, or the two have nothing in common.

    Example:
        >>> import tempfile
        >>> row = {"rung": "native fast", "batch": 1, "threads": 1, "p50_us": 100.0}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, factor in (("a.json", 1.0), ("b.json", 1.2)):
        ...         results = [row | {"p50_us": factor * row["p50_us"]}]
        ...         text = json.dumps({"environment": {}, "results": results})
        ...         _ = Path(folder, name).write_text(text)
        ...     files = Path(folder, "a.json"), Path(folder, "b.json")
        ...     found = compare(*files, [parse_condition("p50>1.1x")])
        >>> found.failures
        ['native fast, batch 1, threads 1: p50>1.1x (120, was 100)']
    """
    before, after = _read(Path(old)), _read(Path(new))
    ours, theirs = _rows(before, rungs), _rows(after, rungs)
    if rungs is not None and (unknown := [name for name in rungs if not _has(name, ours, theirs)]):
        raise ValueError(f"bench compare: neither report has a rung '{unknown[0]}'")
    common = [key for key in ours if key in theirs]
    if not common:
        raise ValueError(
            f"bench compare: {old} and {new} have no rung, batch and threads in common"
        )
    found = Comparison([], _notes(before, after), [])
    for key in common:
        found.lines.append(_line(key, ours[key], theirs[key]))
    for key in ours:
        if key not in theirs or _lost(ours[key], theirs[key]):
            reason = theirs.get(key, {}).get("problem") or "not measured any more"
            found.failures.append(f"{_title(key)}: {reason}")
    found.notes += [f"{_title(key)}: only in {new}" for key in theirs if key not in ours]
    for condition in conditions:
        field = METRICS[condition.metric]
        for key in common:
            a, b = ours[key], theirs[key]
            if field in a and field in b and condition.holds(a, b):
                values = f"{digits(b[field])}, was {digits(a[field])}"
                found.failures.append(f"{_title(key)}: {condition.text} ({values})")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for row in content["results"]:
            _key(row)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: report does not exist") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no report of a network; write one with convship bench MODEL --json ({error})"
        ) from error
    return dict(content)


def _rows(report: dict[str, Any], rungs: Sequence[str] | None) -> dict[Key, dict[str, Any]]:
    return {_key(row): row for row in report["results"] if rungs is None or row["rung"] in rungs}


def _key(row: dict[str, Any]) -> Key:
    return str(row["rung"]), int(row["batch"]), int(row["threads"])


def _has(name: str, *reports: dict[Key, dict[str, Any]]) -> bool:
    return any(key[0] == name for rows in reports for key in rows)


def _lost(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return "p50_us" in old and "p50_us" not in new


def _title(key: Key) -> str:
    return f"{key[0]}, batch {key[1]}, threads {key[2]}"


def _line(key: Key, old: dict[str, Any], new: dict[str, Any]) -> str:
    parts = []
    for name, field in METRICS.items():
        if field in old and field in new and old[field]:
            ratio = new[field] / old[field]
            parts.append(f"{name} {digits(old[field])} -> {digits(new[field])} ({ratio:.2f}x)")
    return f"{_title(key)}: {', '.join(parts) or 'not measured in both'}"


def _notes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Numbers of different machines are no comparison; that is said, not forbidden."""
    a, b = old.get("environment", {}), new.get("environment", {})
    notes = [
        f"warning: {name} differs: {a.get(name)} and {b.get(name)}"
        for name in _ENVIRONMENT
        if a.get(name) != b.get(name)
    ]
    for title, report in (("older", old), ("newer", new)):
        notes += [f"warning of the {title} report: {line}" for line in report.get("warnings", ())]
    return notes
