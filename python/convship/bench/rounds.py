"""Engines taking turns: compare the answers, then time in short rounds of random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from convship.bench.catalogue import EngineSpec
from convship.bench.client import Worker, WorkerError
from convship.bench.grid import NOTHING, Case
from convship.bench.meter import Meter
from convship.bench.reference import Reference
from convship.bench.settings import Settings
from convship.bench.turns import take_turns

_NOTHING_SHARE = 0.125  # of a slot, for the call with nothing to do


@dataclass
class Row:
    """One engine on one shape.

    Attributes:
        engine: Its name.
        error: Largest error of the output over sum |x w|; None where there is no output.
        problem: Why its times are not believed, or do not exist; empty where all is well.
        seconds: Seconds per call, one value per round.
        nothing: Seconds of a call with nothing to do, right after each of these.
        waited: Share of each turn in which another program had the core.
    """

    engine: str
    error: float | None = None
    problem: str = ""
    seconds: list[float] = field(default_factory=list)
    nothing: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


@dataclass
class Measured:
    """All that a run measured.

    Attributes:
        rows: A list of rows per case, in the order of the engines.
        flop_seconds: Seconds per floating-point operation of one core, per round; empty where
            this build cannot measure it.
    """

    rows: dict[Case, list[Row]] = field(default_factory=dict)
    flop_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        rounds: Turns of every engine on every shape.
        slot_s: Length of one turn in seconds.
        cpus: Cores that every worker is pinned to.
        seed: Of the order of turns.
    """

    rounds: int
    slot_s: float
    cpus: tuple[int, ...]
    seed: int = 0


def measure(
    cases: Sequence[Case],
    specs: Sequence[EngineSpec],
    settings: Settings,
    plan: Plan,
    say: Callable[[str], None],
) -> Measured:
    """Measure every engine on every case.

    Args:
        cases: The shapes.
        specs: The engines, each in a process of its own.
        settings: What they compute.
        plan: How long.
        say: Told what happens, a line at a time.
    """
    with ExitStack() as stack:
        say(f"starting {len(specs)} engines")
        measurement = _Measurement(settings, plan, say)
        stack.callback(measurement.meter.close)
        for spec in specs:
            worker = Worker(spec, settings, plan.cpus)
            stack.callback(worker.close)
            measurement.workers.append(worker)
        measurement.start()
        for number, case in enumerate(cases, 1):
            say(f"shape {number}/{len(cases)}: {case.name}")
            measurement.measure(case)
        measurement.result.flop_seconds = measurement.meter.seconds
    return measurement.result


class _Measurement:
    def __init__(self, settings: Settings, plan: Plan, say: Callable[[str], None]) -> None:
        self.workers: list[Worker] = []
        self.meter = Meter(settings, plan.cpus)
        self.result = Measured()
        self._broken: dict[str, str] = {}
        self._settings = settings
        self._plan = plan
        self._say = say
        self._random = random.Random(plan.seed)

    def start(self) -> None:
        """Wait for the workers; make their call with nothing to do ready."""
        self.meter.start()
        for worker in self.workers:
            try:
                worker.wait_until_started()
                worker.prepare(NOTHING)
            except WorkerError as error:
                self._broken[worker.name] = f"does not start: {error}"
                self._say(f"{worker.name} {self._broken[worker.name]}")

    def measure(self, case: Case) -> None:
        """Check all answers, then let those that are right take turns."""
        reference = Reference(case, self._settings.dtype, self._settings.train)
        rows = [self._prepare(worker, case, reference) for worker in self.workers]
        self.result.rows[case] = rows
        turns = [pair for pair in zip(self.workers, rows, strict=True) if not pair[1].problem]
        take_turns(
            turns,
            self._plan.rounds,
            self._random,
            lambda worker, row: self._turn(worker, row, case),
            self.meter.measure,
        )
        for worker, _ in turns:
            try:
                worker.drop(case.name)
            except WorkerError as error:
                self._broken[worker.name] = str(error)

    def _prepare(self, worker: Worker, case: Case, reference: Reference) -> Row:
        row = Row(worker.name, problem=self._broken.get(worker.name, ""))
        if row.problem:
            return row
        try:
            outputs = worker.prepare(case)
            row.error = reference.error(outputs["output"])
            row.problem = reference.objection(outputs)
        except WorkerError as error:
            row.problem = str(error)
        if row.problem:
            self._say(f"{worker.name} on {case.name}: {row.problem}")
        return row

    def _turn(self, worker: Worker, row: Row, case: Case) -> None:
        try:
            seconds, waited = worker.measure(case.name, self._plan.slot_s)
            nothing, _ = worker.measure(NOTHING.name, self._plan.slot_s * _NOTHING_SHARE)
        except WorkerError as error:
            row.problem = str(error)
            row.seconds, row.nothing, row.waited = [], [], []
            self._say(f"{worker.name} on {case.name}: {row.problem}")
            return
        row.seconds.append(seconds)
        row.nothing.append(nothing)
        row.waited.append(waited)
