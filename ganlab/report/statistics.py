"""Statistics over few seeds: means with 95% t intervals, paired differences, p values and Holm's procedure.

Decisions:
- A t interval, not a bootstrap: at three to five seeds a t interval covers the mean 95% of the time where scores are
  roughly normal, a bootstrap 75 to 82% of the time.
- Where the difference is the same with every seed, as that of small whole numbers often is, its interval has no width
  and its t test no meaning: the p value is that of the sign test. With a score that is 7 or 8 by chance, one table of
  two seeds in eight would otherwise have a verdict.
- No value is dropped: one that is not finite makes the mean not finite.
- Verdicts on several variants are corrected for multiple comparisons, because each comparison with the baseline is
  another chance of a false positive.
- Holm's procedure is five lines here. scipy has none, and statsmodels would add pandas, 150 MB and half a second to
  `ganlab compare` for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import frozen

CONFIDENCE = 0.95


@frozen
class Estimate:
    """A mean over `count` values and its 95% t interval; `low` and `high` are None where no interval is possible."""

    mean: float
    low: float | None
    high: float | None
    count: int


def mean_with_interval(values: Sequence[float]) -> Estimate:
    """The mean and its t interval (Student 1908); no interval for fewer than two values or where one is not finite."""
    count = len(values)
    mean = sum(values) / count if count else math.nan
    if count < 2 or not all(map(math.isfinite, values)):
        return Estimate(mean, None, None, count)
    from scipy.stats import t

    spread = math.dist(values, [mean] * count) / math.sqrt(count - 1)  # without squares, which may overflow
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count)


def paired_difference(values: Mapping[int | None, float], baseline: Mapping[int | None, float]) -> Estimate:
    """The mean difference to the baseline, paired by seed, over the seeds that both have; None pairs too."""
    return mean_with_interval([values[seed] - baseline[seed] for seed in values if seed in baseline])


def p_value(difference: Estimate) -> float | None:
    """The two-sided p value of a mean difference by Student's t test against 0; None where there is no interval.

    It is that of the sign test (Arbuthnot 1710) where the difference has no spread.
    """
    if difference.low is None or difference.high is None:
        return None
    half = (difference.high - difference.low) / 2
    if has_no_spread(difference):
        return 2.0 ** (1 - difference.count)
    if half == 0:
        return 1.0
    from scipy.stats import t

    freedom = difference.count - 1
    return float(2 * t.sf(abs(difference.mean) * t.ppf((1 + CONFIDENCE) / 2, freedom) / half, freedom))


def has_no_spread(difference: Estimate) -> bool:
    """Whether a difference is other than 0 and the same with every seed, up to rounding."""
    if difference.low is None or difference.high is None:
        return False
    return difference.high - difference.low <= 1e-9 * abs(difference.mean) > 0


def holm_verdicts(differences: Mapping[str, Estimate], better: str | None) -> dict[str, str]:
    """The verdict on each variant compared with one baseline: "better", "worse" or "cannot tell".

    Holm's step-down procedure (1979) keeps the family-wise error rate at 5%: in at most one table in 20 is there a
    verdict on any variant that does not differ from the baseline. For a single variant the verdict says whether the
    interval excludes 0, or what the sign test says where the interval has no width. `better` is "lower" or "higher";
    with None every verdict is "cannot tell".
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
