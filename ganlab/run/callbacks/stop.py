"""The stop callback: on a signal to stop, saves a checkpoint and interrupts the run between two steps."""

from __future__ import annotations

from attrs import define, field

from ganlab.run.callbacks.base import Callback
from ganlab.run.callbacks.checkpoints import CheckpointsCallback
from ganlab.run.opened_run import OpenedRun
from ganlab.utils import distributed
from ganlab.utils.errors import Interrupted


@define
class StopCallback(Callback):
    """The stop callback: interrupts a run of which any process has received a signal to stop."""

    run: OpenedRun
    checkpoints: CheckpointsCallback
    _stopping: bool = field(default=False, init=False)

    def agree(self) -> None:
        """Stop callback: lets all processes agree, before a step's other callbacks, on whether a stop was requested."""
        self._stopping = distributed.any_process(self.run.stop.requested)

    def save_if_stopping(self, step: int) -> None:
        """Stop callback: saves a checkpoint if a stop was requested, also while a single process was scoring."""
        if distributed.world_size() == 1:  # else a late request waits for the next step, where all agree on it
            self._stopping = self._stopping or self.run.stop.requested
        if self._stopping:
            self.checkpoints.save(step)

    def after_step(self, step: int) -> None:
        """Stop callback: raises Interrupted if a stop was requested, unless this was the last step."""
        if self._stopping and step != self.run.training.total_steps:
            raise Interrupted(f"stopped after step {step:,} on request")
