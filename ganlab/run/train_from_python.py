"""`ganlab.train`: trains a run from Python, of an experiment file or a table, and returns it as `load_run` does."""

from __future__ import annotations

import tempfile
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
from ganlab.viz.progress import make_progress_view

FILE = "experiment.toml"


def train(
    experiment: str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    resume: bool = False,
    device: str = "auto",
    plugins: Iterable[str | Path] = (),
) -> Run:
    """Trains a run as `ganlab run` does, with its progress in the notebook or the terminal, and returns it loaded.

    experiment: an experiment file, or its table as a dictionary, in which paths are relative to the current folder.
    out: the run folder; by default `runs/NAME/TIME-seedSEED`.
    overrides: texts as for `--set`, such as "train.steps=100".
    resume: whether to go on with the interrupted run in `out`, or with the latest of this name and seed.
    plugins: plugin files to load besides those that the experiment names.

    Interrupted once, by Ctrl-C or a notebook's stop button, it saves a checkpoint and returns the run, whose
    `info["status"]` is then "interrupted". Only for the main thread. Raises UserError where `ganlab run` refuses, and
    Diverged where the training diverges; the run is then in its folder.
    """
    for name, given in (("overrides", overrides), ("plugins", plugins)):
        if isinstance(given, (str, bytes, Path)):  # whose letters would be taken one by one
            raise UserError(f"train: {name}: expected a list, got {quote(given)}; write [{quote(given)}]")
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
            device=device,
            plugin_files=files,
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
        whole[BASE] = str(here.parent / Path(whole[BASE]).expanduser())
    try:
        file.write_text(tomli_w.dumps(whole), encoding="utf-8")
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"experiment: cannot be written as TOML: {one_line(error)}") from None
