"""The life of one run: its folder, where it goes on from, what becomes of it.

The order: read and refuse, build and refuse, and only then make a folder; train; say what became of it in run.json.
"""

from __future__ import annotations

import contextlib
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from ganlab import plots, ranks
from ganlab.beside import Beside, restore_training
from ganlab.build import Training, build, pick_device, places
from ganlab.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.config import NO_RESULTS, Experiment, load_experiment, to_toml
from ganlab.data import to_float
from ganlab.errors import ComponentError, Diverged, Interrupted, UserError
from ganlab.evaluation import Progress, Scorer, evaluating, sample
from ganlab.interrupts import StopRequest
from ganlab.loop import train
from ganlab.phases import logits
from ganlab.plugins import Plugins
from ganlab.rng import untouched
from ganlab.runfolder import RunFolder, best_and_final, now, read_info, read_records, versions
from ganlab.structure import Structurer
from ganlab.view import View

SCORED = 1024
"""Images of each kind in plots/scores.png."""


@frozen
class Request:
    """What `ganlab run` was asked."""

    experiment: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    resume: bool = False
    anyway: bool = False
    device: str = "auto"
    plugin_files: tuple[Path, ...] = ()
    blocked: tuple[str, ...] = ()


@frozen
class Outcome:
    """What became of a run."""

    path: Path
    status: str
    step: int
    seconds: float
    metrics: dict[str, Any]


def dry_run(request: Request) -> str:
    """Everything that a run would refuse is refused; returns the resolved experiment. Writes no run folder."""
    experiment, plugins = _loaded(request)
    _built(request, experiment, plugins, pick_device(request.device))
    return to_toml(experiment, plugins)


def run(request: Request, view: View) -> Outcome:
    """Trains an experiment to its end, or resumes it. Raises Interrupted, Diverged, UserError."""
    with ranks.joined(pick_device(request.device)) as device:
        return _run(request, view, device)


def _run(request: Request, view: View, device: torch.device) -> Outcome:
    began = time.monotonic()
    experiment, plugins = _loaded(request)
    folder = RunFolder(Path(ranks.told(lambda: str(_folder(request, experiment)))), writes=ranks.rank() == 0)
    earlier = ranks.told(lambda: _earlier(folder.path, request))
    if earlier.get("status") == "finished" and not _goes_further(folder.path, experiment):
        view.line(f"already finished: {folder.path}")
        return _outcome(folder.path, "finished", earlier.get("step", 0), 0.0)
    with StopRequest() as stop, view:

        def progress(what: str, done: int, total: int) -> None:
            view.progress(what, done, total)
            if stop.requested:
                raise KeyboardInterrupt

        training, scorer = _built(request, experiment, plugins, device, progress)
        surroundings = _surroundings(experiment, plugins, training.game.device)
        toml = to_toml(experiment, plugins)
        if earlier and not request.anyway:
            _refuse_other(folder.path, earlier, tomllib.loads(toml), surroundings)
        _opened(folder)
        try:
            start = _restored(folder, training, view, request.anyway) if earlier else 0
            folder.info = dict(earlier)
            if folder.writes:
                folder.experiment_file.write_text(toml, encoding="utf-8")
            folder.write_info(
                status="running",
                name=experiment.name,
                seed=experiment.seed,
                started=earlier.get("started", now()),
                resumed=[*earlier.get("resumed", []), {"at": now(), "step": start}] if earlier else [],
                images=attrs.asdict(training.images),
                dataset=_described(training),
                total_steps=training.total_steps,
                step_levers=training.levers,
                **surroundings,
            )
            trackers = [config.build(folder) for config in experiment.tracker if folder.writes]
            beside = Beside(experiment, training, folder, plugins, scorer, view, stop, trackers)
            return _trained(beside, start, began)
        finally:
            training.feeder.close()
            folder.unlock()


def _loaded(request: Request) -> tuple[Experiment, Plugins]:
    return load_experiment(request.experiment, request.overrides, request.plugin_files, request.blocked)


def _built(
    request: Request,
    experiment: Experiment,
    plugins: Plugins,
    device: torch.device,
    progress: Progress | None = None,
) -> tuple[Training, Scorer]:
    """The objects that train and score; whatever refuses is named with the experiment's file."""
    where = places()
    try:
        training = build(experiment, plugins.registry, where, device)
        scorer = Scorer(experiment.dataset, training.dataset, where, device, experiment.floor)
        for index, metric in enumerate(experiment.metric):
            try:
                scorer.prepare(metric, *([progress] if progress else []))
            except ComponentError as error:
                raise UserError(f"metric[{index}]: {error}") from None
    except UserError as error:
        raise UserError(*(f"{request.experiment}: {line}" for line in error.problems)) from None
    return training, scorer


