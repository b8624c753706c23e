"""A collection of images to a folder of Parquet files: Ray runs the blocks, wherever there is room.

Ray starts the workers, hands them blocks, and hands a block on when its worker dies. What is done
is known from the files alone, so a run that was killed as a whole goes on when it is started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convship.atomic import remove_leftovers, write_atomically
from convship.batch_predict.blocks import Block, list_blocks, predict_block
from convship.batch_predict.predictor import ERROR, Predictor, import_pyarrow
from convship.errors import ModelFileNotFoundError
from convship.extras import import_extra
from convship.runs import make_folder

__all__ = ["SETTINGS", "CollectionReport", "predict_collection"]

# Beside the predictions; readers of Parquet folders pass over names with an underscore.
SETTINGS = "_convship.json"


@dataclass
class CollectionReport:
    """What `predict_collection` did.

    Attributes:
        rows: Rows in all files of the folder.
        errors: Rows of those that have an error instead of predictions.
        blocks: Files in the folder.
        found: How many of those were there already, from a run before.
    """

    rows: int
    errors: int
    blocks: int
    found: int


def predict_collection(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    ray_address: str = "local",
    workers: int | None = None,
    threads: int = 1,
    column: str = "image",
    top_k: int = 1,
    block_rows: int = 1000,
    say: Callable[[str], None] = lambda line: None,
) -> CollectionReport:
    """Predict every image of a collection; go on where a run before was stopped or killed.

    Args:
        model: A file that `export_model` wrote. Workers get its bytes, not its path.
        data: A folder of JPEG and PNG files, or of Parquet files, or one of those; on a cluster
            where all machines see it.
        out: The folder of predictions; there, too. Every block of the input becomes one file.
        ray_address: "local" starts Ray on this machine; "auto" or an address joins a cluster. Not
            looked at where Ray runs in this process already.
        workers: Processes; None for as many as there are CPUs for.
        threads: CPUs of each.
        column: Of the encoded images in Parquet files.
        top_k: How many classes of each image.
        block_rows: Image files per block. Parquet files have their row groups.
        say: Is told about progress, in lines.

    Raises:
        FileNotFoundError, ModelFileError: There is no such input or model, or it is damaged.
        ValueError: The input is of another kind, or `out` holds predictions of something else.
        OSError: The output cannot be written, or Ray cannot be reached.
        ModuleNotFoundError: Ray or pyarrow is not installed.

    Example:
        >>> predict_collection("none.pt", "images", "predictions")
        Traceback (most recent call last):
        convship.errors.ModelFileNotFoundError: none.pt: no such model file
    """
    model, out = Path(model), Path(out).resolve()
    for name, value in (("threads", threads), ("workers", workers or 1)):
        if value < 1:
            raise ValueError(f"predict: {name} must be at least 1, got {value}")
    if not model.is_file():
        raise ModelFileNotFoundError(f"{model}: no such model file")
    content = model.read_bytes()
    Predictor(content, top_k=top_k, threads=None)  # what is wrong with it is said here, once
    _import_ray()
    blocks, digest = list_blocks(data, block_rows)
    _claim(
        out,
        {
            "model_sha256": hashlib.sha256(content).hexdigest(),
            "input_sha256": digest,
            "block_rows": block_rows,
            "column": column,
            "top_k": top_k,
        },
    )
    todo = [block for block in blocks if not (out / block.name).exists()]
    found = len(blocks) - len(todo)
    say(f"{len(blocks)} blocks, {found} of them done before")
    if todo:
        options = {"column": column, "top_k": top_k, "threads": threads}
        with _running(ray_address, workers, threads):
            for done, rows in enumerate(_run(todo, content, out, options, workers, threads), 1):
                say(f"{found + done} of {len(blocks)} blocks, {rows} rows in the last")
    return _summary(out, blocks, found)


def _import_ray() -> Any:
    ray = import_extra("ray", name="Ray", extra="ray", verb="predict")
    import_extra("ray.data", name="Ray", extra="ray", verb="predict")
    import_pyarrow()
    return ray


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder ours; refuse one that holds something else."""
    make_folder(out)
    remove_leftovers(out)  # of workers that were killed while writing
    file = out / SETTINGS
    if file.exists():
        stored = json.loads(file.read_text(encoding="utf-8"))
        differing = [name for name in settings if stored.get(name) != settings[name]]
        if differing:
            raise ValueError(
                f"predict: {out} holds predictions with another {', '.join(differing)}; choose "
                "another folder, or remove it"
            )
    elif any(out.iterdir()):
        raise ValueError(f"predict: {out} holds other files; choose another folder")
    else:
        write_atomically(file, json.dumps(settings, indent=2).encode())


@contextlib.contextmanager
def _running(address: str, workers: int | None, threads: int) -> Iterator[None]:
    """Ray, as it runs already or started here."""
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # on stderr; a failure is an exception
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == "local" and workers is not None:
        options |= {"num_cpus": workers * threads, "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"predict: Ray at {address!r} cannot be reached: {reason}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _run(
    todo: list[Block],
    content: bytes,
    out: Path,
    options: dict[str, Any],
    workers: int | None,
    threads: int,
) -> Iterator[int]:
    """Yield the rows of each block that is done, in any order."""
    ray = _import_ray()
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is told by `say`
    ray.data.DataContext.get_current().enable_progress_bars = False
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    # A block is a task of its own: what a dead worker costs is one.
    items = ray.data.from_items([asdict(block) for block in todo], override_num_blocks=len(todo))
    done = items.map(
        _Worker,
        fn_constructor_args=[ray.put(content), str(out), options],
        compute=ray.data.ActorPoolStrategy(size=min(count, len(todo))),
        num_cpus=threads,
    )
    try:
        for row in done.iter_rows():
            yield row["rows"]
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise OSError(
            f"predict: a worker failed: {lines[-1].strip() if lines else type(error).__name__}; "
            "the same command goes on from here"
        ) from error


class _Worker:
    """In a process of Ray's: predicts blocks and writes their files."""

    def __init__(self, content: Any, out: str, options: dict[str, Any]) -> None:
        ray = _import_ray()
        self.predictor = Predictor(ray.get(content), **options)
        self.out = Path(out)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        block = Block(**{**row, "files": tuple(row["files"])})
        return {"name": block.name, "rows": predict_block(block, self.predictor, self.out)}


def _summary(out: Path, blocks: list[Block], found: int) -> CollectionReport:
    import pyarrow.parquet as pq

    rows = errors = 0
    for block in blocks:
        column = pq.read_table(out / block.name, columns=[ERROR])[ERROR]
        rows += len(column)
        errors += len(column) - column.null_count
    return CollectionReport(rows, errors, len(blocks), found)
