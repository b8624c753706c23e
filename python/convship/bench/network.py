"""What is put on the ladder: a shipped file, a run's folder, or a network's name."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from convship.bench.network_case import NetworkCase
from convship.bundle import GOLDENS, MANIFEST, Manifest, read_extras
from convship.errors import ModelFileNotFoundError
from convship.nn import ConvPool2d
from convship.preprocess import Preprocess
from convship.scripting import script
from convship.verify import golden_files

__all__ = ["Network", "open_network", "parse_size"]

_CLASSES = 1000
_COLOURS = 3
_HALF = (0.5, 0.5, 0.5)


@dataclass
class Network:
    """A network as files, and what it is fed with.

    Attributes:
        title: What reports call it.
        file: The shipped or plain TorchScript file.
        plain: Whether it is the latter.
        module: The nn.Module, pickled; empty where there is none.
        fused: Whether the nn.Module calls our op itself.
        image: An encoded image, for files that take images; empty for others.
        rows: Inputs by name; the first size is that of as many images as are known.
        package: Whether the file is a .pt2, native code.
    """

    title: str
    file: Path
    plain: bool
    module: str = ""
    fused: bool = False
    image: str = ""
    rows: dict[str, NDArray[Any]] = field(default_factory=dict)
    package: bool = False

    def case(self, batch: int, folder: Path) -> NetworkCase:
        """Write the inputs of `batch` images; images that are known are used again in turn."""
        inputs = []
        for number, (name, rows) in enumerate(self.rows.items()):
            path = folder / f"batch-{batch}-{number}.npy"
            np.save(path, rows[np.arange(batch) % len(rows)])
            inputs.append((name, str(path)))
        return NetworkCase(
            f"batch {batch}",
            batch,
            str(self.file),
            self.plain,
            tuple(inputs),
            module=self.module,
            image=self.image,
            package=self.package,
        )


def open_network(
    model: str | Path,
    folder: Path,
    *,
    size: Sequence[int] | None = None,
    allow_plain: bool = False,
    image: str | Path | None = None,
) -> Network:
    """Make a network ready to be measured.

    Args:
        model: A shipped file; with `allow_plain` any TorchScript file; a run's folder; or a name
            that `create_model` knows, which gets random weights.
        folder: For what has to be written.
        size: Sizes of one image, without the batch. None: as the file says; 224 x 224 (or what
            the network was made for) for a name.
        allow_plain: Accept a TorchScript file that convship did not write. A model is a program:
            load only files whose origin you trust.
        image: JPEG or PNG for the way from bytes to classes. None: a golden of the file. With a
            name, the network is shipped with its preprocessing, and this image is its input.

    Raises:
        ModelFileError: The file is damaged or of another kind.
        ValueError: The size is not known, or an image was given for a file that takes none.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     network = open_network("lenet5", Path(folder))
        ...     network.case(4, Path(folder)).arrays()[0].shape
        (4, 3, 32, 32)
    """
    path = Path(model)
    if path.is_dir():
        network = _from_run(path, folder)
    elif not path.exists() and path.suffix == "":
        network = _from_name(str(model), folder, size, image)
    else:
        network = _from_file(path, allow_plain)
    if not network.plain:
        extras = read_extras(network.file)
        _read_goldens(network, extras, folder)
    if size is not None or not network.rows:
        if size is None:
            raise ValueError(
                f"bench: {path} is a plain TorchScript file, which does not say what it takes; "
                "give --size, as in --size 3x224x224"
            )
        name = next(iter(network.rows), "input")
        channels = network.rows[name].shape[1] if network.rows else _COLOURS
        network.rows = {name: _noise(size, channels)}
    if image is not None:
        if not network.image:
            raise ValueError(f"bench: {path} takes no images, so --image has no use")
        network.image = str(image)
    return network


def parse_size(text: str) -> tuple[int, ...]:
    """Return sizes of one image: "224" is a square, "240x320" leaves channels as they are.

    Raises:
        ValueError: It is anything else.

    Example:
        >>> parse_size("224"), parse_size("1x28x28")
        ((224, 224), (1, 28, 28))
    """
    parts = text.split("x")
    if not all(part.isdecimal() and 0 < int(part) < 100_000 for part in parts) or len(parts) > 3:
        raise ValueError(f"bench: size must be pixels as 224, 240x320 or 3x240x320, got '{text}'")
    sizes = tuple(map(int, parts))
    return sizes * 2 if len(sizes) == 1 else sizes


def _from_file(path: Path, allow_plain: bool) -> Network:
    if not path.exists():
        raise ModelFileNotFoundError(f"{path}: no such model file")
    plain = allow_plain and not _has_manifest(path)
    return Network(path.name, path, plain)


def _has_manifest(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/extra/{MANIFEST}") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return True  # read_extras says what is wrong with it


def _from_run(path: Path, folder: Path) -> Network:
    from convship.export import export_run
    from convship.runs import load_run

    file = folder / "run.pt"
    export_run(path, file)
    module = load_run(path).model
    return Network(path.name, file, False, _pickle(module, folder), _calls_our_op(module))


def _from_name(
    name: str, folder: Path, size: Sequence[int] | None, image: str | Path | None
) -> Network:
    from convship.models import check_name, create_model

    check_name(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same network each time
        own = name in ("lenet5", "cifarnet")
        module = create_model(name, 10 if own else _CLASSES).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    file = folder / f"{name}.pt"
    network = Network(name, file, image is None, _pickle(module, folder), _calls_our_op(module))
    if image is not None:
        from convship.export import export_model

        preprocess = _preprocess(None if own else name, size)
        export_model(module, file, samples=[Path(image)], preprocess=preprocess)
    else:
        script(module, (), "script").save(str(file))
        side = 32 if own else _preset(name).crop_size[0]
        network.rows = {"input": _noise(size or (side, side), _COLOURS)}
    return network


def _preset(name: str) -> Any:
    """Return the transforms that torchvision's network was trained with."""
    from convship._torchvision import torchvision

    return torchvision.models.get_model_weights(name).DEFAULT.transforms()


