"""Signing a shipped file, so that who loads it can tell whose it is."""

from __future__ import annotations

from pathlib import Path

from convship import _library
from convship.atomic import write_atomically
from convship.bundle import key_text
from convship.errors import ModelFileNotFoundError

__all__ = ["sign"]


def sign(
    path: str | Path, private_key: str | Path | bytes, *, out: str | Path | None = None
) -> None:
    """Sign a shipped file with an Ed25519 key; a signature that it has is replaced.

    The signature stands in the file beside the digest: stock `torch.jit.load` still opens it.
    ``openssl genpkey -algorithm ed25519 -out private.pem`` makes a key,
    ``openssl pkey -in private.pem -pubout -out public.pem`` the public one for `load`.

    Args:
        path: A file that `export_model` wrote.
        private_key: Path of a PEM file without passphrase, or its text as bytes.
        out: Where to write; `path` itself by default. An older file stays until the new one is
            complete.

    Raises:
        ModelFileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, or not a convship model.
        ValueError: The key is no Ed25519 private key.

    Example:
        >>> sign("model.pt", "private.pem")
        Traceback (most recent call last):
            ...
        convship.errors.ModelFileNotFoundError: model.pt: no such model file
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileNotFoundError(f"{path}: no such model file")
    _library.load()
    from convship import _C

    signed = _C.sign(path.read_bytes(), key_text(private_key), str(path))
    write_atomically(path if out is None else out, signed)
