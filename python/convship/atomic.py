"""Files that are either the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from pathlib import Path

__all__ = ["remove_leftovers", "write_atomically"]


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write `content` so that `path` holds either the old bytes or all the new ones.

    A temporary file in the same folder is written, flushed to disk and renamed; then the folder
    is flushed. Whatever fails, an older file stays as it was. What a killed process left behind
    while it wrote this path is removed. A path that is no regular file (/dev/null, a pipe) is
    written to directly, never replaced.

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
            remove_leftovers(path.parent, path.name)
            _write_and_rename(path, content)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = f"no space left ({error.strerror})" if full else error.strerror
        raise OSError(error.errno, f"cannot be written: {reason}", str(path)) from error


def remove_leftovers(folder: str | Path, name: str | None = None) -> None:
    """Remove the temporary files in `folder` whose writer was killed; of `name` alone if given.

    Those that a living process is writing stay, and so does what cannot be removed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / ".a.0123456789abcdef.tmp").touch()
        ...     remove_leftovers(folder)
        ...     list(Path(folder).iterdir())
        []
    """
    ours = re.compile(rf"\.{'.+' if name is None else re.escape(name)}\.[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError):
        for file in list(Path(folder).iterdir()):
            if ours.fullmatch(file.name):
                _remove_unless_written(file)


def _remove_unless_written(file: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer holds the lock
            file.unlink()
        finally:
            os.close(descriptor)


def _write_and_rename(path: Path, content: bytes) -> None:
    temporary, descriptor = _create_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.rename(path)  # before closing lets go of the lock
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _create_beside(path: Path) -> tuple[Path, int]:
    """Create a temporary file, locked for as long as this process lives and writes to it."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):  # where files cannot be locked, leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink > 0:
            return temporary, descriptor
        os.close(descriptor)  # somebody took it for a leftover before it was locked
