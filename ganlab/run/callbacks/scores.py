"""The scores callback: evaluates the metrics of the experiment that are due, and writes metrics.jsonl.

A metric that fails after it has succeeded before does not end the training: its score is missing, and it is evaluated
again when it is next due.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from attrs import define, field

from ganlab.evaluation.evaluator import MetricRunner
from ganlab.evaluation.game_outputs import game_outputs
from ganlab.plugin.failures import CatchPluginErrors, PluginFailure, describe_error
from ganlab.protocols import Metric
from ganlab.run.callbacks.base import Callback, broadcast_buffers, is_due
from ganlab.run.opened_run import OpenedRun
from ganlab.run.records import read_records, to_json
from ganlab.utils import distributed
from ganlab.utils.errors import Diverged, Interrupted, UserError


@define
class ScoresCallback(Callback):
    """The scores callback: evaluates each metric before the first step, at its own `every`, and after the last step."""

    run: OpenedRun
    _scored: set[int] = field(factory=set, init=False)

    def after_step(self, step: int) -> None:
        """Scores callback: evaluates the metrics that are due at this step."""
        training, metrics = self.run.training, self.run.experiment.metric
        always = step in (0, training.total_steps)
        self._score_due(step, [always or is_due(training, metric.every, step) for metric in metrics])

    def _score_due(self, step: int, due: Sequence[bool]) -> None:
        """Scores callback: evaluates the metrics that are due and of which metrics.jsonl has no record of this step."""
        if not any(due):
            return
        run, training = self.run, self.run.training
        file = run.folder.path / "metrics.jsonl"
        records = distributed.broadcast_json(lambda: [[r["step"], r.get("metric")] for r in read_records(file)])
        known = {index for at, index in records if at == step}
        self._scored |= {index for _, index in records}
        broadcast_buffers(training)
        networks = {**training.game.networks, **(training.ema.networks if training.ema else {})}
        rules, game = training.game.rules, run.experiment.game
        scoring = run.evaluator.for_network(
            training.evaluated_networks,
            training.weights,
            training.conditions,
            outputs=game_outputs(run.plugins.registry, game, rules, training.images, networks),
        )
        for index, metric in enumerate(run.experiment.metric):
            if due[index] and index not in known:
                self._score(step, index, metric, scoring)

    def _score(self, step: int, index: int, metric: Metric, scoring: MetricRunner) -> None:
        """Scores callback: evaluates one metric and writes its records; raises UserError if its first one fails."""
        run, registry = self.run, self.run.plugins.registry
        component = registry.component_of("metric", metric)
        suffix = registry.suffixes("metric", run.experiment.metric)[index]
        name = component.name + suffix

        def progress(what: str, done: int, total: int) -> None:
            run.view.progress(f"{name}: {what}", done, total)
            if run.stop.requested and distributed.world_size() == 1:
                raise Interrupted(f"stopped while scoring at step {step:,}; the score is taken on resume")

        records: list[dict[str, Any]] = []
        with CatchPluginErrors() as guard:
            records = scoring.score(metric, suffix, progress)
            json.dumps(to_json(records))  # a protocol may hold anything
        run.view.progress("", 0, 0)
        if isinstance(guard.error, Interrupted | Diverged):
            raise guard.error
        if guard.error is not None:
            origin = component.origin
            failure = PluginFailure(origin, f"metric {name!r}, step {step:,}: {describe_error(guard.error, origin)}")
            # The first score is taken before the first step, where an end costs nothing. Processes must not part.
            if index not in self._scored or distributed.world_size() > 1:
                raise UserError(str(failure)) from guard.error
            run.events.failed(failure, "this score is missing")
        scored = [{"step": step, "metric": index, **record} for record in records]
        run.folder.append("metrics.jsonl", *scored)  # together: where one is there, no other is scored on resume
        for record in scored:
            run.events.scored(record)
            run.view.score(record)
        self._scored.add(index)
