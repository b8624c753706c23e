"""Training: a data set and a network in, a folder with checkpoints and curves out.

The loop itself is `_train_epoch`. Everything random in an epoch (order, augmentation, dropout)
follows from the seed and the epoch's number, so an epoch that was interrupted can be repeated
exactly: `train(config, resume=True)` ends with the same bits as a run that was never killed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convship._torchvision import torchvision as _torchvision  # noqa: F401  (torchmetrics needs it)
from convship.augment import Augment
from convship.batches import CachedImages, ImageStore, batches, store
from convship.checkpoint import load_checkpoint, save_checkpoint, save_file
from convship.config import TrainConfig, make_preprocess, resolve, write_config
from convship.data import DataSet, load_data
from convship.errors import ModelFileError
from convship.evaluate import check_outputs, evaluate
from convship.models import create_model
from convship.plots import plot_curves
from convship.preprocess import Preprocess
from convship.progress import Progress
from convship.runs import CUSTOM_MODEL, Run, load_run, make_folder, summarize, write_samples

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run", "load_run", "overfitting", "train"]

_METER_IMAGES = 1024  # metrics look at this many images at once; per step they would cost more
_STATISTICS_IMAGES = 10_000  # enough for mean and std to 3 digits
# What may differ between a run and its continuation: nothing that changes the result.
_FREE_ON_RESUME = {"out", "workers", "cache", "tensorboard"}


@dataclass
class _Session:
    """All that a training holds; the functions below pass it around."""

    fabric: Fabric
    config: TrainConfig
    labels: list[str]
    preprocess: Preprocess
    train_images: ImageStore
    test_images: ImageStore
    network: nn.Module  # as the caller knows it
    model: nn.Module  # the same, wrapped for precision and DDP
    optimizer: torch.optim.Optimizer
    progress: Progress
    memory_format: torch.memory_format
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    config: TrainConfig,
    *,
    model: nn.Module | None = None,
    data: DataSet | None = None,
    resume: bool = False,
    verbose: bool = True,
) -> Run:
    """Train a network and return the run, with the weights of its best epoch.

    The folder `config.out` then holds ``best.ckpt``, ``last.ckpt``, ``metrics.csv``,
    ``curves.png``, ``config.toml``, ``summary.json`` and ``samples/``. The best epoch is the one
    with the highest test accuracy, so that figure flatters a little; ``summary.json`` gives the
    last epoch's too.

    Args:
        config: What to do; gaps are filled by its recipe.
        model: A network of your own, logits [N, classes], instead of `config.model`.
        data: A data set of your own instead of `config.data`.
        resume: Continue the run in `config.out` where it was stopped or killed. The other
            settings must be those of the run.
        verbose: Whether progress is shown on stderr.

    Raises:
        ValueError: Unknown names, settings that do not fit, a run that exists already, a loss that
            is not finite.
        FileNotFoundError: The data's folder does not exist.
        ImageError: An image cannot be decoded.
        ModelFileError: The checkpoint to resume from is damaged.
        OSError: The disk is full or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train(TrainConfig(data="fake", epochs=1, out=folder + "/a"), verbose=False)
        >>> sorted(run.summary)[:3]
        ['best_epoch', 'classes', 'data']
    """
    if data is None:
        data = load_data(config.data, held_out=config.held_out)
    names = {"data": data.name} | ({} if model is None else {"model": CUSTOM_MODEL})
    config = resolve(config.model_copy(update=names), data)
    checkpoint = _find_checkpoint(config, resume)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads or 1)
    try:
        with Progress(config.epochs or 1, enabled=verbose and _rank() == 0) as progress:
            session = _prepare(config, data, model, progress)
            if checkpoint is not None:
                _restore(session, checkpoint)
            if _rank() == 0:
                _start_folder(session, data)
            _run_epochs(session)
            return _finish(session)
    finally:
        torch.set_num_threads(threads_before)


def _find_checkpoint(config: TrainConfig, resume: bool) -> dict[str, Any] | None:
    file = config.out / "last.ckpt"
    if not file.exists():
        return None  # with resume too: it was killed in its first epoch
    if not resume:
        raise ValueError(
            f"train: {config.out} already holds a run; resume it (--resume), remove it, "
            "or choose another folder"
        )
    content = load_checkpoint(file)
    stored, wanted = content["config"], json.loads(config.model_dump_json())
    for name in wanted:
        # Mean and std may be the images' own, measured only later.
        measured = name in ("mean", "std") and wanted[name] is None
        if name not in _FREE_ON_RESUME and not measured and stored.get(name) != wanted[name]:
            raise ValueError(
                f"train: to resume {config.out}, {name} must stay {stored.get(name)!r}, "
                f"got {wanted[name]!r}"
            )
    return content


def _prepare(
    config: TrainConfig, data: DataSet, model: nn.Module | None, progress: Progress
) -> _Session:
    fabric = _launch_fabric(config)
    start = time.perf_counter()
    resize_only = make_preprocess(config)
    train_images = store(data.train, resize_only, cache=config.cache, workers=config.workers)
    test_images = store(data.test, resize_only, cache=config.cache, workers=config.workers)
    if config.mean is None or config.std is None:
        mean, std = _statistics(train_images)
        missing = {"mean": config.mean or mean, "std": config.std or std}
        config = config.model_copy(update=missing)
    seconds = time.perf_counter() - start
    progress.say(
        f"data: {data.name}, {len(data.train)} training and {len(data.test)} test images, "
        f"{len(data.labels)} classes ({seconds:.1f} s)"
    )
    torch.manual_seed(config.seed)
    if model is None:
        channels = config.channels or 3
        model = create_model(config.model, len(data.labels), channels, config.weights)
    # Convolutions of many channels are faster so; LeNet's few channels are not.
    is_lenet = config.model == "lenet5"
    memory_format = torch.contiguous_format if is_lenet else torch.channels_last
    model = model.to(memory_format=memory_format)
    preprocess = make_preprocess(config)
    wrapped, optimizer = fabric.setup(model, _optimizer(model, config))
    session = _Session(
        fabric, config, data.labels, preprocess.to(fabric.device), train_images, test_images,
        model, wrapped, optimizer, progress, memory_format,
    )  # fmt: skip
    _check_model(session)
    return session


def _launch_fabric(config: TrainConfig) -> Fabric:
    from lightning_fabric import Fabric

    # torchrun says how many processes there are; without it there is one.
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("train: device cuda was asked for, but torch sees no GPU")
    precision: Any = "32-true" if config.precision == "32" else config.precision
    fabric = Fabric(
        accelerator="cpu" if accelerator == "auto" else accelerator,
        devices=per_node,
        num_nodes=world // per_node,
        strategy="ddp" if world > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _statistics(images: ImageStore) -> tuple[list[float], list[float]]:
    """Return mean and std per channel of training images, in units of [0, 1]."""
    count = len(images.targets)
    order = torch.arange(0, count, max(1, count // _STATISTICS_IMAGES))
    total = square = torch.zeros(())
    pixels = 0
    for block, _ in images.blocks(order, 256):
        values = block.double() / 255
        total = total + values.sum((0, 2, 3))
        square = square + values.square().sum((0, 2, 3))
        pixels += values.numel() // values.size(1)
    mean = total / pixels
    std = (square / pixels - mean.square()).clamp(min=1e-4).sqrt()
    return [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in std.tolist()]


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    # Biases and the scales of batch norm are not decayed.
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr = config.lr or 0.001
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    momentum = config.momentum or 0.0
    nesterov = bool(config.nesterov) and momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)


def _check_model(session: _Session) -> None:
    order = torch.arange(min(2, len(session.test_images.targets)))
    inputs, _ = next(_batches(session, session.test_images, order, len(order)))
    session.network.eval()
    with torch.inference_mode(), session.fabric.autocast():
        check_outputs(session.network(inputs), len(session.labels))


def _restore(session: _Session, content: dict[str, Any]) -> None:
    file = session.config.out / "last.ckpt"
    if content["labels"] != session.labels:
        raise ModelFileError(f"{file}: was trained on other classes: {content['labels']}")
    try:
        session.network.load_state_dict(content["model"])
        session.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"{file}: does not fit the network to train") from error
    session.history = content["history"]
    session.progress.say(f"resumed after epoch {content['epoch']}")


def _start_folder(session: _Session, data: DataSet) -> None:
    out = session.config.out
    make_folder(out)
    for leftover in out.glob(".*.tmp"):  # of a process that was killed while writing
        leftover.unlink(missing_ok=True)
    save_file(out / "config.toml", write_config(session.config).encode())
    write_samples(data, out / "samples")


def _run_epochs(session: _Session) -> None:
    config, history = session.config, session.history
    log = _tensorboard(config) if config.tensorboard and _rank() == 0 else None
    for epoch in range(len(history) + 1, (config.epochs or 1) + 1):
        if _has_stalled(config, history):
            session.progress.say(f"stopped early: no better epoch for {config.early_stopping}")
            break
        start = time.perf_counter()
        train_loss, train_accuracy, lr = _train_epoch(session, epoch)
        train_seconds = time.perf_counter() - start
        test_loss, test_accuracy = _test_epoch(session)
        row = {
            "epoch": epoch,
            "lr": lr,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "train_seconds": round(train_seconds, 3),
            "seconds": round(time.perf_counter() - start, 3),
        }
        if not math.isfinite(train_loss):
            raise ValueError(
                f"train: the loss became {train_loss} in epoch {epoch}; lower lr ({config.lr})"
            )
        history.append(row)
        if _rank() == 0:
            _save_epoch(session)
            for name in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
                if log is not None:
                    log.add_scalar(name.replace("_", "/"), row[name], epoch)
        session.progress.say(
            f"epoch {epoch}/{config.epochs}: train loss {train_loss:.4f} accuracy "
            f"{100 * train_accuracy:.2f} %, test loss {test_loss:.4f} accuracy "
            f"{100 * test_accuracy:.2f} % ({row['seconds']:.1f} s)"
        )
    if log is not None:
        log.close()


def _train_epoch(session: _Session, epoch: int) -> tuple[float, float, float]:
    """Train one epoch; return loss, accuracy and the last learning rate."""
    config, fabric = session.config, session.fabric
    model, optimizer = session.model, session.optimizer
    loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing or 0.0)
    generator = _epoch_generator(config.seed, epoch)
    order = _epoch_order(session, generator)
    steps = math.ceil(len(order) / (config.batch_size or 1))
    schedule = _schedule(config, steps)
    meter = _Meter(session)
    model.train()
    session.progress.start_epoch(epoch, steps)
    augment = Augment(
        bool(config.flip), config.shift or 0, config.rotate or 0.0, config.scale or 0.0
    )
    for step, (inputs, targets) in enumerate(
        _batches(session, session.train_images, order, config.batch_size or 1, augment, generator)
    ):
        if schedule is not None:
            rate = schedule((epoch - 1) * steps + step)
            for group in optimizer.param_groups:
                group["lr"] = rate
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        fabric.backward(loss)
        optimizer.step()
        meter.add(outputs.detach(), targets)
        session.progress.step()
    return (*meter.compute(), float(optimizer.param_groups[0]["lr"]))


def _epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Seed all that is random in `epoch`; dropout draws from torch's own generators."""
    mixed = (seed * 1_000_003 + epoch) * 7919
    torch.manual_seed(mixed + _rank())
    return torch.Generator().manual_seed(mixed)


