"""What happens beside the steps of one run: records, sample grids, checkpoints, scores, and stopping on request.

Decisions:
- Everything due at a boundary is done there, in this order: tick, samples, checkpoint, scores. A boundary that is come
  to again, after a resume, does only what its records lack.
- The losses are read once a tick and looked at for NaN and infinity, and for what raises an alarm; the weights are
  looked at before they are saved.
- Of many processes the first writes, and all take part in what they must agree on: sums, scores, stopping.
- Training's random streams are not touched: samples and scores have their own, and what trackers and hooks draw from
  the global ones is put back.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field

from ganlab import alarms, ranks
from ganlab.build import Training
from ganlab.checkpoint import from_bytes, list_checkpoints, not_finite, save_checkpoint, to_bytes
from ganlab.config import Experiment
from ganlab.errors import Diverged, Interrupted
from ganlab.evaluation import Scorer, Scoring, sample
from ganlab.images import save_grid
from ganlab.interrupts import StopRequest
from ganlab.options import Interval
from ganlab.phases import Game
from ganlab.plugins import Plugins
from ganlab.protocols import Metric, Tracker
from ganlab.rng import global_state, set_global_state, untouched
from ganlab.runfolder import RunFolder, best_and_final, read_records
from ganlab.view import View


@define
class Beside:
    """Called by the loop at every boundary between steps."""

    experiment: Experiment
    training: Training
    run: RunFolder
    plugins: Plugins
    scorer: Scorer
    view: View
    stop: StopRequest
    trackers: list[Tracker] = field(factory=list)
    _alarms: alarms.Alarms = field(init=False)
    _real_spread: float | None = field(default=None, init=False)
    _busy: float = field(default=0.0, init=False)
    _left: float = field(factory=time.perf_counter, init=False)
    _last_tick: int = field(default=0, init=False)
    _timed_from: int = field(default=0, init=False)
    _saved: int = field(default=-1, init=False)

    @_alarms.default
    def _none_yet(self) -> alarms.Alarms:
        return alarms.Alarms(alarms.asked_gap(self.training.game.loss), self.experiment.train.ema)

    def __call__(self, step: int) -> None:
        train, total = self.experiment.train, self.training.total_steps
        at_end = step == total
        stopping = ranks.any_of(self.stop.requested)
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
            stopping = stopping or (ranks.world() == 1 and self.stop.requested)
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
        self._publish("log.jsonl", record, self.plugins.hook.tick_finished)
        self.view.tick(record)
        for line in self._alarms.news(before, record):
            self.view.line(line)
        self._tell_levers()
        for name, value in means.items():
            if not math.isfinite(value):
                raise Diverged(f"diverged: {name} is {value} in the mean of the steps up to {step:,}")

    def _tell_levers(self) -> None:
        """Whether steps can be captured shows only when the first have been taken."""
        levers = self.training.levers
        if levers != self.run.info.get("step_levers", levers):
            self.view.line(f"steps are not captured, which is slower and right all the same: {levers['captured']}")
            self.run.write_info(step_levers=levers)

    def _sample_spread(self, step: int) -> float | None:
        """The spread of samples as a share of the data's, at the first tick after a sample grid is due.

        Not of the grid itself, which is drawn at steps that may lie between ticks: what a tick says depends on nothing
        but this step and the records before it, so that a resumed run says the same.
        """
        every = self.experiment.train.sample_every.in_steps(self.training.steps_per_epoch)
        grids = step // every - self._last_tick // every if every else 0
        if not self.run.writes or not (grids or step == self.training.total_steps):
            return None
        if self._real_spread is None:
            self._real_spread = alarms.real_spread(self.training.feeder.images)
        if not self._real_spread:
            return None
        with untouched():
            drawn = sample(self.training.evaluated, alarms.SPREAD_OF, self.experiment.seed, self.training.game.device)
            return round(alarms.spread(drawn) / self._real_spread, 4)

    @property
    def _images_per_step(self) -> int:
        return self.training.feeder.batch_size * self.training.turns.batches

    def draw_samples(self, step: int) -> None:
        """A grid of the same latents every time."""
        path = self.run.sample_file(step)
        if not self.run.writes or path.exists():
            return
        count, seed, device = self.experiment.train.sample_count, self.experiment.seed, self.training.game.device
        batches = [images.cpu() for images in sample(self.training.evaluated, count, seed, device)]
        save_grid(torch.cat(batches), path)
        with untouched():
            for tracker in self.trackers:
                tracker.samples(step, path)

    def score(self, step: int, due: Sequence[bool]) -> None:
        """Writes a record for each value of the metrics that are due, unless this boundary's are there already."""
        if not any(due):
            return
        file = self.run.path / "metrics.jsonl"
        known = ranks.told(lambda: [r.get("metric") for r in read_records(file) if r["step"] == step])
        self._agree()
        scoring = self.scorer.generator(self.training.evaluated, self.training.weights)
        for index, metric in enumerate(self.experiment.metric):
            if due[index] and index not in known:
                self._score(step, index, metric, scoring)

    def _score(self, step: int, index: int, metric: Metric, scoring: Scoring) -> None:
        registry = self.plugins.registry
        name = registry.component_of("metric", metric).name
        suffix = registry.suffixes("metric", self.experiment.metric)[index]

        def progress(what: str, done: int, total: int) -> None:
            self.view.progress(f"{name}{suffix}: {what}", done, total)
            if self.stop.requested and ranks.world() == 1:
                raise Interrupted(f"stopped while scoring at step {step:,}; the score is taken on resume")

        for scored in scoring.score(metric, suffix, progress):
            record = {"step": step, "metric": index, **scored}
            self._publish("metrics.jsonl", record, self.plugins.hook.evaluation_finished)
            self.view.score(record)
        self.view.progress("", 0, 0)

    def save(self, step: int) -> None:
        """A checkpoint of all that the next step depends on; refuses one that is not finite."""
        if self._saved == step:
            return
        self._agree()
        state = training_state(self.training, step)
        # Not buffers: a mask of minus infinity is a buffer.
        networks = {player.name: player.network for player in self.training.game.players}
        if self.training.average is not None:
            networks["ema"] = self.training.average.network
        trained: dict[str, Any] = {name: dict(network.named_parameters()) for name, network in networks.items()}
        if where := not_finite(trained | {"optimizers": state["optimizers"], "meters": state["meters"]}):
            raise Diverged(f"diverged: {where} is not finite after step {step:,}; the checkpoint before it is kept")
        self._saved = step
        if not self.run.writes:
            return
        path = save_checkpoint(self.run.checkpoints, step, state)
        self._forget_old()
        with untouched():
            self.plugins.hook.checkpoint_saved(run=self.run, path=path)

    def _agree(self) -> None:
        """Gives every process the first one's buffers: batch norm keeps its own statistics of a process's images."""
        networks = [player.network for player in self.training.game.players]
        if self.training.average is not None:
            networks.append(self.training.average.network)
        ranks.as_the_first(buffer for network in networks for buffer in network.buffers())

    def starts(self, step: int) -> None:
        """Tells where the run goes on from: what is recorded up to that step is not recorded again."""
        # One process looks, because what it writes meanwhile would be seen by some and not by others.
        log, saved = self.run.path / "log.jsonl", self.run.checkpoints
        self._last_tick = ranks.told(lambda: max((record["step"] for record in read_records(log)), default=0))
        if self.run.writes:
            for record in read_records(log):
                self._alarms.read(record)
        self._saved = ranks.told(lambda: step if step in list_checkpoints(saved) else -1)
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
                shutil.rmtree(saved[step])

    def _publish(self, file: str, record: dict[str, Any], hook: Callable[..., Any]) -> None:
        self.run.append(file, record)
        if not self.run.writes:
            return
        with untouched():
            for tracker in self.trackers:
                tracker.log(record)
            hook(run=self.run, record=record)


