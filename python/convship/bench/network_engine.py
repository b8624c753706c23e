"""What every rung does alike: load, first call, warm-up, then calls that count."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from convship.bench.engine import Engine
from convship.bench.network_case import NetworkCase
from convship.bench.settings import Settings

_WARM_UP_CALLS = 3  # the second call of a TorchScript file is when it is optimised
_WARM_UP_S = 0.1


class NetworkEngine(Engine):
    """One network made ready in one library.

    A subclass sets `call` in `load`. The libraries themselves are imported before that, so
    `load_s` is from the file to something that can be called.
    """

    def __init__(self, case: NetworkCase, settings: Settings) -> None:
        self.case = case
        self.settings = settings
        self.prepare_input()
        with self.context():
            self.load_s = _seconds(self.load)
            self.first_s = _seconds(self.call)
            end = time.perf_counter() + _WARM_UP_S
            for number in range(1, 10_000):
                self.call()
                if number >= _WARM_UP_CALLS and time.perf_counter() > end:
                    break

    def prepare_input(self) -> None:
        """Read the input; not part of loading."""
        raise NotImplementedError

    def load(self) -> None:
        """Set `self.call`."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Return load and first call, and how many threads it has."""
        return {"load_s": self.load_s, "first_s": self.first_s, **self.state()}

    def state(self) -> dict[str, Any]:
        """Return "threads" and "grad", where the library can be asked."""
        return {}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
