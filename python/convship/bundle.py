"""The file: its manifest's schema, how it is written, how it is inspected without executing it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from convship.errors import ModelFileError, ModelFileNotFoundError

__all__ = [
    "FORMAT",
    "CompiledFor",
    "Manifest",
    "TensorSpec",
    "Tolerances",
    "describe",
    "flatten",
    "inspect",
]

# Ed25519 public keys in PEM: a file of them, or the text itself as bytes.
PublicKey = str | Path | bytes

FORMAT = 1
MANIFEST = "manifest.json"
GOLDENS = "goldens.safetensors"
# Of a .pt2 file. Where torch.export's reader looks at nothing: under extra/ it expects text.
OWN_FOLDER = "convship/"
PREPROCESS = f"{OWN_FOLDER}preprocess.pt"

# The ZIP comment: this, then 64 hexadecimal digits over all bytes before it. `sign` adds to it.
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


class CompiledFor(_Strict):
    """The kind of CPU that native code needs.

    `features` are named as /proc/cpuinfo names them; loading compares them with the machine.
    """

    machine: str
    features: list[str]


class PrecisionTest(_Strict):
    """How a network of narrower numbers compares with the float32 network that it was made of.

    Shares, 0..1, of `images`: where both name the same class, and where each names the right one
    (None where the right ones are not known).
    """

    images: int
    agreement: float
    top1: float | None = None
    top1_float32: float | None = None


class Manifest(_Strict):
    """What a shipped file says about itself (``extra/manifest.json``).

    `labels` are the class names of a classifier in the order of its logits, empty otherwise.
    `required_ops` are operators that stock LibTorch does not have. `teeth` tells, per deliberate
    fault, how many times over the tolerance the goldens saw it at export. `compiled_for` is there
    where the network is native code, in a .pt2 file. `precision` tells what layers of weights
    multiply, `precision_test` (of a classifier) what that cost.
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
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    precision_test: PrecisionTest | None = None
    tolerances: Tolerances
    goldens: int
    teeth: dict[str, float | str]
    training: dict[str, Any] | None = None
    compiled_for: CompiledFor | None = None


def inspect(path: str | Path, *, public_key: PublicKey | None = None) -> Manifest:
    """Return the manifest of a shipped file; nothing in the file is executed.

    The whole file is read, because its digest is checked.

    Args:
        path: A file that `export_model` wrote.
        public_key: As for `load`.

    Raises:
        ModelFileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, not a convship model, or not signed by `public_key`.

    Example:
        >>> inspect("README.md")
        Traceback (most recent call last):
            ...
        convship.errors.ModelFileError: README.md: this is not a convship model (no ZIP archive)
    """
    return Manifest.model_validate_json(read_extras(path, public_key)[MANIFEST])


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
    cpu = manifest.compiled_for
    labels = manifest.labels[:10] + (["..."] if len(manifest.labels) > 10 else [])
    rows = {
        "written": f"by convship {manifest.convship}, torch {manifest.torch}",
        "network": f"native code for {cpu.machine} with {', '.join(cpu.features)}" if cpu else "",
        "inputs": tensors(manifest.inputs),
        "outputs": tensors(manifest.outputs),
        "labels": f"{len(manifest.labels)}: {', '.join(labels)}" if labels else "",
        "ops": ", ".join(manifest.required_ops) or "LibTorch's own",
        "accuracy": manifest.accuracy,
        "precision": precision_line(manifest),
        "tolerance": ", ".join(f"{name} {value:.3g}" for name, value in tolerances.items()),
        "goldens": str(manifest.goldens),
        "teeth": ", ".join(
            f"{fault} {seen if isinstance(seen, str) else f'{seen:.3g} times over'}"
            for fault, seen in manifest.teeth.items()
        ),
        "training": ", ".join(f"{k} {v}" for k, v in (manifest.training or {}).items()),
    }
    return "\n".join(f"{name:<9} {text}" for name, text in rows.items() if text)


def precision_line(manifest: Manifest) -> str:
    """Return in one line what the network multiplies and what that cost."""
    test = manifest.precision_test
    if manifest.precision == "float32" or test is None:
        return manifest.precision
    text = f"{manifest.precision}; on {test.images} images "
    if test.top1 is not None and test.top1_float32 is not None:
        text += f"top-1 {100 * test.top1:.2f} % (float32 {100 * test.top1_float32:.2f} %), "
    return text + f"{100 * test.agreement:.2f} % as float32"


def read_extras(path: str | Path, public_key: PublicKey | None = None) -> dict[str, bytes]:
    """Return the members under ``extra/`` of a shipped file by name, the whole file checked."""
    path = Path(path)
    if not path.exists():
        raise ModelFileNotFoundError(f"{path}: no such model file")
    # One implementation of the checks, the one that native programs rely on.
    from convship import _library

    _library.load()
    from convship import _C

    manifest, goldens = _C.read_extras(path, key_text(public_key))
    try:
        Manifest.model_validate_json(manifest)
    except ValidationError as error:
        reason = str(error).splitlines()[:3]
        raise ModelFileError(
            f"{path}: the manifest cannot be read ({' '.join(reason)}); export the file again"
        ) from error
    return {MANIFEST: manifest, GOLDENS: goldens}


def key_text(key: PublicKey | None) -> str:
    """Return a key's PEM text; empty for none."""
    if key is None:
        return ""
    text = key if isinstance(key, bytes) else Path(key).read_bytes()
    if not text.isascii() or not text.strip():
        subject = "the key" if isinstance(key, bytes) else str(key)
        raise ValueError(f"{subject}: a key must be PEM text ('-----BEGIN ...')")
    return text.decode("ascii")


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
