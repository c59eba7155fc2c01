"""What happens beside the steps of one run: records, sample grids, checkpoints, scores, and stopping on request.

Decisions:
- Everything due at a boundary is done there, in this order: tick, samples, checkpoint, scores. A boundary that is come
  to again, after a resume, does only what its records lack.
- The losses are read once a tick and looked at for NaN and infinity, and so are the weights, the average and what the
  optimisers keep; nothing is saved before it was looked at. A tick's record may raise an alarm.
- Of many processes the first writes, and all take part in what they must agree on: sums, scores, stopping.
- Training's random streams are not touched: samples and scores have their own.
- A metric that fails where it has given a score before does not end the training: its score is missing, and it is asked
  again when it is next due.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from ganlab.config.schema import Experiment
from ganlab.evaluation.evaluator import Evaluator, Scoring
from ganlab.evaluation.sampling import sample, sample_grid
from ganlab.plugin.failures import Failure, Guard, cause
from ganlab.plugin.loader import Plugins
from ganlab.protocols import Metric
from ganlab.run import monitors
from ganlab.run.events import EventDispatcher
from ganlab.run.records import best_and_final, read_records, to_json
from ganlab.run.run_folder import RunFolder
from ganlab.training.checkpoint import list_checkpoints, save_checkpoint
from ganlab.training.loop import Training
from ganlab.training.state import training_state
from ganlab.training.state_tree import not_finite
from ganlab.utils import distributed
from ganlab.utils.errors import Diverged, Interrupted, UserError
from ganlab.utils.files import remove
from ganlab.utils.interval import Interval
from ganlab.utils.rng import preserve_random_state
from ganlab.utils.signals import StopRequest
from ganlab.viz.image_grid import save_grid
from ganlab.viz.progress import View


@define
class Beside:
    """Called by the loop at every boundary between steps."""

    experiment: Experiment
    training: Training
    run: RunFolder
    plugins: Plugins
    scorer: Evaluator
    view: View
    stop: StopRequest
    audience: EventDispatcher
    step: int = field(default=0, init=False)
    _alarms: monitors.Alarms = field(init=False)
    _real_spread: float | None = field(default=None, init=False)
    _busy: float = field(default=0.0, init=False)
    _left: float = field(factory=time.perf_counter, init=False)
    _last_tick: int = field(default=0, init=False)
    _timed_from: int = field(default=0, init=False)
    _saved: int = field(default=-1, init=False)
    _looked_at: int = field(default=-1, init=False)
    _scored: set[int] = field(factory=set, init=False)

    @_alarms.default
    def _none_yet(self) -> monitors.Alarms:
        average = self.training.average
        return monitors.Alarms(monitors.asked_gap(self.training.game.loss), average.decay if average else 0.0)

    def __call__(self, step: int) -> None:
        self.step = step
        train, total = self.experiment.train, self.training.total_steps
        at_end = step == total
        stopping = distributed.any_process(self.stop.requested)
        if step > self._last_tick and (at_end or self._due(train.log_every, step)):
            self.tick(step)
        # Time spent below is not training time.
        self._busy += time.perf_counter() - self._left
        if step == 0 or at_end or self._due(train.sample_every, step):
            self.draw_samples(step)
        if at_end or self._due(train.checkpoint_every, step):
            self.save(step)
        try:
            self.score(step, [at_end or step == 0 or self._due(m.every, step) for m in self.experiment.metric])
        finally:
            # A request that came while scoring is seen here, where there is no other process to agree with.
            stopping = stopping or (distributed.world_size() == 1 and self.stop.requested)
            if stopping:
                self.save(step)
        if stopping and not at_end:
            raise Interrupted(f"stopped after step {step:,} on request")
        self._left = time.perf_counter()

    def _due(self, interval: Any, step: int) -> bool:
        # A stranger's metric may have a plain number of steps.
        every = Interval.parse(interval).in_steps(self.training.steps_per_epoch)
        return every > 0 and step > 0 and step % every == 0

    def tick(self, step: int) -> None:
        """Reads the meters, looks for divergence, writes a record of the mean since the last tick."""
        meters = self.training.game.meters
        means = meters.means()  # waits for the device, so the clock is read after it
        self._busy += time.perf_counter() - self._left
        self._left = time.perf_counter()
        images = (step - self._timed_from) * self._images_per_step
        record: dict[str, Any] = {
            "step": step,
            "images_seen": step * self._images_per_step,
            **means,
            **self.training.schedules.values(step - 1),
            "images_per_second": images / max(self._busy, 1e-9),
            "seconds": round(self._busy, 6),
        }
        if (spread := self._sample_spread(step)) is not None:
            record["sample_spread"] = spread
            self._left = time.perf_counter()  # drawing samples is not training
        before = self._alarms.on
        if on := self._alarms.read(record):
            record["alarms"] = on
        meters.reset()
        self._busy, self._last_tick, self._timed_from = 0.0, step, step
        self.run.append("log.jsonl", record)
        self.audience.tick(record)
        self.view.tick(record)
        for line in self._alarms.news(before, record):
            self.view.line(line)
        self._tell_levers()
        for name, value in means.items():
            if not math.isfinite(value):
                raise Diverged(f"diverged: {name} is {value} in the mean of the last steps up to {step:,}")
        self._look_for_divergence(step)

    def _look_for_divergence(self, step: int) -> None:
        """Raises Diverged where what the next step goes on from is not finite. Not buffers: a mask may be infinite."""
        if self._looked_at == step:
            return
        game, average = self.training.game, self.training.average
        networks = {player.name: player.network for player in game.players}
        if average is not None:
            networks["ema"] = average.network
        looked_at: dict[str, Any] = {name: dict(network.named_parameters()) for name, network in networks.items()}
        looked_at["optimizers"] = {player.name: player.optimizer.state_dict() for player in game.players}
        looked_at["meters"] = game.meters.sums
        if where := not_finite(looked_at):
            raise Diverged(f"diverged: {where} is not finite after step {step:,}")
        self._looked_at = step

    def _tell_levers(self) -> None:
        """Whether steps can be captured shows only when the first have been taken."""
        levers = self.training.levers
        if levers != self.run.info.get("step_levers", levers):
            self.view.line(f"steps are not captured, which is slower and right all the same: {levers['captured']}")
            self.run.write_info(step_levers=levers)

    def _sample_spread(self, step: int) -> float | None:
        """The spread of samples as a share of the data's, at the first tick after a sample grid is due; None at others.

        Within classes where the networks are told them and there are not too many.

        Not of the grid itself, which is drawn at steps that may lie between ticks: what a tick says depends on nothing
        but this step and the records before it, so that a resumed run says the same.
        """
        every = self.experiment.train.sample_every.in_steps(self.training.steps_per_epoch)
        grids = step // every - self._last_tick // every if every else 0
        if not self.run.writes or not (grids or step == self.training.total_steps):
            return None
        training = self.training
        within = 0 < len(training.conditions.counts) <= monitors.MOST_CLASSES
        if self._real_spread is None:
            labels = training.dataset.condition if within else None
            self._real_spread = monitors.real_spread(training.loader.images, labels)
        if not self._real_spread:
            return None
        with preserve_random_state():
            drawn = sample(
                training.evaluated, monitors.SPREAD_OF, self.experiment.seed, training.game.device, training.conditions
            )
            told = ((images, labels if within else None) for images, labels in drawn)
            return round(monitors.spread(told) / self._real_spread, 4)

    @property
    def _images_per_step(self) -> int:
        return self.training.loader.batch_size * self.training.turns.batches

    def draw_samples(self, step: int) -> None:
        """A grid of the same latents every time; where there are classes, a row for each."""
        path = self.run.sample_file(step)
        if not self.run.writes or path.exists():
            return
        count, seed, device = self.experiment.train.sample_count, self.experiment.seed, self.training.game.device
        images, columns = sample_grid(self.training.evaluated, count, seed, device, self.training.conditions)
        save_grid(images, path, columns)
        self.audience.sampled(step, path)

    def score(self, step: int, due: Sequence[bool]) -> None:
        """Writes a record for each value of the metrics that are due, unless this boundary's are there already."""
        if not any(due):
            return
        file = self.run.path / "metrics.jsonl"
        records = distributed.broadcast_json(lambda: [[r["step"], r.get("metric")] for r in read_records(file)])
        known = {index for at, index in records if at == step}
        self._scored |= {index for _, index in records}
        self._agree()
        training = self.training
        scoring = self.scorer.generator(training.evaluated, training.weights, training.conditions)
        for index, metric in enumerate(self.experiment.metric):
            if due[index] and index not in known:
                self._score(step, index, metric, scoring)

    def _score(self, step: int, index: int, metric: Metric, scoring: Scoring) -> None:
        registry = self.plugins.registry
        name = registry.component_of("metric", metric).name
        suffix = registry.suffixes("metric", self.experiment.metric)[index]

        def progress(what: str, done: int, total: int) -> None:
            self.view.progress(f"{name}{suffix}: {what}", done, total)
            if self.stop.requested and distributed.world_size() == 1:
                raise Interrupted(f"stopped while scoring at step {step:,}; the score is taken on resume")

        records: list[dict[str, Any]] = []
        with Guard() as guard:
            records = scoring.score(metric, suffix, progress)
            json.dumps(to_json(records))  # a protocol may hold anything
        self.view.progress("", 0, 0)
        if isinstance(guard.error, Interrupted):
            raise guard.error
        if guard.error is not None:
            origin = registry.component_of("metric", metric).origin
            failure = Failure(origin, f"metric {name + suffix!r}, step {step:,}: {cause(guard.error, origin)}")
            # The first score is taken before the first step, where an end costs nothing. Processes must not part.
            if index not in self._scored or distributed.world_size() > 1:
                raise UserError(str(failure)) from guard.error
            self.audience.failed(failure, "this score is missing")
        for scored in records:
            record = {"step": step, "metric": index, **scored}
            self.run.append("metrics.jsonl", record)
            self.audience.scored(record)
            self.view.score(record)
        self._scored.add(index)

    def save(self, step: int) -> None:
        """A checkpoint of all that the next step depends on; refuses one that is not finite."""
        if self._saved == step:
            return
        self._agree()
        self._look_for_divergence(step)
        state = training_state(self.training, step)
        if self.run.writes:
            state["progress"] |= {"experiment": self.run.info["identity"], "records": self._records()}
            path = save_checkpoint(self.run.checkpoints, step, state)
            self._forget_old()
            self.audience.saved(path)
        self._saved = step

    def _records(self) -> dict[str, int]:
        """How many records there are, so that a resume sees where some are gone."""
        files = {name: read_records(self.run.path / name) for name in ("log.jsonl", "metrics.jsonl")}
        return {name: sum(not record.get("eval") for record in records) for name, records in files.items()}

    def _agree(self) -> None:
        """Gives every process the first one's buffers: batch norm keeps its own statistics of a process's images."""
        networks = [player.network for player in self.training.game.players]
        if self.training.average is not None:
            networks.append(self.training.average.network)
        distributed.broadcast_from_first(buffer for network in networks for buffer in network.buffers())

    def starts(self, step: int) -> None:
        """Tells where the run goes on from: what is recorded up to that step is not recorded again."""
        # One process looks, because what it writes meanwhile would be seen by some and not by others.
        log, saved = self.run.path / "log.jsonl", self.run.checkpoints
        self._last_tick = distributed.broadcast_json(
            lambda: max((record["step"] for record in read_records(log)), default=0)
        )
        if self.run.writes:
            for record in read_records(log):
                self._alarms.read(record)
        self._saved = distributed.broadcast_json(lambda: step if step in list_checkpoints(saved) else -1)
        if self.run.writes:
            self._forget_old()  # a process that was killed may have saved without
        self._timed_from = step
        self._left = time.perf_counter()
        self.view.started(step, self.training.total_steps)

    def _forget_old(self) -> None:
        """Keeps the latest checkpoints and the best by each metric."""
        keep = self.experiment.train.checkpoint_keep
        saved = list_checkpoints(self.run.checkpoints)
        if keep == 0 or len(saved) <= keep:
            return
        scored = [record for record in read_records(self.run.path / "metrics.jsonl") if record["step"] in saved]
        best = {entry["best"]["step"] for entry in best_and_final(scored).values() if "best" in entry}
        for step in list(saved)[:-keep]:
            if step not in best:
                remove(saved[step])
