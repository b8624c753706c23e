"""What the epochs so far say: metrics.csv, curves.png, the best epoch, over-fitting in words."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from convship.atomic import write_atomically
from convship.config import TrainConfig
from convship.plots import plot_curves


def write_report(out: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.csv and curves.png anew from the history, so that no row is lost or doubled."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    write_atomically(out / "metrics.csv", text.getvalue().encode())
    plot_curves(history, out / "curves.png")


def overfitting(history: list[dict[str, Any]]) -> str:
    """Say in words whether the curves show over-fitting.

    Args:
        history: One row per epoch, as in ``metrics.csv``.

    Example:
        >>> rows = [{"train_loss": 1.0 / n, "test_loss": loss, "train_accuracy": 0.9,
        ...          "test_accuracy": 0.8} for n, loss in ((1, 0.9), (2, 0.6), (3, 0.9))]
        >>> overfitting(rows)[:40]
        'over-fitting: the test loss was lowest i'
    """
    losses = [row["test_loss"] for row in history]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    last = history[-1]
    gap = 100 * (last["train_accuracy"] - last["test_accuracy"])
    remedy = "more data, augmentation, weight decay or fewer epochs would help"
    has_risen = losses[-1] > losses[lowest] + max(0.02, 0.1 * losses[lowest])
    if has_risen and last["train_loss"] < history[lowest]["train_loss"]:
        return (
            f"over-fitting: the test loss was lowest in epoch {lowest + 1} "
            f"({losses[lowest]:.3f}) and rose to {losses[-1]:.3f} while the training loss fell; "
            + remedy
        )
    if gap > 10:
        return (
            f"over-fitting: accuracy is {gap:.1f} points higher in training than on test; {remedy}"
        )
    return f"no over-fitting: test loss {losses[-1]:.3f}, training loss {last['train_loss']:.3f}"


def best_epoch(history: list[dict[str, Any]]) -> int:
    """Return the epoch of the highest test accuracy; of equals, that of the lowest test loss."""
    keys = [(row["test_accuracy"], -row["test_loss"]) for row in history]
    return 1 + max(range(len(keys)), key=keys.__getitem__)


def has_stalled(config: TrainConfig, history: list[dict[str, Any]]) -> bool:
    patience = config.early_stopping
    return bool(patience and history) and len(history) - best_epoch(history) >= patience
