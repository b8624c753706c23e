"""The file: its manifest's schema, how it is written, how it is inspected without executing it."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from convship.errors import ModelFileError, ModelFileNotFoundError

__all__ = [
    "FORMAT",
    "Manifest",
    "TensorSpec",
    "Tolerances",
    "describe",
    "flatten",
    "inspect",
]

FORMAT = 1
MANIFEST = "manifest.json"
GOLDENS = "goldens.safetensors"

# The ZIP comment: this, then 64 hexadecimal digits over all bytes before it.
_DIGEST_PREFIX = b"convship1 sha256="
_COMMENT_LENGTH = len(_DIGEST_PREFIX) + 64
_END_OF_DIRECTORY = b"PK\x05\x06"
_END_OF_DIRECTORY_LENGTH = 22


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TensorSpec(_Strict):
    """A named input or output; None in `shape` stands for a size that varies."""

    name: str
    dtype: str
    shape: list[int | None]


class Tolerances(_Strict):
    """Largest absolute difference allowed per stage; decoding and preprocessing are exact."""

    decode: float = 0.0
    preprocess: float = 0.0
    outputs: dict[str, float]
    probabilities: float = 0.0


class Manifest(_Strict):
    """What a shipped file says about itself (``extra/manifest.json``).

    `labels` are the class names of a classifier in the order of its logits, empty otherwise.
    `required_ops` are operators that stock LibTorch does not have. `teeth` tells, per deliberate
    fault, how many times over the tolerance the goldens saw it at export.
    """

    format: int = FORMAT
    convship: str
    torch: str
    task: Literal["classification", "general"]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    labels: list[str]
    required_ops: list[str]
    accuracy: Literal["default", "direct", "fast"] = "default"
    tolerances: Tolerances
    goldens: int
    teeth: dict[str, float | str]
    training: dict[str, Any] | None = None


def inspect(path: str | Path) -> Manifest:
    """Return the manifest of a shipped file; nothing in the file is executed.

    The whole file is read, because its digest is checked.

    Args:
        path: A file that `export_model` wrote.

    Raises:
        ModelFileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, or not a convship model.

    Example:
        >>> inspect("README.md")
        Traceback (most recent call last):
            ...
        convship.errors.ModelFileError: README.md: this is not a convship model (no ZIP archive)
    """
    return Manifest.model_validate_json(read_extras(path)[MANIFEST])


def describe(manifest: Manifest) -> str:
    """Return the manifest as lines for people.

    Example:
        >>> manifest = Manifest(
        ...     convship="0.1.0", torch="2.13.0", task="general",
        ...     inputs=[TensorSpec(name="x", dtype="float32", shape=[None, 3])], outputs=[],
        ...     labels=[], required_ops=[], tolerances=Tolerances(outputs={}), goldens=0, teeth={},
        ... )
        >>> print(describe(manifest).splitlines()[1])
        inputs    x float32 [N, 3]
    """

    def tensors(specs: list[TensorSpec]) -> str:
        shapes = (
            ", ".join("N" if size is None else str(size) for size in spec.shape) for spec in specs
        )
        pairs = zip(specs, shapes, strict=True)
        return ", ".join(f"{spec.name} {spec.dtype} [{shape}]" for spec, shape in pairs)

    tolerances = {**manifest.tolerances.outputs, "probabilities": manifest.tolerances.probabilities}
    if manifest.task == "general":
        del tolerances["probabilities"]
    labels = manifest.labels[:10] + (["..."] if len(manifest.labels) > 10 else [])
    rows = {
        "written": f"by convship {manifest.convship}, torch {manifest.torch}",
        "inputs": tensors(manifest.inputs),
        "outputs": tensors(manifest.outputs),
        "labels": f"{len(manifest.labels)}: {', '.join(labels)}" if labels else "",
        "ops": ", ".join(manifest.required_ops) or "LibTorch's own",
        "accuracy": manifest.accuracy,
        "tolerance": ", ".join(f"{name} {value:.3g}" for name, value in tolerances.items()),
        "goldens": str(manifest.goldens),
        "teeth": ", ".join(
            f"{fault} {seen if isinstance(seen, str) else f'{seen:.3g} times over'}"
            for fault, seen in manifest.teeth.items()
        ),
        "training": ", ".join(f"{k} {v}" for k, v in (manifest.training or {}).items()),
    }
    return "\n".join(f"{name:<9} {text}" for name, text in rows.items() if text)


def read_extras(path: str | Path) -> dict[str, bytes]:
    """Return the members under ``extra/`` of a shipped file by name, digest checked."""
    path = Path(path)
    if not path.exists():
        raise ModelFileNotFoundError(f"{path}: no such model file")
    if not path.is_file():
        raise ModelFileError(f"{path}: a model is a regular file, this is not")
    try:
        _check_digest(path)
        with zipfile.ZipFile(path) as archive:
            extras = {
                name.split("/extra/", 1)[1]: archive.read(name)
                for name in archive.namelist()
                if "/extra/" in name
            }
        _check_format(path, extras[MANIFEST])
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    except (zipfile.BadZipFile, KeyError, ValidationError, json.JSONDecodeError) as error:
        raise ModelFileError(
            f"{path}: the file is damaged ({str(error).splitlines()[0]}); fetch or export it again"
        ) from error
    return extras


def _check_format(path: Path, manifest: bytes) -> None:
    found = json.loads(manifest).get("format")
    if found != FORMAT:
        raise ModelFileError(
            f"{path}: the manifest has format {found}, this version reads {FORMAT}; "
            "use the convship that wrote it, or a newer one"
        )
    Manifest.model_validate_json(manifest)


def _check_digest(path: Path) -> None:
    """Raise unless the file carries our digest and it is right; say what else it is."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise ModelFileError(f"{path}: this is not a convship model (no ZIP archive)")
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _COMMENT_LENGTH))
        comment = file.read()
        if not comment.startswith(_DIGEST_PREFIX):
            raise ModelFileError(f"{path}: {_describe_other_archive(path)}")
        file.seek(0)
        digest = hashlib.sha256()
        remaining = size - _COMMENT_LENGTH
        while remaining > 0:
            chunk = file.read(min(remaining, 1 << 20))
            digest.update(chunk)
            remaining -= len(chunk)
    if digest.hexdigest().encode() != comment[len(_DIGEST_PREFIX) :]:
        raise ModelFileError(
            f"{path}: the file is damaged: its SHA-256 differs from the one written at export; "
            "fetch or export it again"
        )


