"""`Callback`: what a run does between training steps; and the clock, intervals and buffers that callbacks share."""

from __future__ import annotations

import time
from typing import Any, Protocol

from attrs import define, field

from ganlab.training.loop import Training
from ganlab.utils import distributed
from ganlab.utils.interval import Interval


class Callback(Protocol):
    """The base of a run's callbacks. All processes call every callback at the same steps and in the same order.

    A step may be reached twice: a resumed run starts at a step that was finished before. A callback then does only what
    its records or files lack.
    """

    def started(self, step: int) -> None:
        """Base of callbacks: called once, before training starts at `step`, 0 or where a resumed run continues."""
        return  # a callback need not do anything here

    def after_step(self, step: int) -> None:
        """Base of callbacks: called with the number of finished steps, once before the first step and after each."""


@define
class StepClock:
    """The callbacks' base clock: seconds spent in training steps since the last tick, without the time in callbacks."""

    seconds: float = 0.0
    _mark: float = field(factory=time.perf_counter, init=False)

    def count(self) -> None:
        """Counts since the mark, and moves it."""
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now

    def skip(self) -> None:
        """Sets the mark without counting time."""
        self._mark = time.perf_counter()

    def reset(self) -> None:
        """Back to zero seconds; the mark stays."""
        self.seconds = 0.0


def is_due(training: Training, interval: Any, step: int) -> bool:
    """Base of callbacks with an interval: whether one is due after so many steps; never at step 0."""
    # A third-party metric may have a plain number of steps.
    every = Interval.parse(interval).in_steps(training.steps_per_epoch)
    return every > 0 and step > 0 and step % every == 0


def broadcast_buffers(training: Training) -> None:
    """Base of callbacks that use networks: broadcasts the first process's buffers; each has batch norm's of its own."""
    networks = [*training.game.networks.values(), *(training.ema.networks.values() if training.ema else ())]
    distributed.broadcast_from_first(buffer for network in networks for buffer in network.buffers())
