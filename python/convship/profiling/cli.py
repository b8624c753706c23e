"""The verb `convship profile`: arguments in, calls out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

# As in convship.cli, nothing heavy up here.


def profile(
    model: Annotated[
        str, typer.Argument(help="a shipped file, a run's folder, or a network's name")
    ],
    batch: Annotated[int, typer.Option(help="images per call", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="per call", min=1, max=4096)] = 1,
    size: Annotated[str | None, typer.Option(help="of an image: 224, 240x320, 3x240x320")] = None,
    allow_plain: Annotated[
        bool, typer.Option("--allow-plain", help="a TorchScript file of others; trust its origin")
    ] = False,
    calls: Annotated[int, typer.Option(help="calls to record", min=1)] = 30,
    shapes: Annotated[bool, typer.Option("--shapes", help="tell sizes of inputs apart")] = False,
    top: Annotated[int, typer.Option(help="operators to print", min=1)] = 15,
    json: Annotated[Path | None, typer.Option(help="write everything there")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="write a trace for chrome://tracing and Perfetto there")
    ] = None,
) -> None:
    """Tell where the time of a call goes: per operator in Python, per step natively."""
    # PyTorch's profiler says on stderr when it starts and stops; read while torch is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from convship.atomic import write_atomically
    from convship.bench.network import parse_size
    from convship.profiling.profile import profile_model
    from convship.profiling.report import as_text

    report = profile_model(
        model,
        batch=batch,
        threads=threads,
        size=None if size is None else parse_size(size),
        allow_plain=allow_plain,
        calls=calls,
        shapes=shapes,
    )
    print(as_text(report, top=top, color=sys.stdout.isatty()))
    if json is not None:
        write_atomically(json, report.to_json().encode())
    if trace is not None:
        write_atomically(trace, report.trace_json().encode())
