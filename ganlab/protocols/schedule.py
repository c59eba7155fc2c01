"""The protocol of a schedule: how an option changes in the course of a run."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """A schedule's protocol: an option's value at each step, a plain number computed outside the step.

    `key` names the scheduled option as `--set` does: "optimizer.lr", "penalty.0.gamma". When `value` is called, the
    schedule's own `Interval` options are in steps, whatever unit the experiment file has.
    """

    @property
    def key(self) -> str: ...

    def value(self, first: float, step: int, total: int, /) -> float:
        """A schedule's protocol: returns the option's value in a step, counted from 0, of a run of `total` steps.

        `first` is the value in the experiment file. The result depends on the arguments alone, so that a resumed run
        continues with the same values.
        """
        ...