def _describe_other_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.split("/", 1)[-1] for name in archive.namelist()}
    except zipfile.BadZipFile:
        return "the file is damaged or truncated; fetch or export it again"
    if f"extra/{MANIFEST}" in members:
        return "this convship model has lost its digest; fetch or export it again"
    if "constants.pkl" in members:
        return "this is a plain TorchScript file without convship's manifest and digest"
    if "archive_format" in members or any(name.startswith("data/aotinductor/") for name in members):
        return "this is a torch.export .pt2 package, not a convship model"
    if "data.pkl" in members:
        return (
            "this is a checkpoint or state_dict (weights without a network), not a model; "
            "make one with 'convship export RUN --out model.pt' or convship.export_model"
        )
    return "this is a ZIP archive but not a model"


def with_digest(archive: bytes) -> bytes:
    """Return `archive`, a ZIP file without a comment, with the digest as its comment."""
    end = len(archive) - _END_OF_DIRECTORY_LENGTH
    if archive[end : end + 4] != _END_OF_DIRECTORY:
        raise ModelFileError("with_digest: the archive must be a ZIP file without a comment")
    # The comment's length is part of what the digest covers.
    covered = archive[:-2] + struct.pack("<H", _COMMENT_LENGTH)
    return covered + _DIGEST_PREFIX + hashlib.sha256(covered).hexdigest().encode()


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a network's output with their names.

    One tensor is ``output``; dicts and named tuples give their keys, tuples and lists
    ``output_0``, ``output_1``, ...; below the top level, names are joined by dots. The native
    runtime names outputs the same way.

    Raises:
        TypeError: For anything but tensors, numbers, None, tuples, lists and dicts.

    Example:
        >>> names = [name for name, _ in flatten({"a": torch.ones(1), "b": (torch.ones(1), 2.0)})]
        >>> names
        ['a', 'b.0', 'b.1']
    """
    if isinstance(value, Tensor):
        yield prefix or "output", value
    elif isinstance(value, bool | int | float):
        # float64 for float, as LibTorch makes tensors of TorchScript's numbers.
        dtype = torch.float64 if isinstance(value, float) else None
        yield prefix or "output", torch.tensor(value, dtype=dtype)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key in value._fields:
            yield from flatten(getattr(value, key), f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from flatten(item, f"{prefix}.{index}" if prefix else f"output_{index}")
    elif value is not None:
        raise TypeError(
            f"output '{prefix}' is a {type(value).__name__}; only tensors, numbers, tuples, lists "
            "and dicts can be shipped"
        )
