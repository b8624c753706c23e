"""Medians, intervals and geometric means of what the rounds gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Interval",
    "geometric_mean",
    "geometric_mean_interval",
    "median_interval",
    "relative_spread",
]

_CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval.

    Attributes:
        value: Median, or geometric mean of medians.
        low: Lower end.
        high: Upper end.
        coverage: How often such an interval holds the true value; below 0.95 with few rounds.
    """

    value: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float]) -> Interval:
    """Return the median and its 95 % interval from order statistics; no distribution assumed.

    The interval from the k-th smallest to the k-th largest of n values misses the median with
    probability 2 P(Binomial(n, 1/2) < k). With fewer than six values even the whole range is
    less than 95 % sure; `coverage` says how sure.

    Raises:
        ValueError: There is no value.

    Example:
        >>> median_interval([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        Interval(value=5.5, low=2, high=9, coverage=0.978515625)
    """
    if not values:
        raise ValueError("bench: a median needs at least one value, got none")
    ordered, count = sorted(values), len(values)
    middle = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    rank, missed = 1, 2 * 0.5**count
    while rank < (count + 1) // 2:
        wider = missed + 2 * math.comb(count, rank) * 0.5**count
        if wider > 1 - _CONFIDENCE:
            break
        rank, missed = rank + 1, wider
    return Interval(middle, ordered[rank - 1], ordered[count - rank], max(0.0, 1 - missed))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive values.

    Example:
        >>> geometric_mean([1, 4])
        2.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def geometric_mean_interval(rounds: Sequence[Sequence[float]]) -> Interval:
    """Return the geometric mean over shapes of the median over rounds, 95 % by bootstrap.

    Args:
        rounds: The ratios of every round, a list per shape.

    Example:
        >>> geometric_mean_interval([[1, 1, 1], [4, 4, 4]]).value
        2.0
    """
    random = np.random.default_rng(0)  # the same data, the same interval
    logs = [np.log(np.asarray(ratios, np.float64)) for ratios in rounds]
    value = geometric_mean([median_interval(ratios).value for ratios in rounds])
    means = np.zeros(_RESAMPLES)
    for shape in logs:
        drawn = random.integers(len(shape), size=(_RESAMPLES, len(shape)))
        means += np.median(shape[drawn], axis=1) / len(logs)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.exp(np.quantile(means, [tail, 1 - tail]))
    return Interval(value, float(low), float(high), _CONFIDENCE)


def relative_spread(values: Sequence[float]) -> float:
    """Return the range of the middle 80 % of the values, over their median.

    Example:
        >>> relative_spread([1.0] * 9 + [50.0])
        0.0
    """
    low, middle, high = np.quantile(np.asarray(values, np.float64), [0.1, 0.5, 0.9], method="lower")
    return float((high - low) / middle)
