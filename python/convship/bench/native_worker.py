"""The native rungs: convship-run in its worker mode, spoken to as the Python workers are."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from typing import Any

import numpy as np

from convship.bench.catalogue import EngineSpec
from convship.bench.client import WorkerError, peak_mib
from convship.bench.grid import Floats
from convship.bench.network_case import NetworkCase
from convship.bench.settings import Settings
from convship.bench.worker import waited_s
from convship.verify import native_program

_US = 1e6


class NativeWorker:
    """As `client.Worker`: a process of its own, stopped whenever it is not asked.

    It starts in `prepare`, because one process holds one network.
    """

    def __init__(self, spec: EngineSpec, settings: Settings, cpus: tuple[int, ...]) -> None:
        self.name = spec.name
        self._spec = spec
        self._settings = settings
        self._cpus = cpus
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._hello: dict[str, Any] = {}

    def wait_until_started(self) -> None:
        """Nothing to wait for yet."""

    def prepare(self, case: NetworkCase) -> dict[str, Floats]:
        """Start, load, and return the outputs."""
        self._process = self._start(case)
        self._hello = self._answer()
        with tempfile.TemporaryDirectory(prefix="convship-bench-") as folder:
            written = self._ask(f"write {folder}")["outputs"]
            return {each["name"]: np.load(each["path"]) for each in written}

    def facts(self, name: str) -> dict[str, Any]:
        """Return load, first call and threads."""
        return {
            "load_s": self._hello["load_us"] / _US,
            "first_s": self._hello["first_us"] / _US,
            "threads": self._hello["threads"],
        }

    def calls(self, name: str, seconds: float) -> tuple[list[float], float]:
        """Measure the network: seconds of every call, share of time spent waiting."""
        assert self._process is not None
        start, waited = time.perf_counter(), waited_s(self._process.pid)
        times = self._measure("network", seconds)
        elapsed = (time.perf_counter() - start) * self._settings.threads
        return times, (waited_s(self._process.pid) - waited) / elapsed

    def stages(self, name: str, seconds: float) -> dict[str, list[float]]:
        """Measure from the image's bytes, and from its pixels, to classes."""
        if not self._image:
            return {}
        return {what: self._measure(what, seconds / 2) for what in ("from_pixels", "end_to_end")}

    def peak_mib(self) -> float:
        """Return the largest resident memory of the process so far."""
        return peak_mib(self._process.pid) if self._process else 0.0

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what was to be written last is not wanted
                    stream.close()  # type: ignore[union-attr]
        self._errors.close()

    def _start(self, case: NetworkCase) -> subprocess.Popen[str]:
        self._image = case.image
        command = [
            *(str(native_program()), "bench", "--worker"),
            *("--backend", str(self._spec.options["backend"])),
            *("--threads", str(self._settings.threads)),
            *(word for name, path in case.inputs for word in ("--input", f"{name}={path}")),
            *(("--image", case.image) if case.image else ()),
            *(("--plain",) if case.plain else ()),
            *("--", case.model),
        ]
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus)  # a child has the cores of the thread that starts it
        try:
            return subprocess.Popen(
                command,
                env={**os.environ, **self._settings.environment(), **self._spec.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
        finally:
            os.sched_setaffinity(0, before)

    def _measure(self, what: str, seconds: float) -> list[float]:
        return [us / _US for us in self._ask(f"measure {what} {seconds:g}")["us"]]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        with contextlib.suppress(OSError):  # it has ended; _answer says how
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise WorkerError(f"its process ended with code {code}: {last[:300] or 'no message'}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        self._process.send_signal(signal.SIGSTOP)
        return answer
