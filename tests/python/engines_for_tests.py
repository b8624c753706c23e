"""Engines that a benchmark must not believe."""

from __future__ import annotations

import os

import numpy as np

from convship.bench.engine import Engine
from convship.bench.grid import NOTHING


class Wrong(Engine):
    """Answers at once, with zeros; right where there is nothing to do."""

    def __init__(self, case, settings):
        self.case = case
        self.call = int

    def outputs(self):
        return {"output": np.zeros(self.case.output, np.float32)}


class Dies(Engine):
    """Takes its process with it as soon as there is work."""

    def __init__(self, case, settings):
        if case != NOTHING:
            os._exit(7)

    def outputs(self):
        return {}


class Own(Engine):
    """Times itself: a call takes as many seconds as its option says."""

    def __init__(self, case, settings, seconds):
        self.seconds = seconds
        self.output = _answer(case)

    def outputs(self):
        return {"output": self.output}

    def measure(self, seconds):
        return self.seconds


def _answer(case):
    import torch
    import torch.nn.functional as F

    image, weight, bias = map(torch.from_numpy, case.arrays())
    conv = F.conv2d(image, weight, bias, case.stride, case.padding, case.dilation, case.groups)
    return F.max_pool2d(conv.relu(), case.pool_size, case.pool_stride, case.pool_padding).numpy()