def _trained(beside: Beside, start: int, began: float) -> Outcome:
    """Trains, and writes down how it ended whatever happens. `began` is when the command did."""
    training, folder, hook = beside.training, beside.run, beside.plugins.hook
    earlier_seconds = folder.info.get("seconds", 0.0)
    outcome = Outcome(folder.path, "running", start, 0.0, {})

    def ended(kind: object, failure: BaseException | None, trace: object) -> None:
        nonlocal outcome
        outcome = Outcome(
            path=folder.path,
            status=_status(failure),
            step=max(list_checkpoints(folder.checkpoints), default=0),
            seconds=earlier_seconds + time.monotonic() - began,
            metrics=best_and_final(read_records(folder.path / "metrics.jsonl")),
        )
        folder.write_info(
            status=outcome.status,
            ended=now(),
            step=outcome.step,
            seconds=round(outcome.seconds, 3),
            metrics=outcome.metrics,
            error=f"{type(failure).__name__}: {failure}" if failure else None,
        )
        if not folder.writes:
            return
        draw_plots(training, folder, outcome.step, outcome.status in ("finished", "interrupted"))
        for tracker in beside.trackers:
            tracker.close()
        hook.run_finished(run=folder, error=failure)

    beside.starts(start)
    if folder.writes:
        with untouched():
            hook.run_started(run=folder)
    with contextlib.ExitStack() as stack:
        stack.push(ended)
        train(training, start, beside)
    return outcome


def _status(failure: BaseException | None) -> str:
    """What run.json calls the way a run ended."""
    if failure is None:
        return "finished"
    if isinstance(failure, (Interrupted, KeyboardInterrupt)):
        return "interrupted"
    return "diverged" if isinstance(failure, Diverged) else "failed"


def draw_plots(training: Training, folder: RunFolder, step: int, sound: bool) -> None:
    """The pictures of a run: from its records, and where it is sound from what the discriminator says now."""
    plots.plot_losses(read_records(folder.path / "log.jsonl"), folder.plots / "losses.png")
    plots.plot_metrics(read_records(folder.path / "metrics.jsonl"), folder.plots / "metrics.png")
    if not sound:  # what broke the run, such as a disk, might break this too
        return
    game = training.game
    network = game.discriminator.network
    real = training.feeder.images  # in memory already where they are resident
    probabilities: dict[str, list[float]] = {"real": [], "fake": []}
    count = min(SCORED, len(real))
    with untouched():
        sources = {
            "real": (part.to(game.device) for part in real[:count].split(128)),
            "fake": sample(game.generator.network, count, 0, game.device, "scores"),
        }
        for name, batches in sources.items():
            for images in batches:
                with evaluating(network):
                    probabilities[name] += logits(network(to_float(images), None)).sigmoid().tolist()
    plots.plot_scores(probabilities["real"], probabilities["fake"], folder.plots / "scores.png", step)


# ---------------------------------------------------------------------------------------------------------------------
# The folder, and going on from an earlier run
# ---------------------------------------------------------------------------------------------------------------------


def _folder(request: Request, experiment: Experiment) -> Path:
    """`--out`; with `--resume` the run that the experiment file lies in, or the latest unfinished one of its name."""
    if request.out is not None:
        return request.out
    if not request.resume:
        base = Path("runs") / experiment.name / f"{time.strftime('%Y%m%d-%H%M%S')}-seed{experiment.seed}"
        return next(path for path in _numbered(base) if not path.exists())
    if (request.experiment.parent / "run.json").is_file():
        return request.experiment.parent
    for path in sorted((Path("runs") / experiment.name).glob("*/run.json"), reverse=True):
        if read_info(path.parent)["status"] != "finished" and path.parent.name.endswith(f"-seed{experiment.seed}"):
            return path.parent
    raise UserError(
        f"--resume: no unfinished run of {experiment.name!r} with seed {experiment.seed} in "
        f"{Path('runs') / experiment.name}; name its folder with --out"
    )


