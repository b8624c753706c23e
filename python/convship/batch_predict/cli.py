"""The verb `convship predict`: arguments in, calls out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

# As in convship.cli, nothing heavy up here.


def predict(
    model: Annotated[Path, typer.Argument(help="a shipped file of a classifier")],
    data: Annotated[Path, typer.Argument(help="a folder of images or Parquet files, or one file")],
    out: Annotated[Path, typer.Option(help="the folder of predictions, Parquet")],
    ray: Annotated[str, typer.Option(help="local, auto or a cluster's address")] = "local",
    workers: Annotated[
        int | None, typer.Option(help="processes; default: as many as there are CPUs", min=1)
    ] = None,
    threads: Annotated[int, typer.Option(help="CPUs of each", min=1, max=4096)] = 1,
    column: Annotated[str, typer.Option(help="of the images in Parquet files")] = "image",
    top_k: Annotated[int, typer.Option(help="classes per image", min=1)] = 1,
    block_rows: Annotated[int, typer.Option(help="image files per block", min=1)] = 1000,
) -> None:
    """Predict a large collection of images on Ray; started again, it goes on where it stopped."""
    from convship.batch_predict.collection import predict_collection

    report = predict_collection(
        model,
        data,
        out,
        ray_address=ray,
        workers=workers,
        threads=threads,
        column=column,
        top_k=top_k,
        block_rows=block_rows,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(
        f"{out}: {report.rows} rows in {report.blocks} files, {report.errors} with an error; "
        f"{report.found} files were there before"
    )
