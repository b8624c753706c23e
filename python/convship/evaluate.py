"""How good a network is: top-1, top-5, per class, and which classes it confuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convship._torchvision import torchvision as _torchvision  # noqa: F401  (torchmetrics needs it)
from convship.batches import ImageStore, batches, store
from convship.data import DataSet, FileImages, Images, load_data
from convship.plots import plot_confusion
from convship.preprocess import Preprocess
from convship.runs import Run
from convship.scripting import without_deprecation

__all__ = ["Evaluation", "evaluate", "evaluate_run"]

_BATCH = 256


@dataclass
class Evaluation:
    """Result of `evaluate`.

    Attributes:
        labels: Name of each class.
        confusion: int64 [classes, classes], counts; rows the truth, columns the prediction.
        loss: Mean cross-entropy.
        top1: Share of images whose best class is the true one, 0..1.
        top5: Share of images whose true class is among the best 5 (or all, of fewer classes).
    """

    labels: list[str]
    confusion: Tensor
    loss: float
    top1: float
    top5: float

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def per_class(self) -> list[tuple[str, int, float, float]]:
        """Label, number of images, recall and precision of each class."""
        right = self.confusion.diagonal().double()
        true, predicted = self.confusion.sum(1), self.confusion.sum(0)
        recall, precision = right / true.clamp(min=1), right / predicted.clamp(min=1)
        columns = (self.labels, true.tolist(), recall.tolist(), precision.tolist())
        return list(zip(*columns, strict=True))

    def table(self) -> str:
        """Return the figures as lines of text."""
        width = max(5, *(len(label) for label in self.labels))
        head = f"{'class':<{width}} {'images':>7} {'recall':>8} {'precision':>10}"
        rows = (
            f"{label:<{width}} {count:>7} {100 * recall:>6.1f} % {100 * precision:>8.1f} %"
            for label, count, recall, precision in self.per_class
        )
        total = (
            f"{self.count} images: top-1 {100 * self.top1:.2f} %, top-5 {100 * self.top5:.2f} %, "
            f"loss {self.loss:.4f}"
        )
        return "\n".join([head, *rows, total])

    def to_json(self) -> str:
        """Return the figures as one JSON object; shares are 0..1."""
        names = ("label", "images", "recall", "precision")
        content = {
            "images": self.count,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "classes": [dict(zip(names, row, strict=True)) for row in self.per_class],
            "confusion": self.confusion.tolist(),
        }
        return json.dumps(content)

    def plot(self, path: str | Path) -> None:
        """Draw the confusion matrix as PNG."""
        plot_confusion(self.confusion, self.labels, path)


def evaluate(
    model: nn.Module,
    images: Images | ImageStore,
    preprocess: Preprocess,
    labels: Sequence[str],
    *,
    device: str | torch.device = "cpu",
    workers: int | None = None,
) -> Evaluation:
    """Measure `model` on labelled images, in float32, as the exported file will compute.

    Args:
        model: Network of [N, C, S, S] to logits [N, classes].
        images: Labelled images, decoded here, or an `ImageStore` made with `preprocess`.
        preprocess: From images to its input.
        labels: Name of each class.
        device: Where to compute.
        workers: Processes that decode image files; None for one per CPU where it pays.

    Raises:
        ValueError: The number of outputs is not the number of labels.
        ImageError: An image cannot be decoded.

    Example:
        >>> from convship.data import load_data
        >>> from convship.models import LeNet5
        >>> digits = load_data("digits")
        >>> preprocess = Preprocess(32, channels=1, mean=[0.5], std=[0.5])
        >>> evaluate(LeNet5(), digits.test, preprocess, digits.labels).count
        359
    """
    from torchmetrics.aggregation import MeanMetric
    from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

    if isinstance(images, Images):
        images = store(images, preprocess, workers=workers)
    count = len(labels)
    device = torch.device(device)
    # Under torchrun too, this process alone sees all of the images.
    alone: Any = {"sync_on_compute": False}
    top1 = MulticlassAccuracy(count, average="micro", **alone).to(device)
    top5 = MulticlassAccuracy(count, average="micro", top_k=min(5, count), **alone).to(device)
    confusion = MulticlassConfusionMatrix(count, **alone).to(device)
    loss = MeanMetric(nan_strategy="disable", **alone).to(device)
    was_training = model.training
    model = model.to(device).eval()
    preprocess = preprocess.to(device)
    network = _as_shipped(model)
    order = torch.arange(len(images.targets))
    with torch.inference_mode():
        for inputs, targets in batches(images, order, _BATCH, preprocess, device=device):
            outputs = network(inputs)
            check_outputs(outputs, count)
            for metric in (top1, top5, confusion):
                metric.update(outputs, targets)
            loss.update(nn.functional.cross_entropy(outputs, targets, reduction="none"))
    model.train(was_training)
    matrix = confusion.compute().cpu()
    values = (float(metric.compute()) for metric in (loss, top1, top5))
    return Evaluation(list(labels), matrix, *values)


def _as_shipped(model: nn.Module) -> nn.Module:
    """Script the network, since that is what export writes; networks that cannot be stay eager."""
    try:
        with without_deprecation():
            scripted = torch.jit.script(model)
    except Exception:  # whatever the compiler dislikes; export will say what
        return model
    # Some of torchvision's return more than logits once scripted.
    returned = scripted.forward.schema.returns[0].type.kind()  # type: ignore[attr-defined]
    return scripted if returned == "TensorType" else model


def check_outputs(outputs: object, classes: int) -> None:
    """Raise ValueError unless `outputs` are logits [N, classes]."""
    shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.size(1) != classes:
        raise ValueError(
            f"model: outputs must be logits [N, {classes}], one per label, got {shape}"
        )


def evaluate_run(
    run: Run,
    data: DataSet | str | None = None,
    *,
    threads: int | None = None,
    workers: int | None = None,
) -> Evaluation:
    """Measure a run on the test part of `data`.

    Args:
        run: From `convship.train.load_run`.
        data: A data set or its name; by default the one it was trained with. A folder without
            ``test/`` that the run was not trained with is used whole.
        threads: CPU threads, from here on; None leaves torch's number.
        workers: As for `evaluate`.

    Raises:
        ValueError: The data has classes that the run does not know.

    Example:
        >>> import tempfile
        >>> from convship.config import TrainConfig
        >>> from convship.train import train
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train(TrainConfig(data="fake", epochs=1, out=folder + "/a"), verbose=False)
        >>> evaluate_run(run).count
        64
    """
    if threads is not None:
        torch.set_num_threads(threads)
    config = run.config
    name = data if isinstance(data, str) else config.data
    known = data if isinstance(data, DataSet) else None
    if known is None:
        known = load_data(name, held_out=config.held_out)
    unknown = [label for label in known.labels if label not in run.labels]
    if unknown:
        raise ValueError(
            f"data: {known.name} has classes that the model does not know: {', '.join(unknown)}; "
            f"it knows {', '.join(run.labels)}"
        )
    images = known.test
    if isinstance(data, str) and data != config.data and _is_one_folder(data):
        images = _joined(known)
    prepared = store(images, run.preprocess, workers=workers)
    # A folder may hold some of the classes only, and so in another order.
    renumbered = torch.tensor([run.labels.index(label) for label in known.labels])
    prepared.targets = renumbered[prepared.targets]
    return evaluate(run.model, prepared, run.preprocess, run.labels)


def _is_one_folder(name: str) -> bool:
    return name.startswith("folder:") and not (Path(name.removeprefix("folder:")) / "test").is_dir()


def _joined(data: DataSet) -> Images:
    assert isinstance(data.train, FileImages)
    assert isinstance(data.test, FileImages)
    targets = torch.cat([data.train.targets, data.test.targets])
    return FileImages(data.train.paths + data.test.paths, targets)
