"""The rungs that run in torch from Python: eager, compiled, TorchScript as it is and optimised."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from convship import _library
from convship.bench.grid import Floats
from convship.bench.network_case import NetworkCase
from convship.bench.network_engine import NetworkEngine
from convship.bench.settings import Settings
from convship.bundle import flatten
from convship.verify import open_in_torch


class TorchRung(NetworkEngine):
    """A callable on tensors in inference mode, which is entered once and not part of a call."""

    def __init__(self, case: NetworkCase, settings: Settings, channels_last: bool = False) -> None:
        torch.set_num_threads(settings.threads)
        self.channels_last = channels_last
        super().__init__(case, settings)

    def prepare_input(self) -> None:
        """Lay the inputs out as the rung wants them."""
        self.inputs = [self._arranged(torch.from_numpy(array)) for array in self.case.arrays()]

    def load(self) -> None:
        """Make the function ready."""
        self.function = self.build()
        self.call = partial(self.function, *self.inputs)

    def build(self) -> Callable[..., Any]:
        """Return what is called with the inputs."""
        raise NotImplementedError

    def context(self) -> AbstractContextManager[object]:
        """Return inference mode."""
        return torch.inference_mode()

    def outputs(self) -> dict[str, Floats]:
        """Return all outputs, contiguous."""
        with self.context():
            found = flatten(self.call())
            return {name: np.array(value.contiguous().numpy()) for name, value in found}

    def state(self) -> dict[str, Any]:
        """Return torch's settings, as they are inside a call."""
        with self.context():
            return {"threads": torch.get_num_threads(), "grad": torch.is_grad_enabled()}

    def stages(self, seconds: float) -> dict[str, list[float]]:
        """Pillow, the usual transforms, the network, softmax: the usual pipeline."""
        if not self.case.image:
            return {}
        data = Path(self.case.image).read_bytes()
        transforms = self._transforms()
        times: dict[str, list[float]] = {
            "decode": [], "preprocess": [], "network": [], "end_to_end": []
        }  # fmt: skip
        clock = time.perf_counter
        begin = clock()
        with self.context():
            while not times["decode"] or clock() - begin < seconds:
                start = clock()
                image = Image.open(io.BytesIO(data)).convert("RGB")
                decoded = clock()
                pixels = transforms(image)
                preprocessed = clock()
                logits = self.function(pixels)
                done = clock()
                torch.softmax(logits, 1).topk(1)
                end = clock()
                for name, value in (
                    ("decode", decoded - start),
                    ("preprocess", preprocessed - decoded),
                    ("network", done - preprocessed),
                    ("end_to_end", end - start),
                ):
                    times[name].append(value)
        return times

    def _transforms(self) -> Callable[[Image.Image], Tensor]:
        """The transforms that torchvision's users write for what the file's preprocessing does."""
        from convship._torchvision import torchvision

        module = open_file(self.case)
        ours = getattr(module, "preprocessing", None)
        if ours is None or not hasattr(ours, "shorter_side"):
            # Somebody else's preprocessing: it is their pipeline as it is.
            def as_shipped(image: Image.Image) -> Tensor:
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).unsqueeze(0)
                return self._arranged(module.preprocess(pixels))

            return as_shipped
        size = (ours.height, ours.width)
        own = torchvision.transforms
        steps = [
            own.Resize(ours.shorter_side or size),
            own.CenterCrop(size),
            *([own.Grayscale()] if ours.channels == 1 else []),
            own.ToTensor(),
            own.Normalize(ours.mean.flatten().tolist(), ours.std.flatten().tolist()),
        ]
        together = own.Compose(steps)
        return lambda image: self._arranged(together(image).unsqueeze(0))

    def _arranged(self, value: Tensor) -> Tensor:
        if self.channels_last and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value


def script_module(case: NetworkCase) -> Any:
    """Return the file's module as `torch.jit.load` gives it, in eval mode."""
    return torch.jit.load(case.model).eval()  # type: ignore[no-untyped-call, unused-ignore]


def open_file(case: NetworkCase) -> Any:
    """Return the file as torch opens it: a function of tensors, with the file's methods."""
    return open_in_torch(Path(case.model)) if case.package else script_module(case)


class Eager(TorchRung):
    """The nn.Module as it was written."""

    def prepare_input(self) -> None:
        """Import what the module may be made of; not part of loading."""
        # Pickled by reference to its class, which may be torchvision's.
        importlib.import_module("convship._torchvision")
        super().prepare_input()

    def build(self) -> Callable[..., Any]:
        """Return the module."""
        module: nn.Module = torch.load(self.case.module, weights_only=False).eval()
        if self.channels_last:
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module


class Compiled(Eager):
    """The nn.Module through torch.compile, with every option that helps inference."""

    def build(self) -> Callable[..., Any]:
        """Return the compiled module; the first call compiles."""
        import torch._dynamo
        import torch._inductor

        # As global settings: given per function, they cost time in every call.
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch._inductor.config.freezing = True
        options = torch._inductor.list_mode_options("max-autotune")
        return torch.compile(super().build(), options=options)


class Package(TorchRung):
    """A .pt2 file in AOTInductor's own loader."""

    def build(self) -> Callable[..., Any]:
        """Load the package; its operators must be registered first."""
        from torch._inductor import aoti_load_package

        _library.load()
        return aoti_load_package(self.case.model)


class Script(TorchRung):
    """The file in `torch.jit.load`: as it is, frozen, or after optimize_for_inference."""

    def __init__(
        self,
        case: NetworkCase,
        settings: Settings,
        prepare: str = "",
        channels_last: bool = False,
    ) -> None:
        self.prepare = prepare
        super().__init__(case, settings, channels_last)

    def build(self) -> Callable[..., Any]:
        """Return the module, prepared."""
        module = script_module(self.case)
        if self.channels_last:
            # A scripted module has no .to(memory_format=); its parameters can be swapped.
            for parameter in [*module.parameters(), *module.buffers()]:
                parameter.data = self._arranged(parameter.data)
        if self.prepare == "frozen":
            module = torch.jit.freeze(module)
        elif self.prepare == "optimized":
            module = torch.jit.optimize_for_inference(torch.jit.freeze(module))
        return module  # type: ignore[no-any-return]
