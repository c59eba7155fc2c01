"""The life of one run.

The order: read and refuse, build and refuse, and only then make a folder; train; say what became of it in run.json.
"""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from ganlab.config.load import load_experiment, to_toml
from ganlab.config.schema import Experiment
from ganlab.evaluation.evaluator import Evaluator, Progress
from ganlab.plugin.failures import Guard, blamed
from ganlab.plugin.loader import Plugins
from ganlab.run.callbacks import Beside
from ganlab.run.environment import surroundings_of
from ganlab.run.events import EventDispatcher
from ganlab.run.failure import explained, status_of
from ganlab.run.final_plots import draw_plots
from ganlab.run.open import Request, chosen_folder, earlier_run, open_folder
from ganlab.run.records import best_and_final, read_records
from ganlab.run.resume import goes_further, identity, refuse_bent, refuse_other, restored
from ganlab.run.run_folder import RunFolder, now
from ganlab.training.build import build
from ganlab.training.checkpoint import list_checkpoints
from ganlab.training.loop import Training, train
from ganlab.utils import distributed
from ganlab.utils.determinism import deterministic
from ganlab.utils.device import pick_device
from ganlab.utils.errors import CannotWrite, ComponentError, UserError
from ganlab.utils.files import write_whole
from ganlab.utils.paths import places
from ganlab.utils.signals import StopRequest
from ganlab.viz.progress import View


@frozen
class Outcome:
    """What became of a run. `weights` are those that were sampled and scored: "ema" or "plain"."""

    path: Path
    status: str
    step: int
    seconds: float
    metrics: dict[str, Any]
    weights: str


def dry_run(request: Request) -> str:
    """Everything that a run would refuse is refused; returns the resolved experiment. Writes no run folder."""
    experiment, plugins = _loaded(request)
    with deterministic(experiment.train.deterministic):
        _built(request, experiment, plugins, pick_device(request.device))
    return to_toml(experiment, plugins)


def run(request: Request, view: View) -> Outcome:
    """Trains an experiment to its end, or resumes it. Raises Interrupted, Diverged, UserError."""
    with distributed.process_group(pick_device(request.device)) as device:
        return _run(request, view, device)


def _run(request: Request, view: View, device: torch.device) -> Outcome:
    began = time.monotonic()
    experiment, plugins = _loaded(request)
    folder = RunFolder(
        Path(distributed.broadcast_json(lambda: str(chosen_folder(request, experiment)))),
        writes=distributed.rank() == 0,
    )
    earlier = distributed.broadcast_json(lambda: earlier_run(folder.path, request))
    if earlier.get("status") == "finished" and not goes_further(folder.path, experiment):
        view.line(f"already finished: {folder.path}")
        metrics = best_and_final(read_records(folder.path / "metrics.jsonl"))
        return Outcome(folder.path, "finished", earlier.get("step", 0), 0.0, metrics, earlier.get("weights", "plain"))
    with StopRequest() as stop, view, deterministic(experiment.train.deterministic):

        def progress(what: str, done: int, total: int) -> None:
            view.progress(what, done, total)
            if stop.requested:
                raise KeyboardInterrupt

        training, scorer = _built(request, experiment, plugins, device, progress)
        surroundings = surroundings_of(experiment, plugins, training)
        toml = to_toml(experiment, plugins)
        table = tomllib.loads(toml)
        if earlier and not request.anyway:
            refuse_other(folder.path, earlier, table, surroundings)
            refuse_bent(folder, earlier, training)
        open_folder(folder, request, earlier, training)
        try:
            start = restored(folder, training, view, identity(table), request.anyway) if earlier else 0
            folder.info = dict(earlier)
            if folder.writes:
                write_whole(folder.experiment_file, toml)
            folder.write_info(
                status="running",
                name=experiment.name,
                seed=experiment.seed,
                identity=identity(table),
                started=earlier.get("started", now()),
                resumed=[*earlier.get("resumed", []), {"at": now(), "step": start}] if earlier else [],
                images=attrs.asdict(training.images),
                condition=training.conditions.record(),
                resident=not training.loader.streams,
                total_steps=training.total_steps,
                weights=training.weights,
                step_levers=training.levers,
                **surroundings,
            )
            audience = EventDispatcher(plugins, folder, view)
            return _trained(Beside(experiment, training, folder, plugins, scorer, view, stop, audience), start, began)
        finally:
            training.loader.close()
            folder.unlock()


