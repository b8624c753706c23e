"""Rungs with known times and answers, for a ladder that must tell them apart."""

from __future__ import annotations

import os

import numpy as np
import torch

from convship.bench.engine import Engine


class Known(Engine):
    """Answers as the file does; takes as long as its options say."""

    def __init__(self, case, settings, seconds=(1.0,), facts=None, stages=None):
        self.case = case
        self.seconds = list(seconds)
        self._facts = facts or {}
        self._stages = stages or {}

    def outputs(self):
        module = torch.jit.load(self.case.model).eval()
        with torch.inference_mode():
            return {"output": module(*map(torch.from_numpy, self.case.arrays())).numpy()}

    def facts(self):
        return {"load_s": 0.25, "first_s": 0.125, **self._facts}

    def calls(self, seconds):
        return self.seconds

    def stages(self, seconds):
        return self._stages


class HalfPrecision(Known):
    """As fast as light, in bfloat16."""

    def outputs(self):
        module = torch.jit.load(self.case.model).eval().to(torch.bfloat16)
        inputs = [torch.from_numpy(array).bfloat16() for array in self.case.arrays()]
        with torch.inference_mode():
            return {"output": module(*inputs).float().numpy()}


class Swapped(Known):
    """Right numbers, wrong shape."""

    def outputs(self):
        return {"output": super().outputs()["output"].T}


class Dies(Known):
    """Answers, and ends its process when it is measured."""

    def calls(self, seconds):
        os._exit(7)


class SaysItsEnvironment(Known):
    """A fact that is a variable of its process."""

    def facts(self):
        return {"threads": int(os.environ["RUNG_FOR_TESTS"])}


class Silent(Known):
    """Gives no output at all."""

    def outputs(self):
        return {}


class NotANumber(Known):
    """Answers NaN, which compares with nothing."""

    def outputs(self):
        return {"output": super().outputs()["output"] * np.float32("nan")}
