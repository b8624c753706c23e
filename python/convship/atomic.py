"""Files that are either the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` so that `path` holds either the old bytes or all the new ones.

    A temporary file in the same folder is written, flushed to disk and renamed; then the folder
    is flushed. Whatever fails, an older file stays as it was. A path that is no regular file
    (/dev/null, a pipe) is written to directly, never replaced.

    Raises:
        OSError: The folder does not exist or cannot be written, or the disk is full; its
            `filename` is `path`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a", b"all of it")
        ...     (Path(folder) / "a").read_bytes()
        b'all of it'
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(content)
        else:
            _write_and_rename(path, content)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = f"no space left ({error.strerror})" if full else error.strerror
        raise OSError(error.errno, f"cannot be written: {reason}", str(path)) from error


def _write_and_rename(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
