"""The verbs under `convship bench`: arguments in, calls out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

# As in convship.cli, nothing heavy up here.

bench_app = typer.Typer(no_args_is_help=True, help="Measure speed.")


@bench_app.callback()
def _verbs() -> None:
    pass  # typer would make an app of one verb that verb


@bench_app.command()
def op(
    grid: Annotated[str, typer.Option(help="peers, odd or FILE.json")] = "peers",
    shapes: Annotated[str | None, typer.Option(help="names from the grid, with commas")] = None,
    engines: Annotated[str | None, typer.Option(help="names or groups, with commas")] = None,
    threads: Annotated[int, typer.Option(help="per call, each on its core", min=1)] = 1,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    layout: Annotated[str, typer.Option(help="nchw or channels_last")] = "nchw",
    isa: Annotated[str | None, typer.Option(help="forced on convship and torch")] = None,
    train: Annotated[bool, typer.Option("--train", help="forward and backward together")] = False,
    rounds: Annotated[int, typer.Option(help="turns per engine and shape", min=1)] = 15,
    slot_ms: Annotated[float, typer.Option(help="length of a turn")] = 40.0,
    json: Annotated[Path | None, typer.Option(help="write everything there")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw bars there, PNG")] = None,
) -> int:
    """Measure conv_pool2d beside torch, ONNX Runtime and OpenVINO, in turns."""
    from convship.atomic import write_atomically
    from convship.bench.op import bench_op
    from convship.bench.picture import draw
    from convship.bench.settings import Settings
    from convship.bench.table import as_text

    report = bench_op(
        grid,
        _names(shapes),
        _names(engines),
        Settings(threads, dtype, layout, isa, train),  # type: ignore[arg-type]
        rounds=rounds,
        slot_ms=slot_ms,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if json is not None:
        write_atomically(json, report.to_json().encode())
    if plot is not None:
        draw(report, plot)
    print(as_text(report, color=sys.stdout.isatty()))
    return 0 if report.ours_is_right else 1


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]
