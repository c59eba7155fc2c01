"""`ganlab.train`: trains a run from Python, of an experiment file or a table, and returns it as `load_run` does."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from ganlab.config.base_files import BASE, with_absolute_plugins
from ganlab.run import train as run_training
from ganlab.run.load_run import Run, load_run
from ganlab.run.request import RunRequest
from ganlab.utils.errors import Interrupted, UserError, one_line, quote
from ganlab.utils.from_python import from_python
from ganlab.utils.paths import expand_home
from ganlab.viz.progress import make_progress_view

FILE = "experiment.toml"


@from_python
def train(
    experiment: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    resume: bool = False,
    device: str = "auto",
    plugins: Iterable[str | Path] = (),
    anyway: bool = False,
    no_plugins: Iterable[str] = (),
) -> Run:
    """Trains a run as `ganlab run` does, with its progress in the notebook or the terminal, and returns it loaded.

    experiment: an experiment file, or its table as a dictionary, in which paths are relative to the current folder.
    out: the run folder; by default `runs/NAME/TIME-seedSEED`.
    overrides: texts as for `--set`, such as "train.steps=100".
    resume: whether to go on with the interrupted run in `out`, or with the latest of this name and seed.
    plugins: plugin files to load besides those that the experiment names.
    anyway: whether to resume a run even where it will not be repeated exactly.
    no_plugins: names of plugins that are not loaded.

    Interrupted once, by Ctrl-C or a notebook's stop button, it saves a checkpoint and returns the run, whose
    `info["status"]` is then "interrupted". Only for the main thread. Raises UserError where `ganlab run` refuses, and
    Diverged where the training diverges; the run is then in its folder.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("train: is for the main thread, which alone hears signals; elsewhere start `ganlab run`")
    files = tuple(map(Path, plugins))
    with tempfile.TemporaryDirectory() as folder:
        table = experiment if isinstance(experiment, Mapping) else None
        file = Path(folder) / FILE if table is not None else Path(str(experiment))
        if table is not None:
            _write(table, file)
        request = RunRequest(
            experiment=file,
            overrides=tuple(overrides),
            out=None if out is None else Path(out),
            resume=resume,
            anyway=anyway,
            device=device,
            plugin_files=files,
            blocked=tuple(no_plugins),
        )
        view = make_progress_view(Console())
        try:
            path = run_training.run(request, view).path
        except Interrupted as interrupt:
            if interrupt.path is None:
                raise
            view.line(f"{interrupt}; go on with resume=True, out={str(interrupt.path)!r}")
            path = interrupt.path
        except UserError as error:
            if table is None:
                raise
            raise UserError(*(line.replace(f"{file}: ", "experiment: ") for line in error.problems)) from None
    return load_run(path, device="cpu" if device.startswith("pretend") else device, plugins=files)


def _write(table: Mapping[str, Any], file: Path) -> None:
    """Writes the table that is to be trained as an experiment file, with the paths of its base and plugins absolute."""
    here = Path.cwd() / FILE
    whole = {"name": "experiment", **with_absolute_plugins(here, table)}
    if isinstance(whole.get(BASE), str):
        whole[BASE] = str(here.parent / expand_home(whole[BASE]))
    if problem := _unfit(table):
        raise UserError(f"experiment: {problem}")
    try:
        file.write_text(tomli_w.dumps(whole), encoding="utf-8")
    except (ValueError, AttributeError) as error:
        raise UserError(f"experiment: cannot be written as TOML: {one_line(error)}") from None


def _unfit(value: object, path: str = "") -> str:
    """What in a table that is to be trained no experiment file can hold, by its key, in words; "" for nothing."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                return f"{path}{'.' * bool(path)}{key}: expected a text as key, got {quote(key)}"
        parts = [(f"{path}.{key}" if path else key, part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    elif isinstance(value, (str, bool, int, float)):
        return ""
    else:
        got = "None; leave it out" if value is None else type(value).__name__
        return f"{path}: expected a text, a number, True or False, a list or a dictionary, got {got}"
    return next(filter(None, (_unfit(part, where) for where, part in parts)), "")
