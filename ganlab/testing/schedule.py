"""What a schedule is checked for: that its values are numbers and a function of the step, and a game under it."""

from __future__ import annotations

import math

from ganlab.testing.inspection import Fault, Inspection
from ganlab.testing.tiny_training import TinyGame, look_at_game

FIRSTS = (1.0, 2e-4)
TOTALS = (1, 7, 1000, 10**9)
SOME = 100


def check_schedule(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    numbers = look(
        f"values: a finite number in every step, for runs of {', '.join(f'{total:,}' for total in TOTALS)} steps",
        lambda: _numbers(inspection),
    )
    pure = look("pure: asked in another order, and anew, it gives the same", lambda: _pure(inspection), numbers)
    look_at_game(inspection, game, numbers, pure)


def _cases() -> list[tuple[float, int, int]]:
    return [
        (first, step, total)
        for first in FIRSTS
        for total in TOTALS
        for step in sorted({number * (total - 1) // SOME for number in range(SOME + 1)})
    ]


def _numbers(inspection: Inspection) -> str:
    schedule, at = inspection.fresh(), inspection.line_of("value")
    values = []
    for first, step, total in _cases():
        value = schedule.value(first, step, total)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Fault(f"gives {value!r} in step {step} of {total}, wanted a finite number", at)
        values.append(value)
    return f"from {min(values):g} to {max(values):g}, of an option that is {' or '.join(f'{x:g}' for x in FIRSTS)}"


def _pure(inspection: Inspection) -> None:
    schedule, at = inspection.fresh(), inspection.line_of("value")
    values = {case: schedule.value(*case) for case in _cases()}
    for case in reversed(_cases()):
        for asked, which in ((schedule, "asked again"), (inspection.fresh(), "of a new one")):
            if (value := asked.value(*case)) != values[case]:
                raise Fault(f"gives {values[case]!r} in step {case[1]} of {case[2]} and, {which}, {value!r}", at)
