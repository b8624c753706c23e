"""The verbs under `convship bench`: arguments in, calls out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

# As in convship.cli, nothing heavy up here.


class _ModelIsTheDefault(TyperGroup):
    """`convship bench model.pt` is `convship bench model model.pt`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["model", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Options may stand first; those of the group itself are about help.
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["model", *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(
    cls=_ModelIsTheDefault,
    no_args_is_help=True,
    help="Measure speed: `bench model.pt` a network, `bench op` the fused op.",
)


@bench_app.command()
def model(
    model: Annotated[
        str, typer.Argument(help="a shipped file, a run's folder, or a network's name")
    ],
    batch: Annotated[str, typer.Option(help="images per call, with commas")] = "1",
    threads: Annotated[str, typer.Option(help="per call, each on its core, with commas")] = "1",
    engines: Annotated[str | None, typer.Option(help="rungs or groups, with commas")] = None,
    size: Annotated[str | None, typer.Option(help="of an image: 224, 240x320, 3x240x320")] = None,
    image: Annotated[Path | None, typer.Option(help="for the way from bytes to classes")] = None,
    allow_plain: Annotated[
        bool, typer.Option("--allow-plain", help="a TorchScript file of others; trust its origin")
    ] = False,
    rounds: Annotated[int, typer.Option(help="turns per rung", min=1)] = 15,
    slot_ms: Annotated[float, typer.Option(help="length of a turn")] = 100.0,
    json: Annotated[Path | None, typer.Option(help="write everything there")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw bars there, PNG")] = None,
    html: Annotated[Path | None, typer.Option(help="write a page with all plots there")] = None,
) -> int:
    """Measure one network on every rung, from eager Python to the native program, in turns."""
    from convship.atomic import write_atomically
    from convship.bench.ladder import bench_model
    from convship.bench.ladder_picture import draw_ladder
    from convship.bench.ladder_table import ladder_as_text
    from convship.bench.network import parse_size
    from convship.bench.page import as_page

    report = bench_model(
        model,
        batches=_numbers("batch", batch),
        threads=_numbers("threads", threads),
        rungs=_names(engines),
        size=None if size is None else parse_size(size),
        allow_plain=allow_plain,
        image=image,
        rounds=rounds,
        slot_ms=slot_ms,
        say=_say,
    )
    print(ladder_as_text(report, color=sys.stdout.isatty()))
    if json is not None:
        write_atomically(json, report.to_json().encode())
    if plot is not None:
        draw_ladder(report, plot)
    if html is not None:
        write_atomically(html, as_page(report).encode())
    return 0 if report.ours_is_right else 1


@bench_app.command()
def op(
    grid: Annotated[str, typer.Option(help="peers, odd, random[:SEED] or FILE.json")] = "peers",
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
        say=_say,
    )
    print(as_text(report, color=sys.stdout.isatty()))
    if json is not None:
        write_atomically(json, report.to_json().encode())
    if plot is not None:
        draw(report, plot)
    return 0 if report.ours_is_right else 1


@bench_app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="JSON of the older run")],
    new: Annotated[Path, typer.Argument(help="JSON of the newer run")],
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help="'p50>1.1x', 'rate<0.9x'; may be repeated"),
    ] = None,
    engines: Annotated[str | None, typer.Option(help="only these rungs, with commas")] = None,
) -> int:
    """Compare two runs of `convship bench model.pt`; fail on conditions, for CI."""
    from convship.bench.compare import compare as compare_reports
    from convship.bench.compare import parse_condition

    conditions = [parse_condition(text) for text in fail_if or ()]
    found = compare_reports(old, new, conditions, _names(engines))
    for line in found.lines:
        print(line)
    for line in found.notes:
        _say(line)
    if not conditions:
        return 0
    for line in found.failures:
        print(f"FAILED {line}")
    return 1 if found.failures else 0


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _numbers(name: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"bench: {name} must be numbers with commas, got '{text}'")
    return list(map(int, parts))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
