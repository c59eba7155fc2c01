"""The run folder of a request: which one it is, whether it may be used, making and locking it.

Decisions:
- Nothing is overwritten: a folder that holds a run is opened only to resume it, one that holds anything else never.
- A folder that another process uses, or whose disk has no room for a checkpoint, is refused before the first step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ganlab.config.schema import Experiment
from ganlab.run.request import RunRequest
from ganlab.run.run_folder import RunFolder, is_unstarted, read_info
from ganlab.training.loop import Training
from ganlab.training.state import expected_sizes
from ganlab.utils import distributed
from ganlab.utils.errors import CannotWrite, UserError
from ganlab.utils.files import check_disk_space


def choose_folder(request: RunRequest, experiment: Experiment) -> Path:
    """Chooses the folder to open for a run: `--out`, else a new one in `runs/`.

    With `--resume` and no `--out`, the run folder that the experiment file lies in, or the latest unfinished run of the
    experiment's name and seed.
    """
    if request.out is not None:
        return request.out
    if not request.resume:
        base = Path("runs") / experiment.name / f"{time.strftime('%Y%m%d-%H%M%S')}-seed{experiment.seed}"
        return next(path for path in _numbered_paths(base) if not path.exists())
    if (request.experiment.parent / "run.json").is_file():
        return request.experiment.parent
    if latest := latest_unfinished(experiment.name, experiment.seed):
        return latest
    raise UserError(
        f"--resume: no unfinished run of {experiment.name!r} with seed {experiment.seed} in "
        f"{Path('runs') / experiment.name}; name its folder with --out"
    )


def latest_unfinished(name: str, seed: int) -> Path | None:
    """The run folder to open where a resume names none: the latest unfinished one of this name and seed in `runs/`.

    Raises UserError where there is none, and a run of that name is damaged.
    """
    unfinished, damaged = [], []
    for path in sorted((Path("runs") / name).glob("*/run.json")):
        try:
            info = read_info(path.parent)
        except UserError as error:
            damaged.append(str(error))
            continue
        if info["status"] != "finished" and info["seed"] == seed:
            unfinished.append((str(info.get("started", "")), path.parent))
    if damaged and not unfinished:
        raise UserError(*damaged)
    return max(unfinished)[1] if unfinished else None


def _numbered_paths(base: Path) -> Iterable[Path]:
    yield base
    number = 2
    while True:
        yield base.with_name(f"{base.name}-{number}")
        number += 1


def earlier_run(path: Path, request: RunRequest) -> dict[str, Any]:
    """Of the folder to open, run.json of the run already in it, empty for none; refuses to overwrite anything."""
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


def open_folder(folder: RunFolder, request: RunRequest, training: Training) -> None:
    """Opens a run's folder: makes and locks it, checks that a checkpoint fits. `folder.info` is an earlier run's.

    Raises UserError where the folder cannot be made, locked or written to.
    """
    must_be_new = request.out is None and not request.resume
    folder.path = Path(distributed.broadcast_json(lambda: str(_make_run_folder(folder.path, must_be_new))))
    distributed.broadcast_json(lambda: _lock_folder(folder, request, training))


def _lock_folder(folder: RunFolder, request: RunRequest, training: Training) -> None:
    """Locks the folder to open, in the process that writes, and checks that a checkpoint fits."""
    try:
        folder.lock()
        # Another process may have had the folder between the first look and the lock.
        if earlier_run(folder.path, request) != folder.info:
            folder.unlock()
            raise UserError(f"{folder.path}: another process has gone on with this run meanwhile")
        check_disk_space(folder.checkpoints, expected_sizes(training))
    except CannotWrite as error:
        folder.unlock()
        raise UserError(str(error)) from None
    except OSError as error:
        folder.unlock()
        raise UserError(f"{folder.path}: cannot be written to: {error.strerror}") from None


def _make_run_folder(path: Path, must_be_new: bool) -> Path:
    """Makes the folder to open; one that must be new gets the next free number behind its name where it exists."""
    if not must_be_new:
        _make_folder(path, exist_ok=True)
        return path
    if not path.parent.resolve().is_relative_to(Path("runs").resolve()):
        raise UserError(
            f"{path.parent}: is a link that leads out of {Path('runs').resolve()}; name a folder with --out"
        )
    for numbered in _numbered_paths(path):
        with contextlib.suppress(FileExistsError):
            _make_folder(numbered, exist_ok=False)
            return numbered
    raise AssertionError("numbers do not end")


def _make_folder(path: Path, exist_ok: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written to: {error.strerror}") from None
