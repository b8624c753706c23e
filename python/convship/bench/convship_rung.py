"""Ours, called from Python: `convship.load`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convship import _library
from convship.bench.engine import time_calls
from convship.bench.grid import Floats
from convship.bench.network_case import NetworkCase
from convship.bench.network_engine import NetworkEngine
from convship.bench.settings import Settings
from convship.model import load


class Loaded(NetworkEngine):
    """`Model.run` on tensors; threads are torch's."""

    def __init__(self, case: NetworkCase, settings: Settings) -> None:
        torch.set_num_threads(settings.threads)
        super().__init__(case, settings)

    def prepare_input(self) -> None:
        """Make tensors by name."""
        names = [name for name, _ in self.case.inputs]
        tensors = [torch.from_numpy(array) for array in self.case.arrays()]
        self.inputs = dict(zip(names, tensors, strict=True))

    def load(self) -> None:
        """Load the file as any user would."""
        self.model = load(self.case.model, allow_plain=self.case.plain)
        self.call = partial(self.model.run, **self.inputs)

    def outputs(self) -> dict[str, Floats]:
        """Return all outputs."""
        return {
            name: np.array(value.numpy()) for name, value in self.model.run(**self.inputs).items()
        }

    def state(self) -> dict[str, Any]:
        """Return the threads of a call."""
        return {"threads": torch.get_num_threads()}

    def stages(self, seconds: float) -> dict[str, list[float]]:
        """Decoding alone, and the whole from bytes to classes."""
        if not self.case.image:
            return {}
        data = Path(self.case.image).read_bytes()
        return {
            "decode": time_calls(partial(_library.load().decode_image, data), seconds / 2),
            "end_to_end": time_calls(partial(self.model.predict, data), seconds / 2),
        }
