"""The other end of a worker process: start it, ask it, keep it quiet in between."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from convship.bench.catalogue import EngineSpec
from convship.bench.grid import Case, Floats
from convship.bench.settings import Settings
from convship.bench.worker import Start


class WorkerError(RuntimeError):
    """An engine that cannot do what it was asked for; one line says why."""


class Worker:
    """One engine in a process of its own, stopped (SIGSTOP) whenever it is not asked.

    So threads that spin while they wait take nothing from a neighbour whose turn it is, and
    every library can keep the settings that are best for it.

    Args:
        spec: The engine.
        settings: Of the run.
        cpus: The cores it is pinned to.
    """

    def __init__(self, spec: EngineSpec, settings: Settings, cpus: tuple[int, ...]) -> None:
        self.name = spec.name
        self._connection, theirs = multiprocessing.Pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        with theirs:
            self._process = subprocess.Popen(
                # -P: modules come from where this process has them, not from the working folder.
                [sys.executable, "-P", "-m", "convship.bench.worker", str(theirs.fileno())],
                env={**os.environ, **settings.environment()},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
            )
        self._connection.send(("start", Start(spec, settings, cpus)))

    def wait_until_started(self) -> None:
        """Wait until the engine is imported; workers start side by side."""
        self._answer()

    def prepare(self, case: Case) -> dict[str, Floats]:
        """Make a case ready and return its outputs."""
        outputs: dict[str, Floats] = self._ask("prepare", case)
        return outputs

    def measure(self, name: str, seconds: float) -> tuple[float, float]:
        """Measure for about `seconds`: seconds per call, share of time spent waiting."""
        result: tuple[float, float] = self._ask("measure", name, seconds)
        return result

    def drop(self, name: str) -> None:
        """Free what a case holds."""
        self._ask("drop", name)

    def close(self) -> None:
        """End the process."""
        self._process.kill()  # works on a stopped process too; there is nothing to save
        self._process.wait()
        self._connection.close()
        self._errors.close()

    def _ask(self, *request: Any) -> Any:
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(OSError):  # it has ended; _answer says how
            self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            state, result = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerError(self._last_words()) from None
        self._process.send_signal(signal.SIGSTOP)
        if state != "ok":
            raise WorkerError(" ".join(str(result).split())[:300])
        return result

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no message")
        return f"its process ended with code {code}: {last[:300]}"
