"""Short turns in random order: what slows the machine down for a second hits everyone."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

__all__ = ["take_turns"]

_PAUSE_S = 0.002  # between turns: caches and clocks settle, the parent's own work is over


class _HasProblem(Protocol):
    problem: str


Taker = TypeVar("Taker")
Row = TypeVar("Row", bound=_HasProblem)


def take_turns(
    pairs: Sequence[tuple[Taker, Row]],
    rounds: int,
    order: random.Random,
    turn: Callable[[Taker, Row], None],
    between: Callable[[], None] = lambda: None,
) -> None:
    """Give everyone a turn in each round, in random order, as long as it has no problem.

    Args:
        pairs: Who takes turns, each with the row that its results go to.
        rounds: Turns of each.
        order: Shuffles every round.
        turn: Measures; notes in the row what fails.
        between: Called after each round.

    Example:
        >>> from types import SimpleNamespace
        >>> rows = [SimpleNamespace(problem="", turns=[]), SimpleNamespace(problem="wrong")]
        >>> pairs = list(zip("ab", rows, strict=True))
        >>> take_turns(pairs, 2, random.Random(0), lambda taker, row: row.turns.append(taker))
        >>> rows[0].turns
        ['a', 'a']
    """
    shuffled = list(pairs)
    for _ in range(rounds):
        order.shuffle(shuffled)
        for taker, row in shuffled:
            if not row.problem:
                time.sleep(_PAUSE_S)
                turn(taker, row)
        between()
