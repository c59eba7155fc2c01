"""The folder of a run: which one it is, whether it may be opened, and going on from what it holds.

Decisions:
- Nothing is overwritten: a folder that holds a run is opened only to go on with it, one that holds anything else never.
- A run is resumed only where it will repeat to the bit, or where `--anyway` says that it need not. What the bits depend
  on is written into run.json and compared, line by line.
- What can be refused is refused before the first step: a folder that another process has, a disk without room for a
  checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ganlab.config.schema import NO_RESULTS, Experiment
from ganlab.config.toml import read_toml
from ganlab.run.records import read_records
from ganlab.run.run_folder import RunFolder
from ganlab.training.checkpoint import DamagedCheckpoint, list_checkpoints, load_checkpoint
from ganlab.training.loop import Training
from ganlab.training.state import restore_training
from ganlab.utils import distributed
from ganlab.utils.errors import UserError, one_line
from ganlab.utils.files import remove
from ganlab.utils.hashing import sha256
from ganlab.viz.progress import View

TOLD = 20
"""How many differences between two experiments are told, a line each."""


FREE = ("train.steps", "train.epochs", "plugins", "components.tracker", *NO_RESULTS)
"""What a resume may change and still repeat the steps that there were."""


def goes_further(path: Path, experiment: Experiment) -> bool:
    """Whether the experiment now asks for more than the finished run in the folder did."""
    asked = read_toml(path / "experiment.toml").get("train")
    if not isinstance(asked, Mapping):
        raise UserError(f"{path / 'experiment.toml'}: damaged: it has no table [train]")
    return (asked.get("steps"), asked.get("epochs")) != (experiment.train.steps, experiment.train.epochs)


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
    done = distributed.broadcast_json(lambda: max(list_checkpoints(folder.checkpoints), default=0))
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
