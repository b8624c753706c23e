"""One image's way from its bytes to its class, cut into stages."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

__all__ = ["of_turn"]


def of_turn(stages: Mapping[str, Sequence[float]], calls: Sequence[float]) -> dict[str, float]:
    """Return the median of each stage of one turn; empty where none was measured.

    What a rung cannot time alone is what the others leave of the whole in the same turn, so that
    a machine that is slow for a while does not take one stage's time for another's.

    Args:
        stages: Seconds of "end_to_end", and of "decode", "preprocess" and "network" where the rung
            can time them, or of "from_pixels", which is all but decoding.
        calls: Seconds of the network alone in this turn.

    Example:
        >>> of_turn({"end_to_end": [9.0], "from_pixels": [7.0]}, [4.0])
        {'end_to_end': 9.0, 'network': 4.0, 'decode': 2.0, 'preprocess': 3.0}
    """
    if not stages:
        return {}
    found = {name: statistics.median(seconds) for name, seconds in stages.items()}
    found.setdefault("network", statistics.median(calls))
    later = found.pop("from_pixels", None)
    if later is not None:
        found["decode"] = found["end_to_end"] - later
    rest = found["end_to_end"] - found["network"] - found["decode"]
    found.setdefault("preprocess", rest)
    return found
