"""`ganlab run`: the life of a run, from the request to the status in run.json. Read it from top to bottom.

    request --load--> experiment, run folder --open_run--> OpenedRun --train_run--> error or None --finish--> Outcome

Decisions:
- What can be refused is refused before there is a run folder: the experiment is read, then everything is built, and
  only then is the folder made, or the run in it resumed.
- However the training ends, run.json says so.
"""

from __future__ import annotations

import contextlib
import time
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from ganlab.config.load import experiment_to_toml, load_experiment, name_and_seed
from ganlab.config.schema import Experiment
from ganlab.evaluation.evaluator import Evaluator
from ganlab.evaluation.game_outputs import game_outputs
from ganlab.evaluation.game_samplers import sampled_conditions
from ganlab.evaluation.taken_data import check_taken
from ganlab.nn.pretrained import noted_weights
from ganlab.plugin.failures import CatchPluginErrors, attribute_to_plugin
from ganlab.plugin.loader import Plugins
from ganlab.run.callbacks.callback_list import CallbackList
from ganlab.run.environment import edited_files, plugin_code, run_environment
from ganlab.run.events import EventDispatcher
from ganlab.run.failure import explain_failure, status_of
from ganlab.run.final_plots import draw_plots
from ganlab.run.first_updates import BEFORE, FirstUpdates
from ganlab.run.init_from import InitialWeights
from ganlab.run.kept_plugins import keep_plugins, kept_plugin_finder, other_plugin_files
from ganlab.run.open_folder import choose_folder, earlier_run, latest_unfinished, open_folder
from ganlab.run.opened_run import OpenedRun
from ganlab.run.records import best_and_final, read_records
from ganlab.run.request import RunRequest
from ganlab.run.resume import (
    asks_for_another_length,
    check_finished,
    check_resumable,
    earlier_experiment,
    experiment_identity,
    location_keys,
    restore_latest,
)
from ganlab.run.run_folder import RunFolder, now, read_info
from ganlab.training.build import build
from ganlab.training.checkpoint import list_checkpoints
from ganlab.training.loop import Training, train
from ganlab.utils import distributed
from ganlab.utils.determinism import deterministic
from ganlab.utils.device import has_tf32, pick_device
from ganlab.utils.errors import (
    CannotWrite,
    ComponentError,
    Interrupted,
    NotDeterministic,
    PluginFailed,
    UserError,
    error_text,
)
from ganlab.utils.files import write_whole
from ganlab.utils.paths import places
from ganlab.utils.progress import Progress, no_progress
from ganlab.utils.signals import StopRequest
from ganlab.viz.progress import ProgressView, progress_bar


@frozen
class Outcome:
    """The outcome of training a run: its status, scores, and the step of its last checkpoint.

    `weights` ("ema" or "plain") were scored.
    """

    path: Path
    status: str
    step: int
    seconds: float
    metrics: dict[str, Any]
    weights: str


def dry_run(request: RunRequest) -> str:
    """`ganlab run --dry-run`: trains and writes nothing; refuses what a run would, returns the resolved experiment."""
    experiment, plugins = _load(request)
    earlier_run(choose_folder(request, experiment), request)
    # What metrics need is loaded or trained too, which may take minutes and fails as it would in the run.
    with deterministic(experiment.train.deterministic), progress_bar() as progress_of:
        progress, new = progress_of(experiment.name), not request.resume
        *_, first = build_run(request, experiment, plugins, pick_device(request.device), progress, new)
    for line in first.lines if first else ():
        warnings.warn(line, stacklevel=1)
    return experiment_to_toml(experiment, plugins)


def run(request: RunRequest, view: ProgressView) -> Outcome:
    """`ganlab run`: trains a run to its end, or resumes it. Raises Interrupted, Diverged, UserError."""
    with distributed.process_group(pick_device(request.device)) as device:
        began = time.monotonic()
        experiment, plugins = _load(request)
        folder = _find_folder(request, experiment)
        whole = folder.info.get("status") == "finished" and folder.has_plots
        if whole and not asks_for_another_length(folder.path, experiment):
            if not request.anyway:
                advice = "choose another --out, or take it as it is by --anyway"
                check_finished(folder.path, experiment, plugins, advice)
            view.line(f"already finished: {folder.path}")
            return _finished_before(folder)
        with (
            StopRequest() as stop,
            view,
            deterministic(experiment.train.deterministic),
            open_run(request, experiment, plugins, folder, device, view, stop, began) as opened,
        ):
            callbacks = CallbackList(opened)
            error = train_run(opened, callbacks)
            return finish(opened, callbacks.step, error)


# ---------------------------------------------------------------------------------------------------------------------
# Request: the experiment, and the folder it names
# ---------------------------------------------------------------------------------------------------------------------


