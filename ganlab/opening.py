"""The folder of a run: which one it is, whether it may be opened, and going on from what it holds.

Decisions:
- Nothing is overwritten: a folder that holds a run is opened only to go on with it, one that holds anything else never.
- A run is resumed only where it will repeat to the bit, or where `--anyway` says that it need not. What the bits depend
  on is written into run.json and compared, line by line.
- What can be refused is refused before the first step: a folder that another process has, a disk without room for a
  checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import frozen

from ganlab import ranks
from ganlab.build import Training
from ganlab.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.errors import CannotWrite, UserError, one_line
from ganlab.files import make_room, remove, sha256
from ganlab.plugins import Plugins
from ganlab.runfolder import RunFolder, is_unstarted, processor, read_info, read_records, versions
from ganlab.schema import NO_RESULTS, Experiment
from ganlab.state import expected_sizes, restore_training
from ganlab.structure import Structurer
from ganlab.tables import read_toml
from ganlab.view import View

TOLD = 20
"""How many differences between two experiments are told, a line each."""


FREE = ("train.steps", "train.epochs", "plugins", "components.tracker", *NO_RESULTS)
"""What a resume may change and still repeat the steps that there were."""


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


def chosen_folder(request: Request, experiment: Experiment) -> Path:
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


def earlier_run(path: Path, request: Request) -> dict[str, Any]:
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
    if not is_unstarted(path):
        raise UserError(f"--out {path}: is not empty and holds no run (no run.json); choose another folder")
    return {}


def open_folder(folder: RunFolder, request: Request, earlier: dict[str, Any], training: Training) -> None:
    """Makes the folder, keeps other processes out, and sees that a checkpoint can be written there."""
    chosen = request.out is None and not request.resume
    folder.path = Path(ranks.told(lambda: str(_made(folder.path, chosen))))
    if not folder.writes:
        return
    try:
        folder.lock()
        # Another process may have had the folder between the first look and the lock.
        if earlier_run(folder.path, request) != earlier:
            folder.unlock()
            raise UserError(f"{folder.path}: another process has gone on with this run meanwhile")
        make_room(folder.checkpoints, expected_sizes(training))
    except CannotWrite as error:
        folder.unlock()
        raise UserError(str(error)) from None
    except OSError as error:
        folder.unlock()
        raise UserError(f"{folder.path}: cannot be written to: {error.strerror}") from None


def _made(path: Path, chosen: bool) -> Path:
    """Makes the run folder. One whose name was `chosen` here must be new, and gets another number where it is not."""
    if not chosen:
        _made_folder(path, exist_ok=True)
        return path
    if not path.parent.resolve().is_relative_to(Path("runs").resolve()):
        raise UserError(
            f"{path.parent}: is a link that leads out of {Path('runs').resolve()}; name a folder with --out"
        )
    for numbered in _numbered(path):
        with contextlib.suppress(FileExistsError):
            _made_folder(numbered, exist_ok=False)
            return numbered
    raise AssertionError("numbers do not end")


def _made_folder(path: Path, exist_ok: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written to: {error.strerror}") from None


def goes_further(path: Path, experiment: Experiment) -> bool:
    """Whether the experiment now asks for more than the finished run in the folder did."""
    asked = read_toml(path / "experiment.toml").get("train")
    if not isinstance(asked, Mapping):
        raise UserError(f"{path / 'experiment.toml'}: damaged: it has no table [train]")
    return (asked.get("steps"), asked.get("epochs")) != (experiment.train.steps, experiment.train.epochs)


def surroundings_of(experiment: Experiment, plugins: Plugins, training: Training) -> dict[str, Any]:
    """What the bits of a run depend on besides its experiment."""
    device, dataset = training.game.device, training.dataset
    used = Structurer(plugins.registry).components_in(experiment)
    return {
        "versions": versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "world_size": ranks.world(),
        "components": {f"{part.kind}.{part.name}": part.origin.record() for part in used},
        "dataset": {
            "name": dataset.name,
            "split": dataset.split,
            "count": len(dataset.images),
            "skipped": getattr(dataset, "skipped", 0),
            "fingerprint": dataset.fingerprint,
        },
    }


def identity(table: Mapping[str, Any]) -> str:
    """A hash of what makes an experiment this one, which its checkpoints carry: two of one identity go on alike."""
    flat = {key: value for key, value in _flat(table).items() if _is_bound(key)}
    return sha256(json.dumps(flat, sort_keys=True).encode())


def refuse_other(path: Path, earlier: dict[str, Any], table: dict[str, Any], surroundings: dict[str, Any]) -> None:
    """Refuses to resume what would not go on with the same bits, with a line for each thing that differs."""
    before = _flat(read_toml(path / "experiment.toml"))
    wanted = _flat(table)
    before |= _flat({key: earlier.get(key) for key in surroundings})
    wanted |= _flat(surroundings)
    keys = filter(_is_bound, before.keys() | wanted.keys())
    differing = sorted(key for key in keys if before.get(key) != wanted.get(key))
    if differing:
        was, now = ({key: one_line(repr(values.get(key))) for key in differing} for values in (before, wanted))
        more = [f"{path}: and {len(differing) - TOLD} more"] if len(differing) > TOLD else []
        raise UserError(
            *(f"{path}: {one_line(key)}: was {was[key]}, is now {now[key]}" for key in differing[:TOLD]),
            *more,
            f"{path}: resuming would not repeat the run to the bit; to go on all the same: --resume --anyway",
        )


def refuse_bent(folder: RunFolder, earlier: Mapping[str, Any], training: Training) -> None:
    """Refuses another number of steps where a schedule follows it: the steps that were taken would have been others."""
    before = earlier.get("total_steps", training.total_steps)
    done = ranks.told(lambda: max(list_checkpoints(folder.checkpoints), default=0))
    if bent := training.schedules.bent(before, done):
        raise UserError(
            f"{folder.path}: {', '.join(bent)}: scheduled over the whole run, which had {before:,} steps and is now to "
            f"have {training.total_steps:,}: the {done:,} that were taken would have been others. Give the schedule an "
            "`end` in a new run; to go on all the same: --resume --anyway"
        )


def _is_bound(key: str) -> bool:
    """Whether a resume must leave a key as it was: it is none of `FREE`, nor inside one."""
    return key not in FREE and not key.startswith(tuple(f"{free}{mark}" for free in FREE for mark in ".["))


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{at}.{key}" if at else str(key)).items()}
    if isinstance(value, list):
        return {k: v for index, item in enumerate(value) for k, v in _flat(item, f"{at}[{index}]").items()}
    return {at: value}


def restored(folder: RunFolder, training: Training, view: View, identity_now: str, anyway: bool) -> int:
    """Loads the latest whole checkpoint; the records of later steps are dropped. Returns the step to go on from."""
    damaged: dict[Path, str] = {}
    for step, path in reversed(list_checkpoints(folder.checkpoints).items()):
        try:
            state = load_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged[path] = str(error)
            continue
        for line in damaged.values():
            view.line(f"{line}; using the one before")
        if step > training.total_steps:
            raise UserError(f"{folder.path}: is at step {step:,} already; {training.total_steps:,} are asked for")
        about = state.get("progress", {})
        if about.get("experiment") != identity_now and not anyway:
            raise UserError(f"{path}: belongs to another experiment; to go on from it all the same: --resume --anyway")
        try:
            restore_training(training, state, new_options=anyway)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        _tell_what_is_gone(folder, about.get("records", {}), step, view)
        _put_aside(folder, damaged)
        folder.forget_after(step)
        view.line(f"resuming {folder.path} at step {step:,}")
        return step
    if damaged and not anyway:
        raise UserError(
            *damaged.values(), f"{folder.path}: no checkpoint is whole; to start again from step 0: --resume --anyway"
        )
    _put_aside(folder, damaged)
    folder.forget_after(-1)
    view.line(f"{folder.path}: no checkpoint to resume from; starting at step 0")
    return 0


def _put_aside(folder: RunFolder, damaged: Iterable[Path]) -> None:
    """Renames damaged checkpoints: as the latest ones they would be kept, and the whole ones before them would go."""
    for path in damaged if folder.writes else ():
        aside = path.with_name(f"damaged-{path.name}")
        remove(aside)
        path.rename(aside)


def _tell_what_is_gone(folder: RunFolder, counts: Mapping[str, int], step: int, view: View) -> None:
    """Says where there are fewer records than there were when the checkpoint was saved."""
    for file, count in counts.items():
        records = read_records(folder.path / file)
        there = sum(record["step"] <= step and not record.get("eval") for record in records)
        if there < count:
            view.line(f"{folder.path / file}: {count - there} of {count} records up to step {step:,} are gone")
