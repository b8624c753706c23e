"""A module as TorchScript, with the methods of a shipped file. Internal to export."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from convship.errors import ExportError
from convship.golden import NetworkInput, run_network


class TorchScriptFile:
    """A network on its way into a .pt file.

    Raises:
        ExportError: It cannot be scripted.
    """

    compiled_for = None

    def __init__(self, network: nn.Module, example: tuple[Any, ...], method: str) -> None:
        self._network = script(network, example, method)
        self._classifier = False
        self._shipped: torch.jit.ScriptModule | None = None

    @property
    def required_ops(self) -> list[str]:
        """Operators beyond ATen, which a program must have registered before it loads the file."""
        assert self._shipped is not None
        return required_ops(self._shipped)

    def argument_names(self) -> list[str]:
        """Return the network's arguments in order."""
        return argument_names(self._network)

    def ship(self, preprocess: torch.jit.ScriptModule | None, inputs: NetworkInput) -> None:
        """Make the file's module."""
        self._classifier = preprocess is not None
        self._shipped = ship(self._network, preprocess, list(inputs))

    def answer(self, inputs: NetworkInput) -> dict[str, Tensor]:
        """Return what the file's module answers."""
        assert self._shipped is not None
        return run_network(self._shipped, inputs, self._classifier)

    def archive(self, extras: Mapping[str, bytes]) -> bytes:
        """Return all as an archive without comment."""
        buffer = io.BytesIO()
        # To memory and not to a path: LibTorch aborts the process when a disk is full.
        with without_deprecation():
            torch.jit.save(self._shipped, buffer, _extra_files=dict(extras))
        return buffer.getvalue()


@contextmanager
def without_deprecation() -> Iterator[None]:
    """TorchScript is deprecated in favour of torch.export, and still what a .pt file is made of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield


def copy_of(model: nn.Module) -> nn.Module:
    """Return a copy that shares nothing with `model`, scripted or not."""
    if not isinstance(model, torch.jit.ScriptModule):
        return copy.deepcopy(model)
    # A deep copy of a scripted module has parameters that are no leaves.
    buffer = io.BytesIO()
    with without_deprecation():
        torch.jit.save(model, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer)  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


def script(module: nn.Module, example: tuple[Any, ...], method: str) -> torch.jit.ScriptModule:
    """Script `module`, or trace it on `example`; raise ExportError where the compiler refuses."""
    try:
        with without_deprecation():
            if method == "trace":
                return torch.jit.trace(module, example)  # type: ignore[no-any-return]
            return torch.jit.script(module)
    except Exception as error:
        raise ExportError(
            f"export_model: {type(module).__name__} cannot be {method.rstrip('e')}ed: "
            f"{first_line(error)}"
            + (
                "; write it so that torch.jit.script takes it, or pass method='trace' if it has "
                "no branches on data"
                if method == "script"
                else ""
            )
        ) from error


def first_line(error: Exception) -> str:
    """The beginning of a compiler's message on one line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:3])


def ship(
    network: torch.jit.ScriptModule, preprocessing: torch.jit.ScriptModule | None, names: list[str]
) -> torch.jit.ScriptModule:
    """Return the file's module: forward of `names`; preprocess and predict if it classifies."""
    # A class per export: scripted modules of one class share a type, and with it the methods that
    # are defined below, which may be defined once only.
    module = type("Shipped", (nn.Module,), {})()
    module.network = network
    if preprocessing is not None:
        module.preprocessing = preprocessing
    shipped = script(module.eval(), (), "script")
    schema = _forward_schema(network)
    # Some networks (googlenet) return a tuple once scripted whose first member are the logits.
    first = "[0]" if preprocessing is not None and _returns_tuple(schema) else ""
    types = {argument.name: argument.type.annotation_str for argument in schema.arguments}
    if preprocessing is None:
        parameters = ", ".join(f"{name}: {types[name]}" for name in names)
        passed = ", ".join(f"{name}={name}" for name in names)
        try:
            shipped.define(f"def forward(self, {parameters}):\n    return self.network({passed})\n")
        except RuntimeError as error:
            raise ExportError(
                f"export_model: the samples give {', '.join(names)}, which the network does not "
                f"take: {first_line(error)}"
            ) from error
        return shipped
    shipped.define(f"def forward(self, input: Tensor):\n    return self.network(input){first}\n")
    shipped.define(
        "def preprocess(self, images: Tensor) -> Tensor:\n    return self.preprocessing(images)\n"
    )
    shipped.define(
        "def predict(self, images: Tensor) -> Tensor:\n"
        "    return torch.softmax(self.forward(self.preprocess(images)).float(), dim=1)\n"
    )
    return shipped


def _forward_schema(scripted: torch.jit.ScriptModule) -> Any:
    return scripted.forward.schema  # type: ignore[attr-defined]


def _returns_tuple(schema: Any) -> bool:
    return bool(schema.returns[0].type.kind() == "TupleType")


def argument_names(scripted: torch.jit.ScriptModule) -> list[str]:
    return [argument.name for argument in _forward_schema(scripted).arguments][1:]


def required_ops(shipped: torch.jit.ScriptModule) -> list[str]:
    """Operators beyond ATen, which a program must have registered before it loads the file."""
    names = {name.split(".")[0] for name in torch.jit.export_opnames(shipped)}
    return sorted(name for name in names if name.split("::")[0] not in ("aten", "prim"))