def _load(request: RunRequest) -> tuple[Experiment, Plugins]:
    run = _earlier_run_folder(request)
    locate = kept_plugin_finder(run, read_info(run), instead_of_changed=False) if run else Path
    load = partial(load_experiment, request.experiment, request.overrides, blocked=request.blocked, locate=locate)
    try:
        experiment, plugins = load(request.plugin_files)
    except UserError:
        more = other_plugin_files(run, request, locate) if run and request.resume else []
        if not more:
            raise
        experiment, plugins = load([*request.plugin_files, *more])
    experiment_to_toml(experiment, plugins)  # refuses what no file can hold before data are read
    return experiment, plugins


def _earlier_run_folder(request: RunRequest) -> Path | None:
    """The folder of the request's earlier run, whose plugin files are used where the originals are gone."""
    for folder in (request.out, request.experiment.parent):
        if folder is not None and (folder / "run.json").is_file():
            return folder
    if request.resume and request.out is None:
        with contextlib.suppress(UserError):  # which is reported when the experiment is loaded
            return latest_unfinished(*name_and_seed(request.experiment, request.overrides))
    return None


def _find_folder(request: RunRequest, experiment: Experiment) -> RunFolder:
    """A request's run folder, not yet made."""
    path = Path(distributed.broadcast_json(lambda: str(choose_folder(request, experiment))))
    earlier = distributed.broadcast_json(lambda: earlier_run(path, request))
    return RunFolder(path, earlier, writes=distributed.rank() == 0)


def _finished_before(folder: RunFolder) -> Outcome:
    """The outcome of a run that had finished."""
    metrics = best_and_final(read_records(folder.path / "metrics.jsonl"))
    weights = folder.info.get("weights", "plain")
    return Outcome(folder.path, "finished", folder.info.get("step", 0), 0.0, metrics, weights)


# ---------------------------------------------------------------------------------------------------------------------
# Opened: everything is built, the folder is made and locked, an earlier run is restored
# ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_run(
    request: RunRequest,
    experiment: Experiment,
    plugins: Plugins,
    folder: RunFolder,
    device: torch.device,
    view: ProgressView,
    stop: StopRequest,
    began: float,
) -> Iterator[OpenedRun]:
    """Opens a run to train it in the body: builds what trains, makes and locks its folder, restores the run in it.

    `folder.info` is run.json of the run to resume, empty for a new one. `began` is when the command started, by the
    monotonic clock. Raises UserError where the run is refused.
    """

    def progress(what: str, done: int, total: int) -> None:
        view.progress(what, done, total)
        if stop.requested:
            raise KeyboardInterrupt

    code = plugin_code(experiment, plugins)  # what follows may take minutes, in which files may be edited
    earlier = dict(folder.info)
    new = not distributed.broadcast_json(lambda: bool(earlier and list_checkpoints(folder.checkpoints)))
    training, evaluator, first = build_run(request, experiment, plugins, device, progress, new)
    view.progress("", 0, 0)
    environment = run_environment(experiment, plugins, training)
    if edited := edited_files(code, environment):
        raise UserError(*(f"{file}: has changed since it was loaded; begin again" for file in edited))
    toml = experiment_to_toml(experiment, plugins)
    table = tomllib.loads(toml)
    locations = set(location_keys(experiment))
    identity = experiment_identity(table, locations)
    identities = {identity}
    if earlier:
        before = earlier_experiment(folder, view, request.anyway)
        check_resumable(folder, before, table, environment, training, view, locations, request.anyway)
        identities.add(experiment_identity(before))  # that of a checkpoint of an earlier release
    facts = run_facts(training, environment)  # before the folder is made: what fails here leaves none behind
    open_folder(folder, request, training)
    try:
        start = restore_latest(folder, training, view, identities, request.anyway) if earlier else None
        if start is None and not new:  # no checkpoint is whole: the networks are to be initialised after all
            training.loader.close()
            new = True
            training, evaluator, first = build_run(request, experiment, plugins, device, progress, new)
        start = start or 0
        for line in first.lines if first else ():
            view.line(line)
        if experiment.train.precision == "tf32" and not has_tf32(device):
            view.line(f'train.precision = "tf32" is of CUDA; products on {device.type} are of float32')
        if folder.writes:
            write_whole(folder.experiment_file, toml)
        keep_plugins(folder, experiment, plugins, environment["imports"])
        folder.write_info(
            status="running",
            name=experiment.name,
            seed=experiment.seed,
            identity=identity,
            started=earlier.get("started", now()),
            resumed=[*earlier.get("resumed", []), {"at": now(), "step": start}] if earlier else [],
            **facts,
            initialised=training.initialised if new else earlier.get("initialised", {}),
            **({"init_from": first.record} if first and new else {}),
        )
        events = EventDispatcher(plugins, folder, view)
        yield OpenedRun(experiment, plugins, training, evaluator, folder, earlier, start, view, stop, events, began)
    finally:
        training.loader.close()
        folder.unlock()


