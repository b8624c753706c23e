"""The other end of a worker process: start it, ask it, keep it quiet in between."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from convship.bench.catalogue import EngineSpec
from convship.bench.grid import Floats
from convship.bench.settings import Settings
from convship.bench.worker import NamedCase, Start


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
                env={**os.environ, **settings.environment(), **spec.environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
            )
        self._connection.send(("start", Start(spec, settings, cpus)))

    def wait_until_started(self) -> None:
        """Wait until the engine is imported; workers start side by side."""
        self._answer()

    def prepare(self, case: NamedCase) -> dict[str, Floats]:
        """Make a case ready and return its outputs."""
        outputs: dict[str, Floats] = self._ask("prepare", case)
        return outputs

    def measure(self, name: str, seconds: float) -> tuple[float, float]:
        """Measure for about `seconds`: seconds per call, share of time spent waiting."""
        result: tuple[float, float] = self._ask("measure", name, seconds)
        return result

    def calls(self, name: str, seconds: float) -> tuple[list[float], float]:
        """Measure for about `seconds`: seconds of every call, share of time spent waiting."""
        result: tuple[list[float], float] = self._ask("calls", name, seconds)
        return result

    def stages(self, name: str, seconds: float) -> dict[str, list[float]]:
        """Measure from image to answer for about `seconds`: seconds of every stage."""
        result: dict[str, list[float]] = self._ask("stages", name, seconds)
        return result

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a prepared engine says of itself."""
        result: dict[str, Any] = self._ask("facts", name)
        return result

    def peak_mib(self) -> float:
        """Return the largest resident memory of the process so far."""
        return peak_mib(self._process.pid)

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


def peak_mib(pid: int) -> float:
    """Return the largest resident memory that a process has had, 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found.group(1)) / 1024 if found else 0.0
