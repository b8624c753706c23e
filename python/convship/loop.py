"""The training loop, and all that happens once per epoch.

Everything random in an epoch (order, augmentation, dropout) follows from the seed and the epoch's
number, so an epoch that was interrupted can be repeated exactly. Several processes divide each
batch, so that a run learns the same, however many there are.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convship._torchvision import torchvision as _torchvision  # noqa: F401  (torchmetrics needs it)
from convship.augment import Augment
from convship.batches import ImageStore, batches
from convship.config import TrainConfig
from convship.preprocess import Preprocess
from convship.progress import Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_METER_IMAGES = 1024  # metrics look at this many images at once; per step they would cost more


@dataclass
class Session:
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


def train_epoch(session: Session, epoch: int) -> tuple[float, float, float]:
    """Train one epoch; return loss, accuracy and the last learning rate."""
    config, fabric = session.config, session.fabric
    model, optimizer = session.model, session.optimizer
    loss_function = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing or 0.0)
    generator = _epoch_generator(config.seed, epoch)
    order = torch.randperm(len(session.train_images.targets), generator=generator)
    world = fabric.world_size
    steps = math.ceil(len(order) // world * world / (config.batch_size or 1))
    schedule = _schedule(config, steps)
    full_size = (session.preprocess.height, session.preprocess.width)
    size = _input_size(config, full_size, epoch)
    meter = _Meter(session)
    model.train()
    session.progress.start_epoch(epoch, steps)
    augment = Augment(
        bool(config.flip), config.shift or 0, config.rotate or 0.0, config.scale or 0.0
    )
    for step, (inputs, targets) in enumerate(
        session_batches(
            session,
            session.train_images,
            order,
            config.batch_size or 1,
            augment=augment,
            generator=generator,
            share=(rank(), world),
        )
    ):
        if schedule is not None:
            rate = schedule((epoch - 1) * steps + step)
            for group in optimizer.param_groups:
                group["lr"] = rate
        if size != full_size:
            inputs = nn.functional.interpolate(inputs, size, mode="bilinear")
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, targets)
        fabric.backward(loss)
        optimizer.step()
        meter.add(outputs.detach(), targets)
        session.progress.step()
    return (*meter.compute(), float(optimizer.param_groups[0]["lr"]))


def _epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Seed all that is random in `epoch`.

    Dropout draws from torch's own generators, in every process other numbers; the order of the
    images and their augmentation are the same in all.
    """
    mixed = (seed * 1_000_003 + epoch) * 7919
    torch.manual_seed(mixed + rank())
    return torch.Generator().manual_seed(mixed)


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


def _input_size(config: TrainConfig, full: tuple[int, int], epoch: int) -> tuple[int, int]:
    """Return height and width of the images of `epoch`, in multiples of 4 unless they are whole."""
    start = config.start_size or 1.0
    grown = (epoch - 1) / (0.7 * (config.epochs or 1))
    factor = min(1.0, start + (1 - start) * grown)
    if factor == 1.0:
        return full
    height, width = (max(4, int(side * factor) // 4 * 4) for side in full)
    return height, width


def test_epoch(session: Session) -> tuple[float, float]:
    """Return loss and accuracy on the test images, in the precision of the training."""
    world = session.fabric.world_size
    if world > 1:
        for buffer in session.network.buffers():  # each process has its own batch statistics
            torch.distributed.broadcast(buffer, 0)
    order = torch.arange(rank(), len(session.test_images.targets), world)
    meter = _Meter(session)
    session.network.eval()
    with torch.inference_mode(), session.fabric.autocast():
        for inputs, targets in session_batches(session, session.test_images, order, 256):
            meter.add(session.network(inputs).float(), targets)
    return meter.compute()


def session_batches(
    session: Session, images: ImageStore, order: Tensor, batch_size: int, **options: Any
) -> Any:
    return batches(
        images,
        order,
        batch_size,
        session.preprocess,
        device=session.fabric.device,
        memory_format=session.memory_format,
        **options,
    )


class _Meter:
    """Mean cross-entropy and accuracy, over all processes."""

    def __init__(self, session: Session) -> None:
        from torchmetrics.aggregation import MeanMetric
        from torchmetrics.classification import MulticlassAccuracy

        device = session.fabric.device
        # A nan must show. (torchmetrics 1.9 drops weights with "disable", so none are given.)
        self.loss = MeanMetric(nan_strategy="disable").to(device)
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
        self.loss.update(nn.functional.cross_entropy(outputs, targets, reduction="none"))
        self.accuracy.update(outputs, targets)
        self.pending, self.count = [], 0


def rank() -> int:
    """Return the number of this process under torchrun; 0 without it."""
    return int(os.environ.get("RANK", "0"))
