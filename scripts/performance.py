"""Write a table of docs/performance.md from reports of `convship bench NETWORK --json`.

The document has a table per instruction set and list of networks, so that one
processor's figures do not replace another's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

DOCUMENT = Path("docs/performance.md")
END = "<!-- end -->"
OURS = "native fast"
COLUMNS = ("native libtorch", "onnxruntime", "openvino", "python convship", "native direct", OURS)
# What scripts/performance --classifiers measures of them.
FEWER = ("native libtorch", "onnxruntime", "openvino", OURS)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="performance", description=__doc__)
    parser.add_argument("--classifiers", action="store_true", help="the list of all classifiers")
    parser.add_argument("reports", nargs="+", type=Path)
    settings = parser.parse_args(arguments)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in settings.reports]
    begin = begin_of(reports, settings.classifiers)
    text = DOCUMENT.read_text(encoding="utf-8")
    if begin not in text:
        print(f"{DOCUMENT}: there must be a line {begin}, and {END} after it", file=sys.stderr)
        return 2
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    lines = [
        begin,
        *about(reports),
        "",
        *table(reports, FEWER if settings.classifiers else COLUMNS),
        "",
        *warnings(reports),
        END,
    ]
    DOCUMENT.write_text(before + "\n".join(lines) + after, encoding="utf-8")
    print(f"{DOCUMENT}: {len(reports)} networks")
    return 0


def begin_of(reports: list[dict[str, Any]], classifiers: bool) -> str:
    isas = {report["environment"]["isa"] for report in reports}
    if len(isas) != 1:
        raise SystemExit(f"performance: reports must be of one instruction set, got {sorted(isas)}")
    return f"<!-- scripts/performance{' --classifiers' if classifiers else ''}, {isas.pop()} -->"


def about(reports: list[dict[str, Any]]) -> list[str]:
    environment = reports[0]["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return [
        f"{datetime.date.today().isoformat()}, {environment['cpu']}, {environment['cores']} cores, "
        f"isa {environment['isa']}; {versions}. Microseconds per call, median; then how many times "
        f"as fast {OURS} is as the best of LibTorch and as the better of the two other engines, "
        "with the 95 % interval over the rounds."
    ]


def table(reports: list[dict[str, Any]], columns: tuple[str, ...]) -> list[str]:
    heads = ["network", "batch", "threads", "best stock", *columns, "as stock", "as peer"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for report in reports:
        keys = dict.fromkeys((row["batch"], row["threads"]) for row in report["results"])
        lines += [f"| {' | '.join(row(report, *key, columns))} |" for key in keys]
    return lines


def row(report: dict[str, Any], batch: int, threads: int, columns: tuple[str, ...]) -> list[str]:
    def own(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [e for e in entries if (e["batch"], e["threads"]) == (batch, threads)]

    results = {entry["rung"]: entry for entry in own(report["results"])}
    stock = [e for e in results.values() if e["kind"] == "stock" and "p50_us" in e]
    best = min(stock, key=lambda entry: float(entry["p50_us"]), default=None)
    ratios = {e["against"]: e for e in own(report["ratios"]) if e["ours"] == OURS}
    return [
        report["model"],
        str(batch),
        str(threads),
        f"{time(best)} ({best['rung'].removeprefix('python ')})" if best else "-",
        *(time(results.get(name)) for name in columns),
        interval(ratios.get("best stock")),
        interval(ratios.get("best peer")),
    ]


def time(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    return f"{entry['p50_us']:.0f}" if "p50_us" in entry else "failed"


def interval(ratio: dict[str, Any] | None) -> str:
    if ratio is None:
        return "-"
    found = ratio["interval"]
    return f"{found['value']:.2f} ({found['low']:.2f} - {found['high']:.2f})"


def warnings(reports: list[dict[str, Any]]) -> list[str]:
    lines = [f"- {each['model']}: {line}" for each in reports for line in each["warnings"]]
    return ["Warnings of these runs:", *lines] if lines else ["None of these runs gave a warning."]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
