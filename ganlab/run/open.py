"""ganlab.run.open."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from attrs import frozen

from ganlab.config.schema import Experiment
from ganlab.run.run_folder import RunFolder, is_unstarted, read_info
from ganlab.training.loop import Training
from ganlab.training.state import expected_sizes
from ganlab.utils import distributed
from ganlab.utils.errors import CannotWrite, UserError
from ganlab.utils.files import make_room


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
    folder.path = Path(distributed.broadcast_json(lambda: str(_made(folder.path, chosen))))
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
