"""Write a table of docs/performance.md from reports of `convship bench NETWORK --json`.

The document has a table per instruction set and list of networks, so that one
processor's figures do not replace another's.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCUMENT = Path("docs/performance.md")
SIDES_PICTURE = Path("docs/images/image_sides.png")
IMAGES_PICTURE = Path("docs/images/image_networks.png")
END = "<!-- end -->"
OURS = "native fast"
COLUMNS = ("native libtorch", "onnxruntime", "openvino", "python convship", "native direct", OURS)
# What scripts/performance --classifiers measures of them.
FEWER = ("native libtorch", "onnxruntime", "openvino", OURS)
PER_CALL = (
    "Microseconds per call, median; then how many times as fast native fast is as the best of "
    "LibTorch and as the better of the two other engines, with the 95 % interval over the rounds."
)
STAGES = ("decode", "preprocess", "network", "end_to_end")
PER_STAGE = (
    "Milliseconds from the bytes of a JPEG to its class, medians of each stage; then images per "
    "second, and how many times as many as python eager: Pillow, torchvision's transforms, the "
    "nn.Module."
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="performance", description=__doc__)
    for name, what in (
        ("classifiers", "the list of all classifiers"),
        ("sides", "one network, a report per size of its image"),
        ("images", "networks that are no plain classifiers"),
        ("photograph", "one network, from a photograph to its class"),
    ):
        option = f"--{name}"
        parser.add_argument(
            option, dest="list", action="store_const", const=f" {option}", default="", help=what
        )
    parser.add_argument("reports", nargs="+", type=Path)
    settings = parser.parse_args(arguments)
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in settings.reports]
    begin = begin_of(reports, settings.list)
    text = DOCUMENT.read_text(encoding="utf-8")
    if begin not in text:
        print(f"{DOCUMENT}: there must be a line {begin}, and {END} after it", file=sys.stderr)
        return 2
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    lines = {
        "": lambda: table(reports, COLUMNS),
        " --classifiers": lambda: table(reports, FEWER),
        " --sides": lambda: table(reports, COLUMNS, "image", side_of),
        " --images": lambda: table(reports, (*FEWER[:-1], "native direct", OURS), name_of=stem_of),
        " --photograph": lambda: stages_table(reports[0]),
    }[settings.list]()
    what = PER_STAGE if settings.list == " --photograph" else PER_CALL
    parts = [begin, f"{about(reports[0])} {what}", "", *lines, "", *warnings(reports), END]
    if settings.list == " --sides":
        draw_sides(reports, SIDES_PICTURE)
    if settings.list == " --images":
        draw_images(reports, IMAGES_PICTURE)
    DOCUMENT.write_text(before + "\n".join(parts) + after, encoding="utf-8")
    print(f"{DOCUMENT}: {len(reports)} reports")
    return 0


def begin_of(reports: list[dict[str, Any]], kind: str) -> str:
    isas = {report["environment"]["isa"] for report in reports}
    if len(isas) != 1:
        raise SystemExit(f"performance: reports must be of one instruction set, got {sorted(isas)}")
    return f"<!-- scripts/performance{kind}, {isas.pop()} -->"


def about(report: dict[str, Any]) -> str:
    environment = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return (
        f"{datetime.date.today().isoformat()}, {environment['cpu']}, {environment['cores']} cores, "
        f"isa {environment['isa']}; {versions}."
    )


def table(
    reports: list[dict[str, Any]],
    columns: tuple[str, ...],
    first: str = "network",
    name_of: Callable[[dict[str, Any]], str] = lambda report: str(report["model"]),
) -> list[str]:
    lines = head(first, "batch", "threads", "best stock", *columns, "as stock", "as peer")
    for report in reports:
        keys = dict.fromkeys((row["batch"], row["threads"]) for row in report["results"])
        lines += [line(name_of(report), *row(report, *key, columns)) for key in keys]
    return lines


def side_of(report: dict[str, Any]) -> str:
    (sizes,) = report["settings"]["input"].values()
    return "x".join(map(str, sizes[-2:]))


def stem_of(report: dict[str, Any]) -> str:
    return Path(str(report["model"])).stem


def draw_images(reports: list[dict[str, Any]], path: Path) -> None:
    """Draw images per second as a multiple of native LibTorch's: a bar per network and engine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.75 * len(reports)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(FEWER)
    for number, rung in enumerate(FEWER):
        for place, report in enumerate(reports):
            times = {row["rung"]: row.get("p50_us") for row in report["results"]}
            if not times.get(rung):
                continue
            ratio = times["native libtorch"] / times[rung]
            y = place + (number - (len(FEWER) - 1) / 2) * height
            axis.barh(y, ratio, height, color=f"C{number}", label=rung if place == 0 else None)
            axis.text(ratio, y, f" {ratio:.2f}", va="center", fontsize=7)
    axis.set_yticks(range(len(reports)), [stem_of(report) for report in reports])
    axis.invert_yaxis()
    axis.set_xlabel("images per second, native LibTorch is 1")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(FEWER), frameon=False)
    figure.savefig(path, dpi=120)


