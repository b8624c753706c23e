"""`convship bench op`: the whole run, from names to a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from convship.bench.catalogue import EngineSpec, choose_engines
from convship.bench.environment import check_isa, choose_cpus, describe_environment
from convship.bench.grid import choose_cases, load_grid
from convship.bench.report import Report, make_report
from convship.bench.rounds import Plan, measure
from convship.bench.settings import Settings

__all__ = ["bench_op"]


def bench_op(
    grid: str | Path = "peers",
    shapes: Sequence[str] | None = None,
    engines: Sequence[str | EngineSpec] | None = None,
    settings: Settings | None = None,
    *,
    rounds: int = 15,
    slot_ms: float = 40.0,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure conv_pool2d beside other engines.

    Args:
        grid: "peers", "odd", "random" or a JSON file; see `load_grid`.
        shapes: Names from the grid; None for all.
        engines: Names or groups of the catalogue, or engines of your own; None for all. Those
            that cannot take part are left out, and the report says why.
        settings: Threads, dtype, layout, instruction set, training.
        rounds: Turns of every engine on every shape.
        slot_ms: Length of a turn.
        say: Told what happens, a line at a time.

    Raises:
        ValueError: A name is unknown, or a setting is not possible on this machine.

    Example:
        >>> report = bench_op(shapes=["lenet2"], engines=["torch eager"], rounds=1, slot_ms=1)
        >>> report.shapes[0].best_peer
        'torch eager'
    """
    settings = settings or Settings()
    check_isa(settings.isa)
    if rounds < 1 or slot_ms <= 0:
        msg = f"bench: rounds and slot_ms must be positive, got {rounds} and {slot_ms}"
        raise ValueError(msg)
    cases = choose_cases(load_grid(grid), shapes)
    names = [name for name in engines or () if isinstance(name, str)]
    own = [spec for spec in engines or () if isinstance(spec, EngineSpec)]
    chosen, left_out = choose_engines(names or None, settings) if names or not own else ([], {})
    specs = [*own, *chosen]
    for name, reason in left_out.items():
        say(f"without {name}: {reason}")
    cpus = choose_cpus(settings.threads)
    environment = describe_environment(settings, cpus)
    plan = Plan(rounds, slot_ms / 1e3, cpus)
    measured = measure(cases, specs, settings, plan, say)
    return make_report(
        measured,
        specs,
        settings,
        run={"grid": str(grid), "rounds": rounds, "slot_ms": slot_ms},
        environment=environment,
        left_out=left_out,
    )
