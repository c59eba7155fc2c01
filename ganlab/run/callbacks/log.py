"""The log callback: once a tick, a record of the mean losses in log.jsonl, alarms, and a check for divergence.

Decisions:
- The meters are read once a tick and checked for NaN and infinity, and so is what the next step depends on. A record
  may raise an alarm.
- What a record says depends on its step and the records before it alone, so a resumed run writes the same records.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import define, field

from ganlab.evaluation.sampling import sample
from ganlab.protocols import labels_in
from ganlab.run import sample_spread
from ganlab.run.alarms import Alarms
from ganlab.run.callbacks.base import Callback, StepClock, is_due
from ganlab.run.callbacks.finite_check import FiniteCheck
from ganlab.run.loss_optimum import optimal_gap
from ganlab.run.opened_run import OpenedRun
from ganlab.run.records import read_records
from ganlab.utils import distributed
from ganlab.utils.errors import Diverged, SamplesNotFinite
from ganlab.utils.rng import preserve_random_state


@define
class LogCallback(Callback):
    """The log callback: writes a log record at each tick, raises alarms, and ends a run that has diverged."""

    run: OpenedRun
    check_finite: FiniteCheck
    clock: StepClock
    _alarms: Alarms = field(init=False)
    _real_spread: float | None = field(default=None, init=False)
    _last_tick: int = field(default=0, init=False)
    _timed_from: int = field(default=0, init=False)

    @_alarms.default
    def _new_alarms(self) -> Alarms:
        average = self.run.training.ema
        rules = self.run.training.game.rules
        gap = None if rules.loss is None else optimal_gap(rules.loss, self.run.training.game.device)
        bounded = [move.name for move in rules.moves if move.stop_under is not None]
        stoppable = bounded if len(bounded) == len(rules.moves) else []
        return Alarms(gap, average.decay if average else 0.0, stoppable)

    def started(self, step: int) -> None:
        """Log callback: reads the records of a resumed run, so that its last tick and its alarms are known."""
        file = self.run.folder.path / "log.jsonl"
        # One process reads: what it writes meanwhile would be seen by some processes and not by others.
        self._last_tick = distributed.broadcast_json(
            lambda: max((record["step"] for record in read_records(file)), default=0)
        )
        if self.run.folder.writes:
            for record in read_records(file):
                self._alarms.read(record)
        self._timed_from = step

    def after_step(self, step: int) -> None:
        """Log callback: writes a record where a tick is due and has no record yet."""
        training = self.run.training
        at_end = step == training.total_steps
        if step > self._last_tick and (at_end or is_due(training, self.run.experiment.train.log_every, step)):
            self._tick(step)

    def _tick(self, step: int) -> None:
        """Log callback: writes a log record of the meters' means since the last tick, and raises Diverged on NaN."""
        run, meters = self.run, self.run.training.game.meters
        means = meters.means()  # waits for the device, so the clock is read after it
        self.clock.count()
        images = (step - self._timed_from) * self._images_per_step
        record: dict[str, Any] = {
            "step": step,
            "images_seen": step * self._images_per_step,
            **means,
            **run.training.schedules.values(step - 1),
            "images_per_second": images / max(self.clock.seconds, 1e-9),
            "seconds": round(self.clock.seconds, 6),
        }
        if (spread := self._sample_spread(step)) is not None:
            record["sample_spread"] = spread
            self.clock.skip()  # drawing samples is not training
        alarms_before = self._alarms.on
        if alarms_on := self._alarms.read(record):
            record["alarms"] = alarms_on
        meters.reset()
        self.clock.reset()
        self._last_tick = self._timed_from = step
        run.folder.append("log.jsonl", record)
        run.events.tick(record)
        run.view.tick(record)
        for line in self._alarms.changes(alarms_before, record):
            run.view.line(line)
        self._report_uncaptured_steps()
        for name, value in means.items():
            if not math.isfinite(value):
                raise Diverged(f"diverged: {name} is {value} in the mean of the last steps up to {step:,}")
        self.check_finite(step)

    @property
    def _images_per_step(self) -> int:
        return self.run.training.loader.batch_size * self.run.training.train_step.batches_per_step

    def _sample_spread(self, step: int) -> float | None:
        """Log callback: the spread of samples as a share of the data's, for its record; None where it is not due.

        It is due at the first tick after a sample grid is. It is taken within classes where the networks are
        class-conditional and there are not too many classes. It is not taken of the grid itself, which is drawn at
        steps that may lie between ticks: a resumed run must log the same.
        """
        run, training = self.run, self.run.training
        every = run.experiment.train.sample_every.in_steps(training.steps_per_epoch)
        grids = step // every - self._last_tick // every if every else 0
        sampled = training.game.rules.sampler is not None and (grids or step == training.total_steps)
        if not run.folder.writes or not sampled:
            return None
        within = 0 < len(training.conditions.counts) <= sample_spread.MOST_CLASSES
        if self._real_spread is None:
            labels = labels_in(training.dataset.condition) if within else None
            self._real_spread = sample_spread.real_spread(training.loader.images, labels)
        if not self._real_spread:
            return None
        count, seed, device = sample_spread.SPREAD_OF, run.experiment.seed, training.game.device
        with preserve_random_state():
            drawn = sample(training.evaluated_networks, count, seed, device, training.conditions)
            labelled = ((images, labels_in(given) if within else None) for images, given in drawn)
            try:
                return round(sample_spread.spread(labelled) / self._real_spread, 4)
            except SamplesNotFinite:  # the record comes first, and then its end for the run
                return None

    def _report_uncaptured_steps(self) -> None:
        """Log callback: says once that steps cannot be captured as a CUDA graph; only the first steps show it."""
        levers = self.run.training.step_optimizations
        if levers != self.run.folder.info.get("step_levers", levers):
            self.run.view.line(f"steps are not captured, which is slower but correct: {levers['captured']}")
            self.run.folder.write_info(step_levers=levers)
