"""A small finished run on the ladder, for the examples in docstrings: measuring takes seconds."""

from __future__ import annotations

from convship.bench.ladder import RungRow
from convship.bench.ladder_report import LadderReport, make_ladder_report
from convship.bench.rungs import RungSpec

__all__ = ["example_report"]


def example_report() -> LadderReport:
    """Return two rungs, of which ours is twice as fast, with one batch size.

    Example:
        >>> example_report().ratios[1, 2][0].interval.value
        2.0
    """
    rows = [
        RungRow("native libtorch", 1, 2, error=0.0, calls=[[4e-4, 4e-4], [2e-4]], peak_mib=130.0),
        RungRow("native fast", 1, 2, error=0.0, calls=[[2e-4, 2e-4], [1e-4]], peak_mib=131.0),
    ]
    return make_ladder_report(
        rows,
        [RungSpec(rows[0].rung, "stock", ""), RungSpec(rows[1].rung, "ours", "")],
        title="net.pt",
        settings={"rounds": 2, "slot_ms": 1.0, "input": {"input": [3, 32, 32]}},
        environment={
            "cpu": "A processor",
            "cpu_flags": ["avx2"],
            "cores": 2,
            "isa": "avx2",
            "isa_forced": False,
            "load_before": 0.0,
            "versions": {"torch": "2.13.0"},
            "build": {"build_type": "Release", "compiler": "GNU 12.2.0"},
        },
        left_out={},
        flop_seconds=[],
    )
