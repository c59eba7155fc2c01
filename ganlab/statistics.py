"""What a few seeds can say: means with 95% t intervals, differences paired by seed, and a verdict in words.

At three to five seeds a t interval covers the mean 95% of the time where scores are roughly normal; a bootstrap covers
it 75 to 82% of the time. Nothing here drops a value: one that is not finite makes the mean not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import frozen

CONFIDENCE = 0.95


@frozen
class Estimate:
    """A mean over `count` values and its 95% t interval; `low` and `high` are None where there is none to be had."""

    mean: float
    low: float | None
    high: float | None
    count: int


def estimate(values: Sequence[float]) -> Estimate:
    """The mean and Student's interval (1908); no interval for fewer than two values, or where one is not finite."""
    count = len(values)
    mean = sum(values) / count if count else math.nan
    if count < 2 or not all(map(math.isfinite, values)):
        return Estimate(mean, None, None, count)
    from scipy.stats import t

    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


def paired(values: Mapping[int | None, float], baseline: Mapping[int | None, float]) -> Estimate:
    """The mean difference to the baseline over the seeds that both have; values without a seed (None) pair too."""
    return estimate([values[seed] - baseline[seed] for seed in values if seed in baseline])


def verdict(difference: Estimate, better: str | None) -> str:
    """ "better" or "worse" where the interval of the difference leaves 0 out, else "cannot tell".

    `better` is "lower" or "higher"; without it nothing can be told.
    """
    if difference.low is None or difference.high is None or better not in ("lower", "higher"):
        return "cannot tell"
    if difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "better" if (difference.mean < 0) == (better == "lower") else "worse"
