"""Training: a data set and a network in, a folder with checkpoints and curves out.

The loop itself is `convship.loop.train_epoch`. `train(config, resume=True)` ends with the same bits
as a run that was never killed.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convship.atomic import remove_leftovers, write_atomically
from convship.batches import ImageStore, store
from convship.checkpoint import load_checkpoint, save_checkpoint
from convship.config import TrainConfig, make_preprocess, resolve, write_config
from convship.data import DataSet, load_data
from convship.errors import ModelFileError
from convship.evaluate import check_outputs, evaluate
from convship.extras import import_extra
from convship.history import best_epoch, has_stalled, overfitting, write_report
from convship.loop import Session, rank, session_batches, test_epoch, train_epoch
from convship.models import check_name, create_model
from convship.progress import Progress
from convship.runs import CUSTOM_MODEL, Run, load_run, make_folder, summarize, write_samples

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Run", "load_run", "overfitting", "train"]

_STATISTICS_IMAGES = 10_000  # enough for mean and std to 3 digits
# What may differ between a run and its continuation: nothing that changes the result.
_FREE_ON_RESUME = {"out", "workers", "cache", "tensorboard"}


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
        ValueError: Unknown names, settings that do not fit, a batch that the processes cannot
            divide, a run that exists already, a loss that is not finite.
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
    if model is None:
        check_name(config.model)
    if config.tensorboard:
        _import_tensorboard()
    if data is None:
        data = load_data(config.data, held_out=config.held_out)
    names = {"data": data.name} | ({} if model is None else {"model": CUSTOM_MODEL})
    config = resolve(config.model_copy(update=names), data)
    _check_batch(config)
    checkpoint = _find_checkpoint(config, resume)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads or 1)
    try:
        with Progress(config.epochs or 1, enabled=verbose and rank() == 0) as progress:
            session = _prepare(config, data, model, progress)
            if checkpoint is not None:
                _restore(session, checkpoint)
            if rank() == 0:
                _start_folder(session, data)
            _run_epochs(session)
            return _finish(session)
    finally:
        torch.set_num_threads(threads_before)


def _check_batch(config: TrainConfig) -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if (config.batch_size or 1) % world != 0:
        raise ValueError(
            f"train: {world} processes divide a batch, so batch_size must be a multiple of "
            f"{world}, got {config.batch_size}"
        )


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
) -> Session:
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
    model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
    preprocess = make_preprocess(config)
    wrapped, optimizer = fabric.setup(model, _optimizer(model, config))
    session = Session(
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
    _join_after_restart(world, "nccl" if accelerator == "cuda" else "gloo")
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


def _join_after_restart(world: int, backend: str) -> None:
    """Meet the other processes under names of this attempt.

    torchrun keeps one store of names over all restarts (pytorch issue 135712): by the old ones,
    processes would wait half an hour for those that were killed.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":  # each machine counts on its own
        raise ValueError(
            "train: restarts on several machines need TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the "
            "environment of every torchrun"
        )
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    distributed: Any = torch.distributed
    store = distributed.TCPStore(address, port, world, is_master=False)
    names = distributed.PrefixStore(f"attempt {attempt}", store)
    distributed.init_process_group(backend, store=names, rank=rank(), world_size=world)


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
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not config.weight_decay:  # one group: each costs a call per step
        groups = [{"params": parameters}]
    lr = config.lr or 0.001
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    momentum = config.momentum or 0.0
    nesterov = bool(config.nesterov) and momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)


def _check_model(session: Session) -> None:
    order = torch.arange(min(2, len(session.test_images.targets)))
    inputs, _ = next(session_batches(session, session.test_images, order, len(order)))
    session.network.eval()
    with torch.inference_mode(), session.fabric.autocast():
        check_outputs(session.network(inputs), len(session.labels))


def _restore(session: Session, content: dict[str, Any]) -> None:
    file = session.config.out / "last.ckpt"
    if content["labels"] != session.labels:
        raise ModelFileError(f"{file}: was trained on other classes: {content['labels']}")
    if content.get("data") != _fingerprint(session):
        raise ValueError(
            f"train: to resume {session.config.out}, the images must stay as they were; "
            "some were added, removed or moved to other classes"
        )
    try:
        session.network.load_state_dict(content["model"])
        session.optimizer.load_state_dict(content["optimizer"])
        session.fabric.strategy.precision.load_state_dict(content["precision"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{file}: does not fit the network to train") from error
    session.history = content["history"]
    session.progress.say(f"resumed after epoch {content['epoch']}")


def _start_folder(session: Session, data: DataSet) -> None:
    out = session.config.out
    make_folder(out)
    for folder in (out, out / "samples"):
        remove_leftovers(folder)  # of a process that was killed while writing
    write_atomically(out / "config.toml", write_config(session.config).encode())
    write_samples(data, out / "samples")


def _run_epochs(session: Session) -> None:
    config, history = session.config, session.history
    log = None
    if config.tensorboard and rank() == 0:
        log = _import_tensorboard()(str(config.out / "tensorboard"))
    for epoch in range(len(history) + 1, (config.epochs or 1) + 1):
        if has_stalled(config, history):
            session.progress.say(f"stopped early: no better epoch for {config.early_stopping}")
            break
        start = time.perf_counter()
        train_loss, train_accuracy, lr = train_epoch(session, epoch)
        train_seconds = time.perf_counter() - start
        test_loss, test_accuracy = test_epoch(session)
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
        if rank() == 0:
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


def _fingerprint(session: Session) -> str:
    """Which images of which classes are trained and tested on, as one number."""
    digest = hashlib.sha256()
    for images in (session.train_images, session.test_images):
        digest.update(images.targets.numpy().tobytes() + b"|")
    return digest.hexdigest()


def _save_epoch(session: Session) -> None:
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
    if best_epoch(history) == len(history):
        save_checkpoint(config.out / "best.ckpt", content)
    state = {
        "data": _fingerprint(session),
        "optimizer": session.optimizer.state_dict(),
        "precision": session.fabric.strategy.precision.state_dict(),  # float16's loss scale
    }
    save_checkpoint(config.out / "last.ckpt", content | state)
    write_report(config.out, history)


def _finish(session: Session) -> Run:
    config, history, out = session.config, session.history, session.config.out
    session.fabric.barrier()
    best = best_epoch(history)
    load_model = session.network if config.model == CUSTOM_MODEL else None
    if rank() == 0:
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
        write_atomically(out / "summary.json", json.dumps(summary, indent=2).encode())
        write_report(out, history)
        session.progress.say(overfitting(history))
    session.fabric.barrier()
    return load_run(out, model=_cpu_copy(load_model))


def _cpu_copy(model: nn.Module | None) -> nn.Module | None:
    return None if model is None else copy.deepcopy(model).cpu()


def _import_tensorboard() -> Any:
    module = import_extra(
        "torch.utils.tensorboard", name="TensorBoard", extra="tensorboard", verb="train"
    )
    return module.SummaryWriter