def _numbered(base: Path) -> Iterable[Path]:
    yield base
    number = 2
    while True:
        yield base.with_name(f"{base.name}-{number}")
        number += 1


def _earlier(path: Path, request: Request) -> dict[str, Any]:
    """run.json of the run that is already in the folder, empty where there is none; refuses to overwrite anything."""
    if not path.exists():
        return {}
    if not path.is_dir():
        raise UserError(f"--out {path}: is a file; expected a folder")
    if (path / "run.json").is_file():
        info = read_info(path)
        if not request.resume:
            raise UserError(
                f"--out {path}: holds an earlier run ({info['status']}); go on with it by --resume, "
                "or choose another folder"
            )
        return info
    if any(item.name != ".lock" for item in path.iterdir()):
        raise UserError(f"--out {path}: is not empty and holds no run (no run.json); choose another folder")
    return {}


def _opened(folder: RunFolder) -> None:
    """Makes the folder and keeps other processes out."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.lock()
    except OSError as error:
        raise UserError(f"{folder.path}: cannot be written to: {error.strerror}") from None


def _goes_further(path: Path, experiment: Experiment) -> bool:
    """Whether the experiment now asks for more than the finished run in the folder did."""
    asked = tomllib.loads((path / "experiment.toml").read_text(encoding="utf-8")).get("train", {})
    return (asked.get("steps"), asked.get("epochs")) != (experiment.train.steps, experiment.train.epochs)


def _surroundings(experiment: Experiment, plugins: Plugins, device: torch.device) -> dict[str, Any]:
    """What the bits of a run depend on besides its experiment."""
    used = Structurer(plugins.registry).components_in(experiment)
    return {
        "versions": versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "world_size": ranks.world(),
        "components": {f"{part.kind}.{part.name}": part.origin.record() for part in used},
    }


def _refuse_other(path: Path, earlier: dict[str, Any], table: dict[str, Any], surroundings: dict[str, Any]) -> None:
    """Refuses to resume what would not go on with the same bits, with a line for each thing that differs."""
    before = _flat(tomllib.loads((path / "experiment.toml").read_text(encoding="utf-8")))
    wanted = _flat(table)
    for free in ("train.steps", "train.epochs", "plugins", *NO_RESULTS):
        before.pop(free, None), wanted.pop(free, None)
    before |= _flat({key: earlier.get(key) for key in surroundings})
    wanted |= _flat(surroundings)
    differing = sorted(key for key in before.keys() | wanted.keys() if before.get(key) != wanted.get(key))
    if differing:
        raise UserError(
            *(f"{path}: {key}: was {before.get(key)!r}, is now {wanted.get(key)!r}" for key in differing),
            f"{path}: resuming would not repeat the run to the bit; to go on all the same: --resume --anyway",
        )


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{at}.{key}" if at else str(key)).items()}
    if isinstance(value, list):
        return {k: v for index, item in enumerate(value) for k, v in _flat(item, f"{at}[{index}]").items()}
    return {at: value}


def _restored(folder: RunFolder, training: Training, view: View, anyway: bool) -> int:
    """Loads the latest whole checkpoint; the records of later steps are dropped. Returns the step to go on from."""
    damaged: list[str] = []
    for step, path in reversed(list_checkpoints(folder.checkpoints).items()):
        try:
            state = load_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            continue
        for line in damaged:
            view.line(f"{line}; using the one before")
        if step > training.total_steps:
            raise UserError(f"{folder.path}: is at step {step:,} already; {training.total_steps:,} are asked for")
        restore_training(training, state, new_options=anyway)
        folder.forget_after(step)
        view.line(f"resuming {folder.path} at step {step:,}")
        return step
    if damaged and not anyway:
        raise UserError(
            *damaged, f"{folder.path}: no checkpoint is whole; to start again from step 0: --resume --anyway"
        )
    folder.forget_after(-1)
    view.line(f"{folder.path}: no checkpoint to resume from; starting at step 0")
    return 0


def _described(training: Training) -> dict[str, Any]:
    dataset = training.dataset
    return {
        "name": dataset.name,
        "split": dataset.split,
        "count": len(dataset.images),
        "skipped": getattr(dataset, "skipped", 0),
        "fingerprint": dataset.fingerprint,
        "resident": not training.feeder.streams,
    }


def _outcome(path: Path, status: str, step: int, seconds: float) -> Outcome:
    return Outcome(path, status, step, seconds, best_and_final(read_records(path / "metrics.jsonl")))
