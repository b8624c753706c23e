"""Write docs/accuracy.md's table and picture from a measurement, and check the kernels' limits."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

DOCUMENT = Path("docs/accuracy.md")
PICTURE = Path("docs/images/accuracy.png")
BEGIN, END = "<!-- written by scripts/accuracy -->", "<!-- end -->"
QUANTILES = {"median": "median", "high": "99.9th percentile"}
RULED = {"rectified": "rectified normal", "sparse": "90 % zeros"}
COLORS = {
    "winograd 2x2, 3x3": "tab:blue",
    "winograd 4x4, 3x3": "tab:red",
    "winograd 2x2, 5x5": "tab:green",
}


class Measurement:
    """What the native program printed."""

    def __init__(self, path: Path) -> None:
        self.all: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.rows = {(r["taps"], r["channels"], r["data"]): r["ways"] for r in self.all["rows"]}

    def channels(self, taps: int) -> list[int]:
        return sorted({channels for row_taps, channels, _ in self.rows if row_taps == taps})

    def multiple(self, taps: int, channels: int, data: str, way: str, quantile: str) -> float:
        return finite(self.rows[taps, channels, data][way][quantile])

    def keeps_rule(self, variant: dict[str, Any], channels: int) -> bool:
        """Whether the rule holds in all samples and in each half: chance is no excuse."""
        for data in RULED:
            result = self.rows[variant["taps"], channels, data][variant["name"]]
            worst = max(
                finite(part[quantile])
                for part in (result, *result["halves"])
                for quantile in QUANTILES
            )
            if worst > self.all["limits"][data]:
                return False
        return True

    def fewest_channels(self, variant: dict[str, Any]) -> int | None:
        """From which count on the rule holds, for it and all larger ones; None: for none."""
        fewest = None
        for channels in reversed(self.channels(variant["taps"])):
            if not self.keeps_rule(variant, channels):
                break
            fewest = channels
        return fewest

    def spread(self) -> float:
        """By how much halves differ from the whole where the rule is decided, at most."""
        found = [0.0]
        for variant in self.all["variants"]:
            fewest = self.fewest_channels(variant)
            for data in RULED if fewest else ():
                result = self.rows[variant["taps"], fewest, data][variant["name"]]
                found += [
                    abs(half[quantile] / result[quantile] - 1)
                    for half in result["halves"]
                    for quantile in QUANTILES
                ]
        return max(found)


def finite(value: float | None) -> float:
    """JSON has no infinity, the program prints null."""
    return math.inf if value is None else value


def shown(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1000 else "> 999"


def rows_that_matter(measurement: Measurement, variant: dict[str, Any]) -> list[int]:
    """The step at which the rule begins to hold, and how it goes on."""
    counts = measurement.channels(variant["taps"])
    fewest = measurement.fewest_channels(variant)
    before = [channels for channels in counts if fewest is None or channels < fewest]
    return sorted({3, *before[-1:], *([fewest] if fewest else []), 64, 256, 512} & set(counts))


def table(measurement: Measurement) -> str:
    ways = {
        "rectified": None,
        "90 % zeros": None,
        "outliers": None,
        "torch": "torch",
        "torch channels_last": "torch channels_last",
    }
    data = dict(
        zip(ways, ("rectified", "sparse", "outliers", "rectified", "rectified"), strict=True)
    )
    lines = [
        f"| variant | input channels | rule | {' | '.join(ways)} |",
        "|---|---|---|" + "---|" * len(ways),
    ]
    for variant in measurement.all["variants"]:
        for channels in rows_that_matter(measurement, variant):
            cells = [
                " / ".join(
                    shown(
                        measurement.multiple(
                            variant["taps"], channels, data[title], way or variant["name"], quantile
                        )
                    )
                    for quantile in QUANTILES
                )
                for title, way in ways.items()
            ]
            rule = "kept" if measurement.keeps_rule(variant, channels) else "broken"
            lines.append(f"| {title_of(variant)} | {channels} | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def title_of(variant: dict[str, Any]) -> str:
    outputs, kernel = variant["name"].removeprefix("winograd ").split(", ")
    return f"F({outputs}, {kernel})"


def thresholds(measurement: Measurement) -> str:
    lines = ["| variant | keeps the rule from | used from |", "|---|---|---|"]
    for variant in measurement.all["variants"]:
        fewest = measurement.fewest_channels(variant)
        kept = f"{fewest} channels" if fewest else "no measured count"
        lines.append(f"| {title_of(variant)} | {kept} | {variant['fewest_channels']} channels |")
    return "\n".join(lines)


def write_document(measurement: Measurement) -> None:
    all_ = measurement.all
    note = (
        f"Measured with {all_['isa']}, torch {all_['torch']}, one thread, {all_['seeds']} draws of "
        f"50,176 results each. Half of the draws differs from all of them by at most "
        f"{100 * measurement.spread():.0f} % where the rule begins to hold."
    )
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    written = "\n\n".join([BEGIN, thresholds(measurement), table(measurement), note, END])
    DOCUMENT.write_text(before + written + after, encoding="utf-8")


def draw(measurement: Measurement) -> None:
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, len(RULED), sharey=True)
    for axis, (data, title) in zip(axes, RULED.items(), strict=True):
        for variant in measurement.all["variants"]:
            taps, name = variant["taps"], variant["name"]
            counts = measurement.channels(taps)
            for quantile, style in zip(QUANTILES, ("--", "-"), strict=True):
                axis.plot(
                    counts,
                    [measurement.multiple(taps, n, data, name, quantile) for n in counts],
                    style,
                    color=COLORS[name],
                    label=f"{title_of(variant)}, {QUANTILES[quantile]}",
                )
        counts = measurement.channels(3)
        axis.plot(
            counts,
            [measurement.multiple(3, n, data, "torch", "high") for n in counts],
            ":",
            color="black",
            label="torch, 3x3, 99.9th percentile",
        )
        limit = measurement.all["limits"][data]
        axis.axhline(limit, color="gray", linewidth=1)
        axis.annotate(f"limit {limit:.0f}", (512, limit), ha="right", va="bottom", color="gray")
        axis.set(title=title, xlabel="input channels", xscale="log", yscale="log", ylim=(0.08, 30))
        axis.set_xticks([1, 3, 6, 12, 24, 48, 96, 192, 512])
        axis.minorticks_off()
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error, multiple of one float32 FMA chain")
    axes[1].legend(fontsize=8, loc="lower left")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def wrong_limits(measurement: Measurement) -> list[str]:
    return [
        f"{title_of(variant)} keeps the error rule from {fewest or 'no measured number of'} input "
        f"channels on, but fewest_channels() in cpp/kernels/conv2d/family.cpp allows "
        f"{variant['fewest_channels']}; raise it"
        for variant in measurement.all["variants"]
        if (fewest := measurement.fewest_channels(variant)) is None
        or variant["fewest_channels"] < fewest
    ]


def main() -> int:
    if len(sys.argv) != 2:
        print("accuracy.py: usage: accuracy.py MEASUREMENT.json", file=sys.stderr)
        return 2
    measurement = Measurement(Path(sys.argv[1]))
    write_document(measurement)
    draw(measurement)
    print(thresholds(measurement), table(measurement), sep="\n\n")
    wrong = wrong_limits(measurement)
    for line in wrong:
        print(f"accuracy: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
