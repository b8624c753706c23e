"""What a training run is told: a TOML file, overridden by the command line, completed by a recipe.

A setting that nobody gives is None and filled in by the recipe; the complete one, saved as
``config.toml`` beside the run, has no gaps and reproduces it.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from convship.batches import available_cpus
from convship.data import DataSet
from convship.preprocess import Preprocess

__all__ = ["TrainConfig", "read_config", "resolve", "write_config"]

_IMAGENET_MEAN = [0.485, 0.456, 0.406]
_IMAGENET_STD = [0.229, 0.224, 0.225]
_Precision = Literal["auto", "32", "bf16-mixed", "16-mixed"]


class TrainConfig(BaseModel):
    """Settings of a training run; None leaves one to the recipe.

    Attributes:
        data: Name of the data set, see `convship.data.load_data`.
        model: Name of the network, see `convship.models.create_model`.
        out: Folder of the run.
        recipe: "default" suits model and data; "tutorial" is the classic first loop: SGD 0.001,
            momentum 0.9, batches of 4, 2 epochs, no augmentation.
        weights: Trained weights to start from, for torchvision's networks.
        held_out: Fraction to test on, for folders without ``test/``.
        size: Height and width of the network's input in pixels.
        resize: Pixels of the shorter side before the centre crop to `size`; 0 for no crop.
        channels: 1 for gray, 3 for colour.
        mean: Mean per channel for normalisation; by default the training images'.
        std: Standard deviation, likewise.
        epochs: Passes over the training images.
        batch_size: Images per step; under torchrun, of all processes together.
        optimizer: "sgd" or "adamw".
        lr: Highest learning rate.
        momentum: Of SGD.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: On weights of two or more dimensions.
        schedule: Of the learning rate: "constant", "one-cycle", "cosine" or "step" (a tenth after
            half and again after three quarters).
        label_smoothing: Share of the target spread over all classes.
        flip: Whether images are mirrored at random.
        shift: Largest random shift in pixels.
        rotate: Largest random rotation in degrees.
        scale: Largest random relative change of size.
        start_size: Fraction of `size` that training begins with; images grow to all of it over the
            first 70 % of the epochs. Early epochs are cheaper so; for networks that take any size.
        early_stopping: Epochs without a better test accuracy before stopping; 0 never stops.
        seed: Of weights, order and augmentation.
        precision: "32", "bf16-mixed", "16-mixed", or "auto": bf16-mixed where the hardware
            multiplies bfloat16.
        threads: CPU threads of each process.
        device: "auto", "cpu" or "cuda".
        workers: Processes that decode images; by default one per CPU where it pays.
        cache: Whether decoded images stay in memory; by default up to 2 GiB.
        tensorboard: Whether to log for TensorBoard too.

    Example:
        >>> TrainConfig(data="digits", model="lenet5", epochs=3).epochs
        3
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())

    data: str = "digits"
    model: str = "lenet5"
    out: Path = Path("runs/run")
    recipe: Literal["default", "tutorial"] = "default"
    weights: str | None = None
    held_out: float = Field(0.2, gt=0, lt=1)
    size: tuple[int, int] | None = None
    resize: int | None = Field(None, ge=0)
    channels: Literal[1, 3] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    epochs: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: float | None = Field(None, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    nesterov: bool | None = None
    weight_decay: float | None = Field(None, ge=0)
    schedule: Literal["constant", "one-cycle", "cosine", "step"] | None = None
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    flip: bool | None = None
    shift: int | None = Field(None, ge=0)
    rotate: float | None = Field(None, ge=0, le=180)
    scale: float | None = Field(None, ge=0, lt=1)
    start_size: float | None = Field(None, gt=0, le=1)
    early_stopping: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    precision: _Precision | None = None
    threads: int | None = Field(None, ge=1, le=4096)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int | None = Field(None, ge=0)
    cache: bool | None = None
    tensorboard: bool = False


_TUTORIAL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 4,
    "optimizer": "sgd",
    "lr": 0.001,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0,
    "schedule": "constant",
    "label_smoothing": 0.0,
    "flip": False,
    "shift": 0,
    "rotate": 0.0,
    "scale": 0.0,
    "start_size": 1.0,
    "precision": "32",
}

# The base of every default recipe; the ones below change what suits their network.
_DEFAULT: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 64,
    "optimizer": "sgd",
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "schedule": "one-cycle",
    "label_smoothing": 0.1,
    "rotate": 0.0,
    "scale": 0.0,
    "start_size": 1.0,
    "precision": "auto",
}
_LENET5: dict[str, Any] = {
    "epochs": 25,
    "optimizer": "adamw",
    "lr": 0.004,
    "weight_decay": 0.02,
    "label_smoothing": 0.05,
    "precision": "32",  # too small for bfloat16 to pay
}
_CIFARNET: dict[str, Any] = {"epochs": 9, "batch_size": 256, "lr": 0.15, "start_size": 0.625}
_PRETRAINED: dict[str, Any] = {"epochs": 5, "batch_size": 32, "lr": 0.005}


