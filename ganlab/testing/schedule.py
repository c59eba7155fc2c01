"""The conformance checks of a schedule: finite values that depend on the step alone, and a tiny training under it."""

from __future__ import annotations

import math

import numpy as np

from ganlab.testing.check_result import Fault
from ganlab.testing.inspection import Inspection
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks

FIRST_VALUES = (1.0, 2e-4)
"""Values that the scheduled option has in the experiment file."""

RUN_LENGTHS = (1, 7, 1000, 10**9)
STEPS_PER_RUN = 100


def check_schedule(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a schedule."""
    run_check = inspection.run_check
    finite = run_check(
        f"values: a finite number in every step, for runs of {', '.join(f'{total:,}' for total in RUN_LENGTHS)} steps",
        lambda: _check_finite(inspection),
    )
    pure = run_check(
        "pure: returns the same in another order of steps, and from a new one", lambda: _check_pure(inspection), finite
    )
    run_training_checks(inspection, tiny, finite, pure)


def _cases() -> list[tuple[float, int, int]]:
    """The (first, step, total) with which the schedule under check is called."""
    return [
        (first, step, total)
        for first in FIRST_VALUES
        for total in RUN_LENGTHS
        for step in sorted({index * (total - 1) // STEPS_PER_RUN for index in range(STEPS_PER_RUN + 1)})
    ]


def _check_finite(inspection: Inspection) -> str:
    """Checks that a schedule returns a finite number in the steps of short and of long runs."""
    schedule, at = inspection.fresh(), inspection.line_of("value")
    values = []
    for first, step, total in _cases():
        value = schedule.value(first, step, total)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            # NumPy's float64 is a Python float; its other numbers are not, and a checkpoint could not hold them.
            own = "a Python float; float(...) converts it" if isinstance(value, np.generic) else "a finite number"
            raise Fault(f"returns {value!r} in step {step} of {total}, expected {own}", at)
        values.append(value)
    options = " or ".join(f"{first:g}" for first in FIRST_VALUES)
    return f"from {min(values):g} to {max(values):g}, of an option that is {options}"


def _check_pure(inspection: Inspection) -> None:
    """Checks that a schedule's values depend on the step alone: not on earlier calls, not on the instance."""
    schedule, at = inspection.fresh(), inspection.line_of("value")
    values = {case: schedule.value(*case) for case in _cases()}
    for case in reversed(_cases()):
        for asked, which in ((schedule, "asked again"), (inspection.fresh(), "of a new one")):
            if (value := asked.value(*case)) != values[case]:
                raise Fault(f"returns {values[case]!r} in step {case[1]} of {case[2]} and, {which}, {value!r}", at)