def training_state(training: Training, step: int) -> dict[str, Any]:
    """Everything that the steps after `step` depend on, in the parts that a checkpoint writes."""
    game = training.game
    state: dict[str, Any] = {player.name: player.network.state_dict() for player in game.players}
    if training.average is not None:
        state["ema"] = training.average.network.state_dict()
    state |= {
        "optimizers": {player.name: player.optimizer.state_dict() for player in game.players},
        "meters": {"sums": game.meters.sums, "counts": game.meters.counts},
        "random": _random_state(game),
        "components": {name: part.state_dict() for name, part in training.stateful.items()},
        "progress": {"step": step, "images_seen": game.images_seen},
    }
    return state


def restore_training(training: Training, state: dict[str, Any], new_options: bool = False) -> None:
    """Puts back what `training_state` gave.

    An optimiser's state holds its options too, such as the learning rate. With `new_options` those of the experiment as
    it is now are kept; otherwise all is put back as it was.
    """
    game = training.game
    for player in game.players:
        player.network.load_state_dict(state[player.name])
        saved = state["optimizers"][player.name]
        options = {"param_groups": player.optimizer.state_dict()["param_groups"]} if new_options else {}
        player.optimizer.load_state_dict({**saved, **options})
        for parameter, values in player.optimizer.state.items():
            # A fused optimiser walks over memory: what it keeps must lie as the weights do, in channels-last order too.
            for name, value in values.items():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    if training.average is not None:
        training.average.network.load_state_dict(state["ema"])
    game.meters.sums = {name: value.to(game.device) for name, value in state["meters"]["sums"].items()}
    game.meters.counts = dict(state["meters"]["counts"])
    game.images_seen.copy_(state["progress"]["images_seen"])
    for name, part in training.stateful.items():
        part.load_state_dict(state["components"][name])
    _set_random_state(game, state["random"])


def _random_state(game: Game) -> dict[str, Any]:
    """The random state of every process, and of the latents that they share."""
    if game.noise is None:
        return global_state()
    states = [from_bytes(data) for data in ranks.gathered_bytes(to_bytes(global_state()))]
    return {"noise": game.noise.get_state(), "ranks": states}


def _set_random_state(game: Game, state: dict[str, Any]) -> None:
    if game.noise is None and "ranks" not in state:
        set_global_state(state)
    elif game.noise is not None and len(state.get("ranks", ())) == ranks.world():
        game.noise.set_state(state["noise"])
        set_global_state(state["ranks"][ranks.rank()])
    # With another number of processes (--anyway) the streams begin anew.