def _epoch_order(session: _Session, generator: torch.Generator) -> Tensor:
    """Return this process's share of a new order of the training images."""
    order = torch.randperm(len(session.train_images.targets), generator=generator)
    world = session.fabric.world_size
    if world == 1:
        return order
    share = order[: len(order) // world * world][_rank() :: world]
    generator.manual_seed(generator.initial_seed() + 1 + _rank())  # own augmentation from here
    return share


def _schedule(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float] | None:
    """Return the learning rate as a function of the step, None where it is constant.

    A function of the step alone has no state that a checkpoint could miss.
    """
    peak = config.lr or 0.001
    total = steps_per_epoch * (config.epochs or 1)
    if config.schedule == "one-cycle":
        rise = 0.25 * total
        return lambda step: peak * min((step + 1) / rise, (total - step) / (total - rise))
    if config.schedule == "cosine":
        return lambda step: peak * 0.5 * (1 + math.cos(math.pi * step / total))
    if config.schedule == "step":
        return lambda step: peak * 0.1 ** ((2 * step >= total) + (4 * step >= 3 * total))
    return None


def _test_epoch(session: _Session) -> tuple[float, float]:
    """Return loss and accuracy on the test images, in the precision of the training."""
    rank, world = _rank(), session.fabric.world_size
    if world > 1:
        for buffer in session.network.buffers():  # each process has its own batch statistics
            torch.distributed.broadcast(buffer, 0)
    order = torch.arange(rank, len(session.test_images.targets), world)
    meter = _Meter(session)
    session.network.eval()
    with torch.inference_mode(), session.fabric.autocast():
        for inputs, targets in _batches(session, session.test_images, order, 256):
            meter.add(session.network(inputs).float(), targets)
    return meter.compute()


def _batches(
    session: _Session,
    images: ImageStore,
    order: Tensor,
    batch_size: int,
    augment: Augment | None = None,
    generator: torch.Generator | None = None,
) -> Any:
    return batches(
        images,
        order,
        batch_size,
        session.preprocess,
        augment=augment,
        generator=generator,
        device=session.fabric.device,
        memory_format=session.memory_format,
    )


class _Meter:
    """Mean cross-entropy and accuracy, over all processes."""

    def __init__(self, session: _Session) -> None:
        from torchmetrics.aggregation import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        device = session.fabric.device
        self.loss = MeanMetric().to(device)
        self.accuracy = MulticlassAccuracy(len(session.labels), average="micro").to(device)
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.count = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        self.pending.append((outputs, targets))
        self.count += len(targets)
        if self.count >= _METER_IMAGES:
            self._update()

    def compute(self) -> tuple[float, float]:
        if self.pending:
            self._update()
        return float(self.loss.compute()), float(self.accuracy.compute())

    def _update(self) -> None:
        outputs, targets = (torch.cat(parts) for parts in zip(*self.pending, strict=True))
        # Without label smoothing, so that training and test can be compared.
        self.loss.update(nn.functional.cross_entropy(outputs, targets), len(targets))
        self.accuracy.update(outputs, targets)
        self.pending, self.count = [], 0


def _best_epoch(history: list[dict[str, Any]]) -> int:
    return 1 + max(range(len(history)), key=lambda index: history[index]["test_accuracy"])


def _has_stalled(config: TrainConfig, history: list[dict[str, Any]]) -> bool:
    patience = config.early_stopping
    return bool(patience and history) and len(history) - _best_epoch(history) >= patience


def _save_epoch(session: _Session) -> None:
    config, history = session.config, session.history
    content = {
        "epoch": len(history),
        "model": session.network.state_dict(),
        "history": history,
        "labels": session.labels,
        "preprocess": session.preprocess.config(),
        "config": json.loads(config.model_dump_json()),
    }
    # Best first: a kill between the two repeats this epoch, and writes the same best again.
    if _best_epoch(history) == len(history):
        save_checkpoint(config.out / "best.ckpt", content)
    optimizer = session.optimizer.state_dict()
    save_checkpoint(config.out / "last.ckpt", {**content, "optimizer": optimizer})
    _write_report(config.out, history)


def _write_report(out: Path, history: list[dict[str, Any]]) -> None:
    """Write metrics.csv and curves.png anew from the history, so that no row is lost or doubled."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    save_file(out / "metrics.csv", text.getvalue().encode())
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
        return f"over-fitting: accuracy is {gap:.1f} points higher in training than on test; {remedy}"
    return f"no over-fitting: test loss {losses[-1]:.3f}, training loss {last['train_loss']:.3f}"


def _finish(session: _Session) -> Run:
    config, history, out = session.config, session.history, session.config.out
    session.fabric.barrier()
    best = _best_epoch(history)
    load_model = session.network if config.model == CUSTOM_MODEL else None
    if _rank() == 0:
        run = load_run(out, model=_cpu_copy(load_model))
        result = evaluate(run.model, session.test_images, run.preprocess, run.labels)
        summary = summarize(config, session.labels, history, best) | {
            "best_epoch": best,
            "train_images": len(session.train_images.targets),
            "test_images": result.count,
            "test_accuracy": result.top1,  # in float32, which is what is exported
            "test_loss": result.loss,
            "last_test_accuracy": history[-1]["test_accuracy"],
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "train_seconds": round(sum(row["train_seconds"] for row in history), 3),
            "seconds": round(sum(row["seconds"] for row in history), 3),
        }
        save_file(out / "summary.json", json.dumps(summary, indent=2).encode())
        _write_report(out, history)
        session.progress.say(overfitting(history))
    session.fabric.barrier()
    return load_run(out, model=_cpu_copy(load_model))


def _cpu_copy(model: nn.Module | None) -> nn.Module | None:
    import copy

    return None if model is None else copy.deepcopy(model).cpu()


def _tensorboard(config: TrainConfig) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "train: TensorBoard is not installed; pip install 'convship[tensorboard]'"
        ) from error
    return SummaryWriter(str(config.out / "tensorboard"))
