"""`CallbackList`: the callbacks of a run in their order, called by the training loop between steps.

The order is log, samples, checkpoints, scores, stop. Of several processes the first writes, and all take part in what
they must agree on: sums, scores, stopping. Training's random streams are not touched.
"""

from __future__ import annotations

from ganlab.run.callbacks.base import StepClock, is_due
from ganlab.run.callbacks.checkpoints import CheckpointsCallback
from ganlab.run.callbacks.finite_check import FiniteCheck
from ganlab.run.callbacks.log import LogCallback
from ganlab.run.callbacks.samples import SamplesCallback
from ganlab.run.callbacks.scores import ScoresCallback
from ganlab.run.callbacks.stop import StopCallback
from ganlab.run.opened_run import OpenedRun
from ganlab.utils.device import synchronize


class CallbackList:
    """The list of a run's callbacks, called in order. `step` is the number of steps finished at the latest call."""

    def __init__(self, run: OpenedRun) -> None:
        self.step = 0
        self._view, self._total_steps = run.view, run.training.total_steps
        self._clock = StepClock()
        self._training, train = run.training, run.experiment.train
        self._intervals = [
            train.sample_every,
            train.checkpoint_every,
            *(metric.every for metric in run.experiment.metric),
        ]
        check_finite = FiniteCheck(run.training)
        self.log = LogCallback(run, check_finite, self._clock)
        self.samples = SamplesCallback(run)
        self.checkpoints = CheckpointsCallback(run, check_finite)
        self.scores = ScoresCallback(run)
        self.stop = StopCallback(run, self.checkpoints)

    def started(self, step: int) -> None:
        """Callback list: tells all callbacks the step that training starts from, and starts the clock."""
        for callback in (self.log, self.samples, self.checkpoints, self.scores, self.stop):
            callback.started(step)
        self._clock.skip()
        self._view.started(step, self._total_steps)

    def __call__(self, step: int) -> None:
        """Callback list: calls all in order after `step` steps; only the log callback's time counts as training."""
        self.step = step
        self.stop.agree()
        self.log.after_step(step)
        device = self._training.game.device
        # Steps that a device still has to take are not part of the time of what is due now, which waits for them.
        if device.type != "cpu" and any(is_due(self._training, every, step) for every in self._intervals):
            synchronize(device)
        self._clock.count()
        self.samples.after_step(step)
        self.checkpoints.after_step(step)
        try:
            self.scores.after_step(step)
        finally:  # a request to stop interrupts scoring; the step is saved even then
            self.stop.save_if_stopping(step)
        self.stop.after_step(step)
        self._clock.skip()