def _loaded(request: Request) -> tuple[Experiment, Plugins]:
    return load_experiment(request.experiment, request.overrides, request.plugin_files, request.blocked)


def _built(
    request: Request,
    experiment: Experiment,
    plugins: Plugins,
    device: torch.device,
    progress: Progress | None = None,
) -> tuple[Training, Evaluator]:
    """The objects that train and score; whatever refuses is named with the experiment's file."""
    where = places()
    with Guard() as guard:
        training = build(experiment, plugins.registry, where, device)
        scorer = Evaluator(experiment.dataset, training.dataset, where, device, experiment.floor)
        for index, metric in enumerate(experiment.metric):
            try:
                scorer.prepare(metric, *([progress] if progress else []))
            except ComponentError as error:
                raise UserError(f"metric[{index}]: {error}") from None
        for index, tracker in enumerate(experiment.tracker):
            try:
                getattr(tracker, "prepare", lambda: None)()
            except ComponentError as error:
                raise UserError(f"tracker[{index}]: {error}") from None
    if isinstance(guard.error, UserError):
        raise UserError(*(f"{request.experiment}: {line}" for line in guard.error.problems)) from None
    if guard.error is not None:
        raise blamed(guard.error, plugins.registry, "before the first step") from guard.error
    return training, scorer


def _trained(beside: Beside, start: int, began: float) -> Outcome:
    """Trains, and writes down how it ended whatever happens. `began` is when the command did."""
    training, folder = beside.training, beside.run
    earlier_seconds = folder.info.get("seconds", 0.0)
    outcome = Outcome(folder.path, "running", start, 0.0, {}, training.weights)

    def ended(kind: object, error: BaseException | None, trace: object) -> None:
        nonlocal outcome
        failure = explained(error, beside)
        outcome = Outcome(
            path=folder.path,
            status=status_of(failure),
            step=max(list_checkpoints(folder.checkpoints), default=0),
            seconds=earlier_seconds + time.monotonic() - began,
            metrics=best_and_final(read_records(folder.path / "metrics.jsonl")),
            weights=training.weights,
        )
        if folder.writes and not isinstance(failure, KeyboardInterrupt):  # which asks for an end at once
            with _told_beside(failure, beside.view):
                draw_plots(training, folder, outcome.step, outcome.status in ("finished", "interrupted"))
        # After them, so that a run that is killed before goes on, and has all there is to have when it is finished.
        with _told_beside(failure, beside.view):
            folder.write_info(
                status=outcome.status,
                ended=now(),
                step=outcome.step,
                seconds=round(outcome.seconds, 3),
                metrics=outcome.metrics,
                error=f"{type(failure).__name__}: {failure}" if failure else None,
            )
        beside.audience.finished(failure)
        if failure is not None and failure is not error:
            raise failure from error

    with contextlib.ExitStack() as stack:
        stack.push(ended)
        # Again, so that run.json says in plain words which operation it was.
        stack.enter_context(deterministic(beside.experiment.train.deterministic))
        beside.starts(start)
        beside.audience.started(beside.experiment.tracker)
        train(training, start, beside)
    return outcome


@contextlib.contextmanager
def _told_beside(failure: BaseException | None, view: View) -> Iterator[None]:
    """What cannot be written in the body is told and no more, where a failure has ended the run, perhaps the same."""
    try:
        yield
    except CannotWrite as refusal:
        if failure is None:
            raise
        view.line(str(refusal))
