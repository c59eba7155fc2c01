"""ganlab.protocols.schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    pass


@runtime_checkable
class Schedule(Protocol):
    """How an option changes while a run goes on: a plain number at each step, computed beside the step.

    `key` names the option as `--set` does: "optimizer.lr", "penalty.0.gamma". The schedule's own options that are an
    `Interval` are in steps, whatever the experiment file has, when `value` is called.
    """

    @property
    def key(self) -> str: ...

    def value(self, first: float, step: int, total: int, /) -> float:
        """What the option has in a step, counted from 0, of a run of `total` steps; the file gives it `first`.

        A function of its arguments alone, so that a resumed run goes on with the same values.
        """
        ...
