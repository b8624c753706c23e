"""The folder that a training leaves: what is in it, and how to get a network back out."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import nn

from convship.atomic import write_atomically
from convship.checkpoint import load_checkpoint
from convship.config import TrainConfig
from convship.data import DataSet
from convship.errors import ImageError, ModelFileError, ModelFileNotFoundError
from convship.models import create_model
from convship.plots import spread_over_classes
from convship.preprocess import Preprocess

__all__ = ["CUSTOM_MODEL", "SAMPLE_COUNT", "Run", "load_run", "summarize", "write_samples"]

CUSTOM_MODEL = "custom"  # the name of a network that came from the caller
SAMPLE_COUNT = 8


@dataclass
class Run:
    """A trained network and all that is needed to use it.

    Attributes:
        path: The folder of the run.
        model: The network, float32, on the CPU, in eval mode.
        preprocess: From images to its input.
        labels: Name of each class.
        config: The effective settings.
        summary: What was trained and how well; plain values.
        samples: A few test images, as files.
    """

    path: Path
    model: nn.Module
    preprocess: Preprocess
    labels: list[str]
    config: TrainConfig
    summary: dict[str, Any]
    samples: list[Path]


def load_run(
    path: str | Path,
    which: str = "best",
    model: nn.Module | None = None,
) -> Run:
    """Return the run in folder `path`.

    Args:
        path: The folder that `train` wrote.
        which: The checkpoint with the best test accuracy, or the last one.
        model: A network to load the weights into, for runs that trained one of your own.

    Raises:
        ValueError: `which` is neither "best" nor "last".
        ModelFileNotFoundError: There is no such run, or no checkpoint in it yet.
        ModelFileError: The checkpoint is damaged or does not fit the network.

    Example:
        >>> load_run("missing-run")
        Traceback (most recent call last):
        convship.errors.ModelFileNotFoundError: missing-run: no run here; convship train makes one
    """
    path = Path(path)
    if which not in ("best", "last"):
        raise ValueError(f"load_run: which must be best or last, got {which!r}")
    if path.is_file():
        raise ModelFileError(f"{path}: a file, not a run; name the folder that train wrote")
    file = path / f"{which}.ckpt"
    if not file.exists():
        raise ModelFileNotFoundError(f"{path}: no run here; convship train makes one")
    content = load_checkpoint(file)
    try:
        config = TrainConfig(**content["config"])
        preprocess = Preprocess.from_config(content["preprocess"])
        labels = list(content["labels"])
        weights, epoch, history = content["model"], int(content["epoch"]), content["history"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{file}: not a whole checkpoint: {error!r}") from None
    network = _load_weights(model, weights, config, labels, preprocess, file)
    summary = summarize(config, labels, history, epoch)
    stored = path / "summary.json"
    if which == "best" and stored.exists():
        summary |= json.loads(stored.read_text(encoding="utf-8"))
    samples = sorted((path / "samples").glob("*.*"))
    return Run(path, network, preprocess, labels, config, summary, samples)


def _load_weights(
    model: nn.Module | None,
    weights: dict[str, Any],
    config: TrainConfig,
    labels: list[str],
    preprocess: Preprocess,
    file: Path,
) -> nn.Module:
    if model is None:
        if config.model == CUSTOM_MODEL:
            raise ValueError(
                f"{file}: trained a network of your own; load it in Python: load_run(path, model=)"
            )
        model = create_model(config.model, len(labels), preprocess.channels)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        # torch lists every tensor; the last line names one.
        detail = str(error).strip().splitlines()[-1].strip()
        raise ModelFileError(
            f"{file}: does not fit {config.model} with {len(labels)} classes: {detail}"
        ) from None
    return model.eval()


def summarize(
    config: TrainConfig, labels: list[str], history: list[dict[str, Any]], epoch: int
) -> dict[str, Any]:
    """Return what a checkpoint of `epoch` is, as plain values.

    Example:
        >>> summarize(TrainConfig(), ["a", "b"], [{"epoch": 1, "test_accuracy": 0.5}], 1)["epoch"]
        1
    """
    row = history[epoch - 1]
    return {
        "data": config.data,
        "model": config.model,
        "recipe": config.recipe,
        "classes": len(labels),
        "epochs": len(history),
        "epoch": epoch,
        "test_accuracy": row["test_accuracy"],
        "seed": config.seed,
        "precision": config.precision,
    }


def write_samples(data: DataSet, folder: Path) -> None:
    """Write about 8 test images to `folder`: files as they are, others as PNG.

    Example:
        >>> import tempfile
        >>> from convship.data import load_data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_samples(load_data("digits"), Path(folder) / "samples")
        ...     sorted(file.name for file in (Path(folder) / "samples").iterdir())[:2]
        ['0_0.png', '1_1.png']
    """
    make_folder(folder)
    for number, index in enumerate(spread_over_classes(data.test, SAMPLE_COUNT)):
        label = re.sub(r"[^\w-]+", "_", data.labels[int(data.test.targets[index])])
        file = data.test.file(index)
        if file is not None:
            suffix = file.suffix.lower()
            try:
                content = file.read_bytes()
            except OSError as error:
                raise ImageError(f"{file}: cannot be read: {error.strerror}") from None
        else:
            suffix, content = ".png", _png(data, index)
        write_atomically(folder / f"{number}_{label}{suffix}", content)


def _png(data: DataSet, index: int) -> bytes:
    image = Image.fromarray(data.test.read(index).permute(1, 2, 0).numpy())
    buffer = io.BytesIO()
    (image.convert("L") if data.is_gray else image).save(buffer, "PNG")
    return buffer.getvalue()


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents.

    Raises:
        OSError: It cannot be created; the message says why.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     make_folder(Path(parent) / "runs" / "a")
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: cannot be created: {error.strerror}") from error