def run_facts(training: Training, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What an opened run writes into run.json of its data, its training and its environment."""
    return {
        "images": training.images.record(),
        "streams": {name: images.record() for name, images in training.data.streams.items()},
        "condition": training.conditions.record(),
        **_further_samplers(training),
        "classes": list(training.conditions.names) or None,
        "resident": not training.loader.main.prefetches,
        "resident_bytes": training.loader.resident_bytes,
        "total_steps": training.total_steps,
        "steps_per_epoch": training.steps_per_epoch,
        "weights": training.weights,
        "step_levers": training.step_optimizations,
        **environment,
    }


def _further_samplers(training: Training) -> dict[str, Any]:
    """An opened run's entry in run.json for its game's further samplers: their conditions, as for "condition"."""
    further, data = training.game.rules.samplers, (training.dataset, training.streams)
    found = {name: sampled_conditions(of, *data, training.conditional).record() for name, of in further.items()}
    return {"samplers": found} if found else {}


def build_run(
    request: RunRequest,
    experiment: Experiment,
    plugins: Plugins,
    device: torch.device,
    progress: Progress = no_progress,
    new: bool = True,
) -> tuple[Training, Evaluator, InitialWeights | None]:
    """Before a run trains, builds what trains and what scores; an error names the experiment's file or the plugin.

    `new` is False where a checkpoint is to be restored. The last is what the run begins with, where it says so.
    """
    where = places()
    first = InitialWeights(experiment.init_from) if experiment.init_from else None
    with CatchPluginErrors() as guard:
        with noted_weights() as read:
            trial = partial(FirstUpdates, experiment=experiment, registry=plugins.registry)
            training = build(experiment, plugins.registry, where, device, progress, new, trial, first)
        training = attrs.evolve(training, weights_files=read)
        check_taken(plugins.registry, experiment.metric, training.dataset, training.images, experiment.augmentation)
        evaluator = Evaluator(experiment.dataset, training.dataset, where, device, experiment.floor)
        outputs = game_outputs(plugins.registry, experiment.game, training.game.rules, training.images)
        for index, metric in enumerate(experiment.metric):
            try:
                evaluator.prepare(metric, progress, outputs)
            except ComponentError as error:
                name = plugins.registry.component_of("metric", metric).name
                raise UserError(f"metric[{index}] {name!r}: {error}") from None
        for index, tracker in enumerate(experiment.tracker):
            try:
                getattr(tracker, "prepare", lambda: None)()
            except ComponentError as error:
                raise UserError(f"tracker[{index}]: {error}") from None
    if isinstance(guard.error, UserError):
        raise UserError(*(f"{request.experiment}: {line}" for line in guard.error.problems)) from None
    if isinstance(guard.error, NotDeterministic | PluginFailed):
        raise guard.error
    if guard.error is not None:
        raise attribute_to_plugin(guard.error, plugins.registry, BEFORE) from guard.error
    return training, evaluator, first


# ---------------------------------------------------------------------------------------------------------------------
# Trained, and ended
# ---------------------------------------------------------------------------------------------------------------------


def train_run(run: OpenedRun, callbacks: CallbackList) -> BaseException | None:
    """Trains a run from its start to its last step; returns what ended it early, or None."""
    try:
        with CatchPluginErrors() as guard, deterministic(run.experiment.train.deterministic):  # names the operation
            callbacks.started(run.start)
            run.events.started(run.experiment.tracker)
            train(run.training, run.start, callbacks)
    except KeyboardInterrupt as interrupt:
        return interrupt
    return guard.error


def finish(run: OpenedRun, step: int, error: BaseException | None) -> Outcome:
    """Ends a run that has trained: writes its end into run.json, draws its plots; raises what ended it early.

    `step` is the number of finished steps.
    """
    folder, view = run.folder, run.view
    failure = explain_failure(error, run, step)
    metrics: dict[str, Any] = {}
    try:
        metrics = best_and_final(read_records(folder.path / "metrics.jsonl"))
    except UserError as damaged:
        failure = failure or damaged
    outcome = Outcome(
        path=folder.path,
        status=status_of(failure),
        step=max(list_checkpoints(folder.checkpoints), default=0),
        seconds=run.seconds,
        metrics=metrics,
        weights=run.training.weights,
    )
    # Before the plots: whatever happens to them, the run has ended so.
    with _no_second_failure(failure, view):
        folder.write_info(
            status=outcome.status,
            ended=now(),
            step=outcome.step,
            seconds=round(outcome.seconds, 3),
            metrics=outcome.metrics,
            error=f"{type(failure).__name__}: {failure}" if failure else None,
        )
    if folder.writes and not isinstance(failure, KeyboardInterrupt):  # which asks for an end at once
        with CatchPluginErrors() as guard:  # matplotlib, which users configure, may raise anything
            draw_plots(run.training, folder, outcome.step, outcome.status in ("finished", "interrupted"))
        if guard.error is not None:
            view.line(f"some plots are missing: {error_text(guard.error)}")
    run.events.finished(failure)
    if isinstance(failure, Interrupted):
        failure.path = folder.path
    if failure is error and error is not None:
        raise error
    if failure is not None:
        raise failure from error
    return outcome


@contextlib.contextmanager
def _no_second_failure(failure: BaseException | None, view: ProgressView) -> Iterator[None]:
    """Reports, not raises, a second failure."""
    try:
        yield
    except CannotWrite as refusal:
        if failure is None:
            raise
        view.line(str(refusal))
