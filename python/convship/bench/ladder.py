"""`convship bench model.pt`: one network on every rung, the whole run from names to a report."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convship.bench.answers import Answers
from convship.bench.client import Worker, WorkerError
from convship.bench.environment import choose_cpus, describe_environment
from convship.bench.ladder_report import LadderReport, make_ladder_report
from convship.bench.meter import Meter
from convship.bench.native_worker import NativeWorker
from convship.bench.network import Network, open_network
from convship.bench.network_case import NetworkCase
from convship.bench.rungs import RungSpec, choose_rungs
from convship.bench.settings import Settings
from convship.bench.stages import of_turn
from convship.bench.turns import take_turns

__all__ = ["RungRow", "bench_model"]

_STAGES_SHARE = 0.5  # of a slot, for the way from an image to its class


@dataclass
class RungRow:
    """One rung with one batch size and number of threads.

    Attributes:
        rung: Its name.
        batch: Images per call.
        threads: Threads per call.
        error: Largest error over an output's largest value; None where there is no output.
        problem: Why its times are not believed, or do not exist; empty where all is well.
        facts: What it says of itself: load and first call in seconds, threads, grad.
        calls: Seconds of every call, a list per round.
        waited: Share of each turn in which another program had the core.
        stages: Seconds of each stage from image to class, a median per turn.
        peak_mib: Largest resident memory of its process after load and first calls.
    """

    rung: str
    batch: int
    threads: int
    error: float | None = None
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    calls: list[list[float]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    peak_mib: float = 0.0


def bench_model(
    model: str | Path,
    *,
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    rungs: Sequence[str | RungSpec] | None = None,
    size: Sequence[int] | None = None,
    allow_plain: bool = False,
    image: str | Path | None = None,
    rounds: int = 15,
    slot_ms: float = 100.0,
    say: Callable[[str], None] = lambda line: None,
) -> LadderReport:
    """Measure one network on every rung.

    Args:
        model: A shipped file, a run's folder, or a network's name; see `open_network`.
        batches: Images per call.
        threads: Threads per call, each on a core of its own.
        rungs: Names or groups of `RUNGS`, or rungs of your own; None for all. Those that cannot
            take part are left out, and the report says why.
        size: Sizes of one image, where the file does not say.
        allow_plain: Accept a TorchScript file that convship did not write.
        image: JPEG or PNG for the way from bytes to classes; None: a golden of the file.
        rounds: Turns of every rung.
        slot_ms: Length of a turn.
        say: Told what happens, a line at a time.

    Raises:
        ModelFileError: The file is damaged or of another kind.
        ValueError: A name is unknown, or a setting is not possible.

    Example:
        >>> report = bench_model("lenet5", rungs=["python torchscript"], rounds=1, slot_ms=1)
        >>> report.results[0]["rung"], report.results[0]["p50_us"] > 0
        ('python torchscript', True)
    """
    _check(batches, threads, rounds, slot_ms)
    cpus = {count: choose_cpus(count) for count in threads}
    environment = describe_environment(Settings(max(threads)), cpus[max(threads)])
    with tempfile.TemporaryDirectory(prefix="convship-bench-") as name:
        folder = Path(name)
        network = open_network(model, folder, size=size, allow_plain=allow_plain, image=image)
        names = [rung for rung in rungs or () if isinstance(rung, str)]
        own = [rung for rung in rungs or () if isinstance(rung, RungSpec)]
        chosen, left_out = (
            choose_rungs(names or None, bool(network.module), network.package)
            if names or not own
            else ([], {})
        )
        for rung, reason in left_out.items():
            say(f"without {rung}: {reason}")
        # An nn.Module made of our layers is no stock torch.
        specs = [
            replace(spec, kind="ours") if spec.module and network.fused else spec
            for spec in [*own, *chosen]
        ]
        ladder = _Ladder(network, specs, folder, rounds, slot_ms / 1e3, say)
        for count in threads:
            for batch in batches:
                ladder.measure(batch, count, cpus[count])
    return make_ladder_report(
        ladder.rows,
        specs,
        title=network.title,
        settings={
            "rounds": rounds,
            "slot_ms": slot_ms,
            "batches": list(batches),
            "threads": list(threads),
            "input": {name: list(rows.shape[1:]) for name, rows in network.rows.items()},
        },
        environment=environment,
        left_out=left_out,
        flop_seconds=ladder.flop_seconds,
    )


def _check(batches: Sequence[int], threads: Sequence[int], rounds: int, slot_ms: float) -> None:
    for name, values in (("batch", batches), ("threads", threads)):
        if not values or min(values) < 1 or len(set(values)) < len(values):
            msg = f"bench: {name} must be positive numbers, each once, got {list(values)}"
            raise ValueError(msg)
    if rounds < 1 or slot_ms <= 0:
        msg = f"bench: rounds and slot_ms must be positive, got {rounds} and {slot_ms}"
        raise ValueError(msg)


class _Ladder:
    def __init__(
        self,
        network: Network,
        specs: list[RungSpec],
        folder: Path,
        rounds: int,
        slot_s: float,
        say: Callable[[str], None],
    ) -> None:
        self.rows: list[RungRow] = []
        self.flop_seconds: list[float] = []
        self._network = network
        self._specs = specs
        self._folder = folder
        self._rounds = rounds
        self._slot_s = slot_s
        self._say = say
        self._random = random.Random(0)

    def measure(self, batch: int, threads: int, cpus: tuple[int, ...]) -> None:
        """Start the rungs, compare their answers, then let those that are right take turns."""
        self._say(f"{self._network.title}: batch {batch}, threads {threads}")
        case = self._network.case(batch, self._folder)
        case, onnx_problem = self._with_onnx(case)
        answers = Answers(case)
        settings = Settings(threads)
        with ExitStack() as stack:
            # A process per rung and case: load, first call and memory are of this case alone.
            meter = Meter(settings, cpus)
            stack.callback(meter.close)
            workers: list[Worker | NativeWorker] = []
            for spec in self._specs:
                kind = NativeWorker if spec.native else Worker
                worker = kind(spec, settings, cpus)
                stack.callback(worker.close)
                workers.append(worker)
            meter.start()
            pairs = []
            for spec, worker in zip(self._specs, workers, strict=True):
                row = RungRow(spec.name, batch, threads)
                if spec.onnx:
                    row.problem = onnx_problem
                self._prepare(worker, row, case, answers)
                self.rows.append(row)
                pairs.append((worker, row))
            take_turns(
                [pair for pair in pairs if not pair[1].problem],
                self._rounds,
                self._random,
                lambda worker, row: self._turn(worker, row, case),
                meter.measure,
            )
            self.flop_seconds += meter.seconds

    def _with_onnx(self, case: NetworkCase) -> tuple[NetworkCase, str]:
        if not any(spec.onnx for spec in self._specs):
            return case, ""
        from convship.bench.onnx_export import export_onnx

        path = self._folder / f"batch-{case.batch}.onnx"
        problem = "" if path.exists() else export_onnx(case, path)
        return replace(case, onnx=str(path)), problem

    def _prepare(
        self, worker: Worker | NativeWorker, row: RungRow, case: NetworkCase, answers: Answers
    ) -> None:
        try:
            worker.wait_until_started()
            if row.problem:
                return
            outputs = list(worker.prepare(case).values())
            row.facts = worker.facts(case.name)
            row.peak_mib = worker.peak_mib()
            row.error = answers.error(outputs)
            row.problem = answers.objection(outputs)
        except WorkerError as error:
            row.problem = str(error)
        if row.problem:
            self._say(f"{row.rung}: {row.problem}")

    def _turn(self, worker: Worker | NativeWorker, row: RungRow, case: NetworkCase) -> None:
        try:
            calls, waited = worker.calls(case.name, self._slot_s)
            stages = {}
            if case.batch == 1 and case.image:
                stages = worker.stages(case.name, self._slot_s * _STAGES_SHARE)
        except WorkerError as error:
            row.problem = str(error)
            row.calls, row.waited, row.stages = [], [], {}
            self._say(f"{row.rung}: {row.problem}")
            return
        row.calls.append(calls)
        row.waited.append(waited)
        for name, seconds in of_turn(stages, calls).items():
            row.stages.setdefault(name, []).append(seconds)
