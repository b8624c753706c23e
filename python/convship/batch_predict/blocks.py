"""What there is to predict, cut into blocks: each becomes one file, whoever writes it, and when.

A block is known by its number, and its file is written whole or not at all. So work that was
interrupted goes on with the blocks that have no file yet, and work that is done twice writes the
same file again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convship.atomic import write_atomically
from convship.batch_predict.predictor import ERROR, PREDICTIONS, Predictor, import_pyarrow
from convship.verify import IMAGE_SUFFIXES

__all__ = ["Block", "list_blocks", "predict_block"]

# Rows per call of the predictor: bounds the memory of encoded images.
_CHUNK = 64
PATH, SOURCE, ROW = "path", "source_file", "source_row"


@dataclass(frozen=True)
class Block:
    """Some image files, or one row group of a Parquet file.

    Attributes:
        name: Of the file of its predictions.
        root: Folder of the input, absolute.
        files: Paths below it.
        row_group: In the Parquet file; None for image files.
        first_row: Number of its first row in that file.
    """

    name: str
    root: str
    files: tuple[str, ...]
    row_group: int | None = None
    first_row: int = 0


def list_blocks(path: str | Path, block_rows: int = 1000) -> tuple[list[Block], str]:
    """Return the blocks of a folder of JPEG and PNG files or of Parquet files, and a digest.

    Args:
        path: A folder, searched through all its subfolders, or one Parquet file.
        block_rows: Image files per block; Parquet files have their row groups.

    Returns:
        The blocks, the same for the same input, and a digest: of names and sizes of all files, and
        of how they are cut.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It holds neither images nor Parquet files, or both.

    Example:
        >>> list_blocks("none")
        Traceback (most recent call last):
        FileNotFoundError: predict: none: no such folder or Parquet file
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"predict: {path}: no such folder or Parquet file")
    if block_rows < 1:
        raise ValueError(f"predict: block_rows must be at least 1, got {block_rows}")
    root = path if path.is_dir() else path.parent
    images, tables = _files(path)
    digest = hashlib.sha256()
    for file in images or tables:
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\n".encode())
    pieces = list(_row_groups(tables) if tables else _chunks(images, block_rows))
    for piece, group, first in pieces:
        digest.update(f"{len(piece)} {group} {first}\n".encode())
    absolute = str(root.resolve())
    blocks = [
        Block(
            f"part-{number:06}.parquet",
            absolute,
            tuple(str(file.relative_to(root)) for file in piece),
            group,
            first,
        )
        for number, (piece, group, first) in enumerate(pieces)
    ]
    return blocks, digest.hexdigest()


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """Return images and Parquet files, of which one list is empty."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    images, tables = (
        [file for file in found if file.suffix.lower() in suffixes and file.is_file()]
        for suffixes in (IMAGE_SUFFIXES if path.is_dir() else (), (".parquet",))
    )
    if bool(images) == bool(tables):
        raise ValueError(
            f"predict: {path} must be a folder of .jpg, .jpeg and .png files, or a folder of "
            f".parquet files or one of them, got {'both' if images else 'neither'}"
        )
    return images, tables


_Piece = tuple[list[Path], int | None, int]


def _chunks(files: list[Path], size: int) -> Iterator[_Piece]:
    for start in range(0, len(files), size):
        yield files[start : start + size], None, 0


def _row_groups(files: list[Path]) -> Iterator[_Piece]:
    import_pyarrow()
    import pyarrow.parquet as pq

    for file in files:
        metadata = pq.read_metadata(file)
        first = 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if rows:
                yield [file], group, first
            first += rows


def predict_block(block: Block, predictor: Predictor, out: Path) -> int:
    """Write the predictions of `block` to the folder `out`; return how many rows they are.

    Raises:
        ValueError: The column of images is missing.
        OSError: The input cannot be read or the output not written.

    Example:
        >>> predict_block(Block("part-000000.parquet", "images", ()), predictor, out)
        ... # doctest: +SKIP
        0
    """
    pa = import_pyarrow()
    import pyarrow.parquet as pq

    images = [predictor.column]
    tables = [predictor(table).drop_columns(images) for table in _tables(block, predictor)]
    together = pa.concat_tables(tables)
    buffer = pa.BufferOutputStream()
    pq.write_table(together, buffer)
    write_atomically(out / block.name, buffer.getvalue().to_pybytes())
    return int(together.num_rows)


def _tables(block: Block, predictor: Predictor) -> Iterator[Any]:
    pa = import_pyarrow()
    root = Path(block.root)
    if block.row_group is None:
        for start in range(0, len(block.files), _CHUNK):
            names = list(block.files[start : start + _CHUNK])
            images = pa.array([_bytes_of(root / name) for name in names], pa.binary())
            yield pa.table({PATH: names, predictor.column: images})
        return
    import pyarrow.parquet as pq

    row = block.first_row
    (name,) = block.files
    with pq.ParquetFile(root / name) as file:
        for batch in file.iter_batches(_CHUNK, row_groups=[block.row_group]):
            table = pa.Table.from_batches([batch])
            if taken := {SOURCE, ROW, PREDICTIONS, ERROR} & set(table.column_names):
                raise ValueError(
                    f"predict: {root / name} has a column {', '.join(sorted(taken))} already"
                )
            rows = pa.array(range(row, row + len(table)), pa.int64())
            row += len(table)
            sources = pa.array([name] * len(table), pa.string())
            yield table.add_column(0, ROW, rows).add_column(0, SOURCE, sources)


def _bytes_of(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None  # it was there when the input was listed: a row with an error
