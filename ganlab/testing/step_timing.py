"""Times calls against each other, for the cost of a step that a conformance check reports."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 7
CALLS_PER_ROUND = 5


def median_milliseconds(contest: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Times steps, or other calls, against each other: milliseconds per call of each, for the cost a check reports.

    The functions take turns, so that a machine that slows down slows all of them; the result is the median over rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in contest}
    for round_ in range(ROUNDS + 1):
        for name, work in contest.items():
            start = time.perf_counter()
            for _ in range(CALLS_PER_ROUND):
                work()
            if round_:  # the first round warms up
                times[name].append((time.perf_counter() - start) / CALLS_PER_ROUND)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}
