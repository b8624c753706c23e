"""What never changes, measured in every round: the rate of multiply-adds of one core."""

from __future__ import annotations

import time

from convship import _library
from convship.bench.catalogue import EngineSpec
from convship.bench.client import Worker, WorkerError
from convship.bench.grid import NOTHING
from convship.bench.settings import Settings

_SLOT_S = 0.01
_PAUSE_S = 0.002
_SPEC = EngineSpec("FMA rate", "ours", "convship.bench.convship_engines:FmaRate", helper="fma_rate")


class Meter:
    """Seconds per floating-point operation, one value per call of `measure`.

    Attributes:
        seconds: What was measured; stays empty where this build cannot.
    """

    def __init__(self, settings: Settings, cpus: tuple[int, ...]) -> None:
        self.seconds: list[float] = []
        able = hasattr(_library.load(), _SPEC.helper)
        self._worker = Worker(_SPEC, settings, cpus) if able else None

    def start(self) -> None:
        """Wait until it can measure."""
        if self._worker is None:
            return
        try:
            self._worker.wait_until_started()
            self._worker.prepare(NOTHING)
        except WorkerError:  # without a meter, rounds are measured all the same
            self.close()

    def measure(self) -> None:
        """Measure once."""
        if self._worker is not None:
            time.sleep(_PAUSE_S)
            self.seconds.append(self._worker.measure(NOTHING.name, _SLOT_S)[0])

    def close(self) -> None:
        """End its process."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None
