"""A shorter timing of steps, for tests that do not look at the time; `pytest -p quick_timing` has it in a process."""

from __future__ import annotations

from ganlab.bench import benchmark
from ganlab.testing import step_timing

ROUNDS = CALLS_PER_ROUND = 1
"""Instead of forty calls the conformance suite times two."""

TURN_SECONDS = 0.02
"""How long a loop of the benchmark has its turn, of which there are still five or more."""


def shorten() -> None:
    step_timing.ROUNDS, step_timing.CALLS_PER_ROUND = ROUNDS, CALLS_PER_ROUND
    benchmark.TURN_SECONDS = TURN_SECONDS


def pytest_configure() -> None:
    shorten()
