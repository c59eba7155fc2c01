"""What a few seeds can say: means with 95% t intervals, differences paired by seed, and verdicts in words.

At three to five seeds a t interval covers the mean 95% of the time where scores are roughly normal; a bootstrap covers
it 75 to 82% of the time. Nothing here drops a value: one that is not finite makes the mean not finite. Many variants
against one baseline are many chances to be wrong, so verdicts are of all of them together.
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


def p_value(difference: Estimate) -> float | None:
    """How likely a mean at least so far from 0 is where the true one is 0, by Student's t; None without an interval."""
    if difference.low is None or difference.high is None:
        return None
    half = (difference.high - difference.low) / 2
    if half == 0:
        return float(difference.mean == 0)
    from scipy.stats import t

    freedom = difference.count - 1
    return float(2 * t.sf(abs(difference.mean) * t.ppf((1 + CONFIDENCE) / 2, freedom) / half, freedom))


def verdicts(differences: Mapping[str, Estimate], better: str | None) -> dict[str, str]:
    """ "better" or "worse" for each of the variants that are held against one baseline, or "cannot tell".

    They hold for all together, by Holm's procedure (1979): of the variants that do not differ from the baseline,
    whatever the others do, at most one table in 20 says of any that it does. Of one variant alone it is whether the
    interval leaves 0 out. `better` is "lower" or "higher"; without it nothing can be told.
    """
    said = dict.fromkeys(differences, "cannot tell")
    if better not in ("lower", "higher"):
        return said
    values = {name: p for name, difference in differences.items() if (p := p_value(difference)) is not None}
    for rank, name in enumerate(sorted(values, key=values.__getitem__)):
        if values[name] >= (1 - CONFIDENCE) / (len(values) - rank):
            break
        said[name] = "better" if (differences[name].mean < 0) == (better == "lower") else "worse"
    return said