def read_config(path: str | Path | None, overrides: dict[str, Any]) -> TrainConfig:
    """Return the settings of the TOML file `path`, changed by `overrides` that are not None.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TOML, or a setting is unknown or out of range.

    Example:
        >>> read_config(None, {"epochs": 3, "lr": None}).epochs
        3
    """
    settings: dict[str, Any] = {}
    if path is not None:
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"config: file {path} does not exist") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"config: {path} is not valid TOML: {error}") from None
    settings |= {name: value for name, value in overrides.items() if value is not None}
    try:
        return TrainConfig(**settings)
    except ValidationError as error:
        raise ValueError(_in_one_line(error)) from None


def _in_one_line(error: ValidationError) -> str:
    parts = []
    for entry in error.errors():
        name = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            known = ", ".join(TrainConfig.model_fields)
            parts.append(f"unknown setting {name!r}; known: {known}")
        else:
            reason = entry["msg"][:1].lower() + entry["msg"][1:]
            parts.append(f"{name}: {reason}, got {entry['input']!r}")
    return "config: " + "; ".join(parts)


def resolve(config: TrainConfig, data: DataSet) -> TrainConfig:
    """Return `config` with every gap filled by its recipe, except mean and std of the images.

    Example:
        >>> from convship.data import load_data
        >>> full = resolve(TrainConfig(recipe="tutorial"), load_data("digits"))
        >>> full.batch_size, full.lr, full.size
        (4, 0.001, (32, 32))
    """
    recipe = dict(_TUTORIAL) if config.recipe == "tutorial" else _default_recipe(config, data)
    is_own = config.model in ("lenet5", "cifarnet", "custom")
    recipe["size"] = _input_size(config, data)
    recipe["channels"] = 1 if data.is_gray and is_own else 3  # torchvision's take 3
    recipe["resize"] = 0 if is_own or config.size else 256
    # LeNet's layers are so small that a second thread waits more than it works.
    recipe["threads"] = 1 if config.model == "lenet5" else available_cpus()
    channels = config.channels or recipe["channels"]
    if config.recipe == "tutorial":
        recipe["mean"], recipe["std"] = [0.5] * channels, [0.5] * channels
    elif config.weights and channels == 3:
        recipe["mean"], recipe["std"] = _IMAGENET_MEAN, _IMAGENET_STD
    filled = {name: value for name, value in recipe.items() if getattr(config, name) is None}
    full = config.model_copy(update=filled)
    full.precision = _resolve_precision(full)
    return full


def _default_recipe(config: TrainConfig, data: DataSet) -> dict[str, Any]:
    recipe = dict(_DEFAULT)
    if config.model == "lenet5":
        recipe |= _LENET5
        if len(data.train) > 10_000:
            recipe["epochs"] = 10
    elif config.model == "cifarnet":
        recipe |= _CIFARNET
        if len(data.train) < 10_000:  # few steps a batch of 256 would leave
            recipe |= {"epochs": 30, "batch_size": 32, "lr": 0.05}
    elif config.weights:
        recipe |= _PRETRAINED
    if data.name in ("digits", "mnist"):  # mirrored digits are none
        return recipe | {"flip": False, "shift": 2, "rotate": 10.0, "scale": 0.1}
    height = _input_size(config, data)[0]
    return recipe | {"flip": True, "shift": max(1, height // 16)}


def _input_size(config: TrainConfig, data: DataSet) -> tuple[int, int]:
    if config.size:
        return config.size
    if config.model == "lenet5":
        return (32, 32)
    if config.model == "cifarnet":
        # Small images as they are; larger ones at a size that still trains on a CPU.
        return data.size if data.size and 24 <= min(data.size) <= max(data.size) <= 96 else (64, 64)
    if config.model == "custom":  # of the caller: whatever the images are
        return data.size or (224, 224)
    return (299, 299) if config.model == "inception_v3" else (224, 224)


def _resolve_precision(config: TrainConfig) -> _Precision:
    if config.precision != "auto":
        return config.precision or "32"
    if config.device != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    cpu: Any = torch.cpu
    fast = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32"


def make_preprocess(config: TrainConfig) -> Preprocess:
    """Return the preprocessing of a complete `config`; without mean and std it only resizes."""
    assert config.size is not None
    channels = config.channels or 3
    return Preprocess(
        config.size,
        resize=config.resize or None,
        channels=channels,
        mean=config.mean or [0.5] * channels,
        std=config.std or [0.5] * channels,
    )


def write_config(config: TrainConfig) -> str:
    """Return `config` as TOML; settings that are None are left out.

    Example:
        >>> import tomllib
        >>> tomllib.loads(write_config(TrainConfig(epochs=3)))["epochs"]
        3
    """
    content = config.model_dump(mode="json", exclude_none=True)
    # A JSON string, number, boolean or list of those is TOML too, once DEL is escaped.
    lines = (
        f"{name} = {json.dumps(value, ensure_ascii=True)}\n" for name, value in content.items()
    )
    return "".join(lines).replace("\x7f", "\\u007f")