def stages_table(report: dict[str, Any]) -> list[str]:
    lines = head("rung", "threads", *STAGES, "images/s", "as eager")
    eager = {
        row["threads"]: row["stages_us"]["end_to_end"]
        for row in report["results"]
        if row["rung"] == "python eager" and "stages_us" in row
    }
    for row in report["results"]:
        stages = row.get("stages_us")
        if stages is None:
            continue
        whole = stages["end_to_end"]
        lines.append(
            line(
                row["rung"],
                str(row["threads"]),
                *(f"{stages[name] / 1e3:.2f}" for name in STAGES),
                f"{1e6 / whole:.1f}",
                f"{eager[row['threads']] / whole:.2f}" if row["threads"] in eager else "-",
            )
        )
    return lines


def draw_sides(reports: list[dict[str, Any]], path: Path) -> None:
    """Draw nanoseconds per pixel over the side of the image, a panel per number of threads."""
    from matplotlib.figure import Figure

    threads = list(dict.fromkeys(row["threads"] for row in reports[0]["results"]))
    figure = Figure(figsize=(1 + 4.6 * len(threads), 4.2), layout="constrained")
    axes = figure.subplots(1, len(threads), squeeze=False, sharey=True)[0]
    for axis, count in zip(axes, threads, strict=True):
        for number, rung in enumerate(dict.fromkeys(r["rung"] for r in reports[0]["results"])):
            points = [
                (pixels_of(report) ** 0.5, 1e3 * row["p50_us"] / pixels_of(report))
                for report in reports
                for row in report["results"]
                if (row["rung"], row["threads"]) == (rung, count) and "p50_us" in row
            ]
            ours = rung.startswith("native ") and rung != "native libtorch"
            axis.plot(*zip(*points, strict=True), marker=".", color=f"C{number}", label=rung,
                      linewidth=2 if ours else 1)  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("side of the image, pixels")
        axis.set_title(f"{count} thread{'s' if count > 1 else ''}", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("nanoseconds per pixel, batch 1")
    axes[0].legend(fontsize=7, frameon=False)
    environment = reports[0]["environment"]
    figure.suptitle(
        f"{reports[0]['model']}, float32: {environment['cpu']}, isa {environment['isa']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def pixels_of(report: dict[str, Any]) -> int:
    height, width = map(int, side_of(report).split("x"))
    return height * width


def head(*cells: str) -> list[str]:
    return [line(*cells), "|" + "---|" * len(cells)]


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def row(report: dict[str, Any], batch: int, threads: int, columns: tuple[str, ...]) -> list[str]:
    def own(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [e for e in entries if (e["batch"], e["threads"]) == (batch, threads)]

    results = {entry["rung"]: entry for entry in own(report["results"])}
    stock = [e for e in results.values() if e["kind"] == "stock" and "p50_us" in e]
    best = min(stock, key=lambda entry: float(entry["p50_us"]), default=None)
    ratios = {e["against"]: e for e in own(report["ratios"]) if e["ours"] == OURS}
    return [
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
