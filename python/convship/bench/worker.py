"""A process that holds one engine and computes only when asked to.

Started by `client.Worker` with the environment already set: thread counts and instruction sets
are read once, while libraries load.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

from convship.bench.catalogue import EngineSpec
from convship.bench.engine import Engine
from convship.bench.grid import Floats
from convship.bench.settings import Settings

_PR_SET_PDEATHSIG = 1

Result = TypeVar("Result")


class NamedCase(Protocol):
    """What an engine is made for: a shape, or a network with its input."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Start:
    """The first message: which engine, how, and on which cores."""

    spec: EngineSpec
    settings: Settings
    cpus: tuple[int, ...]


class Server:
    """The requests; each method is one."""

    def __init__(self, start: Start) -> None:
        os.sched_setaffinity(0, start.cpus)
        module, name = start.spec.factory.split(":")
        self._make = getattr(importlib.import_module(module), name)
        self._start = start
        self._ready: dict[str, Engine] = {}
        gc.disable()  # it would run inside measurements; done by hand between shapes

    def prepare(self, case: NamedCase) -> dict[str, Floats]:
        """Make a case ready, compiled and packed as it may be; return its outputs."""
        engine: Engine = self._make(case, self._start.settings, **self._start.spec.options)
        self._ready[case.name] = engine
        return engine.outputs()

    def measure(self, name: str, seconds: float) -> tuple[float, float]:
        """Return seconds per call of a prepared case, and the share of time spent waiting.

        Waiting: ready to compute while another program had the core.
        """
        return self._watched(self._ready[name].measure, seconds)

    def calls(self, name: str, seconds: float) -> tuple[list[float], float]:
        """Return the seconds of every call, and the share of time spent waiting."""
        return self._watched(self._ready[name].calls, seconds)

    def stages(self, name: str, seconds: float) -> dict[str, list[float]]:
        """Return the seconds of every stage of every call."""
        return self._ready[name].stages(seconds)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a prepared engine says of itself."""
        return self._ready[name].facts()

    def drop(self, name: str) -> None:
        """Forget a prepared case."""
        self._ready.pop(name, None)
        gc.collect()

    def _watched(self, measure: Callable[[float], Result], seconds: float) -> tuple[Result, float]:
        start, waited = time.perf_counter(), waited_s()
        result = measure(seconds)
        elapsed = (time.perf_counter() - start) * self._start.settings.threads
        return result, (waited_s() - waited) / elapsed


def waited_s(pid: int | str = "self") -> float:
    """Return how long the threads of a process were ready to compute without a core."""
    try:
        files = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    except OSError:  # a thread that has just ended, or a kernel that does not count
        return 0.0
    return sum(int(text.split()[1]) for text in files) / 1e9


def _die_with_parent() -> None:
    # Between turns this process is stopped: it would not notice that nobody is left to ask.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(connection: Connection[Any, Any]) -> None:
    server: Server | None = None
    while True:
        try:
            verb, *arguments = connection.recv()
        except EOFError:
            return
        try:
            if verb == "start":
                server, result = Server(*arguments), None
            else:
                result = getattr(server, verb)(*arguments)
        except Exception as error:  # the parent decides what it means
            connection.send(("failed", f"{type(error).__name__}: {error}"))
        else:
            connection.send(("ok", result))


if __name__ == "__main__":
    _die_with_parent()
    _serve(Connection(int(sys.argv[1])))