def _preprocess(name: str | None, size: Sequence[int] | None) -> Preprocess:
    """Return a preset as ours, for another size with the same margin; None: our own networks'."""
    given = None if size is None else (size[-2], size[-1])
    if name is None:
        return Preprocess(given or 32, mean=_HALF, std=_HALF)
    preset = _preset(name)
    crop = preset.crop_size[0]
    height, width = given or (crop, crop)
    shorter = round(preset.resize_size[0] / crop * max(height, width))
    return Preprocess((height, width), resize=shorter, mean=preset.mean, std=preset.std)


def _calls_our_op(module: nn.Module) -> bool:
    return any(isinstance(layer, ConvPool2d) for layer in module.modules())


def _pickle(module: nn.Module, folder: Path) -> str:
    path = folder / "module.pickle"
    torch.save(module, path)
    return str(path)


def _read_goldens(network: Network, extras: dict[str, bytes], folder: Path) -> None:
    """Feed the network what it was exported with: real inputs, not noise."""
    manifest = Manifest.model_validate_json(extras[MANIFEST])
    goldens = load_safetensors(extras[GOLDENS])
    network.package = manifest.compiled_for is not None
    classifier = manifest.task == "classification"
    if classifier:
        network.image = str(golden_files(goldens, 1, folder)[0])
    for spec in manifest.inputs:
        key = "preprocessed" if classifier else f"input.{spec.name}"
        values = [goldens[f"{index}.{key}"] for index in range(manifest.goldens)]
        alike = [value for value in values if _sizes(value) == _sizes(values[0])]
        network.rows[spec.name] = torch.cat(alike).numpy()


def _sizes(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape[1:])


def _noise(size: Sequence[int], channels: int) -> NDArray[np.float32]:
    shape = (1, *((channels,) if len(size) == 2 else ()), *size)
    return np.random.default_rng(0).standard_normal(shape, np.float32)
