"""Pictures of a run: learning curves, confusion matrix, strip of labelled samples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from convship.atomic import write_atomically
from convship.data import DataSet, Images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_confusion", "plot_curves", "plot_samples", "spread_over_classes"]


def plot_curves(history: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draw loss and accuracy of both parts over the epochs, as PNG.

    Args:
        history: One row per epoch, as in ``metrics.csv``.
        path: Where the picture goes.

    Example:
        >>> import tempfile
        >>> row = {"epoch": 1, "train_loss": 1.0, "test_loss": 1.1,
        ...        "train_accuracy": 0.5, "test_accuracy": 0.4}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_curves([row], Path(folder) / "curves.png")
    """
    figure = _figure(9.0, 3.6)
    epochs = [row["epoch"] for row in history]
    for axis, name, unit in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("cross-entropy", "%"), strict=True
    ):
        factor = 100 if name == "accuracy" else 1
        for part in ("train", "test"):
            values = [row[f"{part}_{name}"] * factor for row in history]
            axis.plot(epochs, values, marker=".", label=part)
        axis.set(xlabel="epoch", ylabel=f"{name} ({unit})")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, path)


def plot_confusion(confusion: Tensor, labels: Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix [classes, classes], rows the truth, as PNG.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_confusion(torch.eye(2), ["cat", "dog"], Path(folder) / "confusion.png")
    """
    count = len(labels)
    side = min(20.0, 2.5 + 0.45 * count)
    figure = _figure(side, side)
    axis = figure.subplots()
    share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axis.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true")
    if count <= 40:  # beyond that, names and numbers only overlap
        axis.set_xticks(range(count), labels, rotation=90)
        axis.set_yticks(range(count), labels)
    if count <= 20:
        for row in range(count):
            for column in range(count):
                color = "white" if share[row, column] > 0.5 else "black"
                text = str(int(confusion[row, column]))
                axis.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    _save(figure, path)


def plot_samples(data: DataSet, path: str | Path, count: int = 16) -> None:
    """Draw a strip of `count` labelled test images, spread over the classes, as PNG.

    Raises:
        ImageError: An image cannot be decoded.

    Example:
        >>> import tempfile
        >>> from convship.data import load_data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_samples(load_data("digits"), Path(folder) / "strip.png", count=4)
    """
    chosen = spread_over_classes(data.test, count)
    columns = min(8, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = _figure(1.2 * columns, 1.45 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, index in zip(axes, chosen, strict=False):
        axis.imshow(data.test.read(index).permute(1, 2, 0).numpy())
        axis.set_title(data.labels[int(data.test.targets[index])], fontsize=8)
    _save(figure, path)


def spread_over_classes(images: Images, count: int) -> list[int]:
    """Return up to `count` indices that cover as many classes as possible, the same each time.

    Example:
        >>> from convship.data import load_data
        >>> digits = load_data("digits").test
        >>> digits.targets[spread_over_classes(digits, 10)].tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    classes = images.targets.unique().tolist()
    # Of many classes, evenly spaced ones; of few, several images each.
    if count < len(classes):
        classes = [classes[index * len(classes) // count] for index in range(count)]
    members = [(images.targets == label).nonzero().flatten().tolist() for label in classes]
    rounds = max(len(one) for one in members)
    ordered = [one[turn] for turn in range(rounds) for one in members if turn < len(one)]
    return ordered[:count]


def _figure(width: float, height: float) -> Figure:
    # Not pyplot: it needs no display, and leaves the caller's figures and backend alone.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: str | Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())
