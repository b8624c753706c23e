"""What every engine can do: compute one case, and time its own calls."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from convship.bench.grid import Floats

_BATCHES = 20  # per slot: short ones, so that some are not interrupted


class Engine:
    """One case made ready in one library. Lives in a worker process.

    A subclass sets `call` in its constructor, which takes a `Case`, the `Settings` and the
    options of its entry in the catalogue. One that can time itself better than a Python loop
    can overrides `measure`.
    """

    call: Callable[[], object]

    def outputs(self) -> dict[str, Floats]:
        """Return what one call computes, as arrays in NCHW order: "output", maybe gradients."""
        raise NotImplementedError

    def context(self) -> AbstractContextManager[object]:
        """Return what surrounds a series of calls and is not part of them."""
        return nullcontext()

    def facts(self) -> dict[str, Any]:
        """Return what it says of itself: "threads", "grad", "load_s", "first_s"."""
        return {}

    def calls(self, seconds: float) -> list[float]:
        """Call for about `seconds`, once at least, and return the seconds of every call."""
        with self.context():
            return time_calls(self.call, seconds)

    def stages(self, seconds: float) -> dict[str, list[float]]:
        """Return the seconds of each stage from encoded image to answer; empty where it has none.

        "decode", "preprocess" and "network", as far as they can be told apart, and "end_to_end".
        """
        return {}

    def measure(self, seconds: float) -> float:
        """Call for about `seconds`, once at least, and return the seconds of one call.

        The median of batches of calls; of those during which no other program took the core,
        where there are any.
        """
        call, clock = self.call, time.perf_counter
        with self.context():
            start = clock()
            call()  # not counted: a neighbour has had the caches since our last turn
            count = max(1, int(seconds / _BATCHES / (clock() - start)))
            batches, undisturbed = [], []
            end = start + seconds
            while True:
                before = _interruptions()
                start = clock()
                for _ in range(count):
                    call()
                stop = clock()
                batches.append((stop - start) / count)
                if _interruptions() == before:
                    undisturbed.append(batches[-1])
                if stop >= end:
                    return statistics.median(undisturbed or batches)


def time_calls(call: Callable[[], object], seconds: float) -> list[float]:
    """Call for about `seconds`, once at least, and return the seconds of every call."""
    clock = time.perf_counter
    call()  # not counted: a neighbour has had the caches since our last turn
    times: list[float] = []
    start = begin = clock()
    while not times or start - begin < seconds:
        call()
        stop = clock()  # one reading per call: where one ends, the next begins
        times.append(stop - start)
        start = stop
    return times


def _interruptions() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
