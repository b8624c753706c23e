"""Checkpoints: written whole or not at all, read without executing anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from convship.atomic import write_atomically
from convship.errors import ModelFileError, ModelFileNotFoundError

__all__ = ["FORMAT", "load_checkpoint", "save_checkpoint"]

FORMAT = "convship-checkpoint-1"


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content`, tensors and plain values only, as a checkpoint; atomically.

    Raises:
        OSError: As `write_atomically`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(Path(folder) / "a.ckpt", {"epoch": 3})
        ...     load_checkpoint(Path(folder) / "a.ckpt")["epoch"]
        3
    """
    # To memory first: torch.save aborts the process when the disk is full.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; nothing in it is executed.

    Raises:
        ModelFileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, or not a checkpoint of convship.

    Example:
        >>> load_checkpoint("missing.ckpt")
        Traceback (most recent call last):
        convship.errors.ModelFileNotFoundError: missing.ckpt: no such checkpoint
    """
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelFileNotFoundError(f"{path}: no such checkpoint") from None
    except PermissionError as error:
        raise OSError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # torch raises many kinds, and texts of many lines
        raise ModelFileError(
            f"{path}: damaged, or not a checkpoint; use the run's other checkpoint or train again"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise ModelFileError(f"{path}: not a checkpoint of convship; name the folder of a run")
    if content["format"] != FORMAT:
        raise ModelFileError(
            f"{path}: checkpoint format {content['format']!r} is not {FORMAT!r}; "
            "use the convship that wrote it"
        )
    return content


def _check_sums(path: str | Path) -> None:
    """A checkpoint holds the CRC-32 of each tensor, which torch.load does not look at."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} does not match its CRC-32")
