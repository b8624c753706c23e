"""A shipped model in Python, run by the same C++ as in a native program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from torch import Tensor

from convship import _library
from convship.bundle import Manifest, PublicKey, key_text
from convship.errors import ModelFileNotFoundError
from convship.golden import read_image_file

__all__ = ["Model", "Plan", "load", "load_bytes"]

_library.load()

from convship import _C  # noqa: E402  (the op library must be there first)

if TYPE_CHECKING:
    from convship._C import Check, Prediction


def load(
    path: str | Path,
    *,
    backend: Literal["convship", "libtorch"] = "convship",
    allow_plain: bool = False,
    public_key: PublicKey | None = None,
) -> Model:
    """Load a shipped model.

    Digest, structure, versions and required operators are checked before LibTorch reads the file.

    Args:
        path: A file that `export_model` wrote.
        backend: "convship" freezes and optimises at load, or packs the weights of a .pt2 file
            once; "libtorch" runs exactly what `torch.jit.load` or AOTInductor's own loader runs.
        allow_plain: Accept a TorchScript file that convship did not write. A model is a program:
            load only files whose origin you trust.
        public_key: Refuse every file that this key did not sign (`convship.sign`). Path of a PEM
            file of one or several Ed25519 public keys, or its text as bytes.

    Raises:
        ModelFileNotFoundError: There is no such file.
        ModelFileError: The file is damaged, of another kind, not signed by `public_key`, or needs
            an operator that is missing.
        OSError: A .pt2 file was compiled for another CPU, or has no temporary folder to load from.
        ValueError: `public_key` is no such key.

    Example:
        >>> import convship, tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/net.pt"
        ...     _ = convship.export_model(torch.nn.Linear(3, 2), path, samples=[torch.rand(1, 3)])
        ...     convship.load(path).run(torch.zeros(5, 3))["output"].shape
        torch.Size([5, 2])
    """
    path = Path(path)
    if not path.exists():
        raise ModelFileNotFoundError(f"{path}: no such model file")
    native = _C.Model.from_file(
        path, backend=backend, allow_plain=allow_plain, public_key=key_text(public_key)
    )
    return Model(native)


def load_bytes(data: bytes, name: str = "model") -> Model:
    """Load a shipped model from memory, with the checks and the backend of `load`.

    Args:
        data: The content of a file that `export_model` wrote.
        name: What messages call it.

    Raises:
        ModelFileError: It is damaged, of another kind, or needs an operator that is missing.

    Example:
        >>> load_bytes(b"no model")
        Traceback (most recent call last):
            ...
        convship.errors.ModelFileError: model: this is not a convship model (no ZIP archive)
    """
    return Model(_C.Model.from_bytes(data, name))


class Plan(TypedDict):
    """What `Model.plan` tells."""

    whole: bool
    steps: list[tuple[str, float]]
    left_to_libtorch: dict[str, int]


class Model:
    """A loaded model; `load` makes one. May be called from several threads at once.

    Attributes:
        manifest: What the file says about itself; None for a plain TorchScript file.
        labels: Class names in the order of the logits; empty unless it is a classifier.
    """

    def __init__(self, native: _C.Model) -> None:
        self._native = native
        text = native.manifest
        self.manifest = Manifest.model_validate_json(text) if text else None
        self.labels: list[str] = native.labels

    def predict(self, image: str | Path | bytes, top_k: int = 1) -> list[Prediction]:
        """Return the `top_k` most probable classes of one image, best first.

        Args:
            image: Path of a JPEG or PNG file, or the bytes of one.
            top_k: How many classes; fewer come back where there are fewer.

        Returns:
            Objects with `label`, `index` and `probability`.

        Raises:
            ImageError: The image cannot be read or decoded.
            ValueError: The file holds no preprocessing and labels, or `top_k` is below 1.
        """
        if isinstance(image, bytes):
            return self._native.predict_encoded(image, top_k)
        return self._native.predict_file(Path(image), top_k)

    def run(self, *inputs: Tensor, **named: Tensor) -> dict[str, Tensor]:
        """Run the network on tensors and return its outputs by name.

        Args:
            inputs: Tensors on the CPU in the order of the network's arguments.
            named: Or by the names that `inspect` lists.

        Raises:
            ValueError: Wrong names, number or dtypes of inputs, or a shape the network refuses.
        """
        return self._native.run(self._by_name(inputs, named))

    def plan(self, *inputs: Tensor, **named: Tensor) -> Plan:
        """Tell what runs where for such inputs; calls the network some times.

        Args:
            inputs: As for `run`.
            named: As for `run`.

        Returns:
            "whole": whether LibTorch takes no part in the network; "steps": name and milliseconds
            (median) of every step that convship's kernels take; "left_to_libtorch": operators
            that LibTorch runs, and how many of each.

        Raises:
            ValueError: As for `run`.
        """
        return self._native.plan(self._by_name(inputs, named))

    def _by_name(self, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> dict[str, Tensor]:
        if inputs:
            if self.manifest is None and len(inputs) > 1:
                raise ValueError("run: a plain TorchScript file takes its inputs by name")
            names = [spec.name for spec in self.manifest.inputs] if self.manifest else ["input"]
            positional = dict(zip(names, inputs, strict=False))
            if len(inputs) > len(names) or positional.keys() & named.keys():
                raise ValueError(
                    f"run: the network's inputs are {', '.join(names)}, each once; got "
                    f"{len(inputs)} by position and {', '.join(named) or 'none'} by name"
                )
            named = {**positional, **named}
        known = {spec.name for spec in self.manifest.inputs} if self.manifest else named.keys()
        if unknown := named.keys() - known:
            raise ValueError(
                f"run: the network's inputs are {', '.join(sorted(known))}; "
                f"got {', '.join(sorted(unknown))}"
            )
        return named

    def stages(self, image: str | Path | bytes) -> dict[str, Tensor]:
        """Return every intermediate result of one image.

        Returns:
            "pixels" uint8 [3, H, W], "preprocessed" float32 [1, C, S, S], "output.NAME" for each
            output of the network, "probabilities" float32 [1, classes].
        """
        data = image if isinstance(image, bytes) else read_image_file(image)
        return self._native.stages(data)

    def selftest(self) -> list[Check]:
        """Run the goldens in the file and compare every stage with its tolerance.

        Returns:
            Objects with `golden`, `stage`, `max_error`, `tolerance` and `passed`.
        """
        return self._native.selftest()
