"""Kept plugins: a run folder holds a copy of each local plugin file that its run uses, for when the original is gone.

The copies are `plugins/HASH/NAME.py`, so that a run that was resumed with a changed file keeps both.
"""

from __future__ import annotations

import contextlib
import glob
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ganlab.config.load import used_plugin_files
from ganlab.config.schema import Experiment
from ganlab.config.toml import read_toml
from ganlab.plugin.loader import Plugins, plugin_sources
from ganlab.run.request import RunRequest
from ganlab.run.run_folder import RunFolder
from ganlab.utils.errors import UserError
from ganlab.utils.files import write_whole
from ganlab.utils.hashing import file_sha256, sha256


def keep_plugins(folder: RunFolder, experiment: Experiment, plugins: Plugins) -> None:
    """Copies the local plugin files of a run's components into its folder, to keep them. Raises CannotWrite."""
    if not folder.writes:
        return
    for file in map(Path, used_plugin_files(experiment, plugins)):
        content = file.read_bytes()
        copy = folder.path / "plugins" / sha256(content)[:16] / file.name
        if not copy.is_file():
            write_whole(copy, content)


def other_plugin_files(run: Path, request: RunRequest, locate: Callable[[Path], Path]) -> list[Path]:
    """The plugin files of a run to resume, kept or still there, whose plugins the request does not load.

    They were given by `--plugin` or GANLAB_PLUGINS, or named in the experiment's file, when the run began.
    """
    with contextlib.suppress(UserError):  # which is reported when the files are loaded
        used, named = (_plugin_files(file) for file in (run / "experiment.toml", request.experiment))
        loaded = {file.stem for file in (*named, *request.plugin_files)}
        loaded |= {*request.blocked, *(origin.plugin for origin, _ in plugin_sources(()))}
        return [file for file in used if file.stem not in loaded and locate(file).is_file()]
    return []


def _plugin_files(experiment: Path) -> list[Path]:
    """The plugin files, kept or not, that an experiment's file names."""
    files = read_toml(experiment).get("plugins")
    return [Path(file) for file in files if isinstance(file, str)] if isinstance(files, list) else []


def kept_plugin_finder(run: Path, info: Mapping[str, Any], instead_of_changed: bool) -> Callable[[Path], Path]:
    """Returns a function from a plugin file to the file to load: the one kept in the run's folder if it is gone.

    With `instead_of_changed` also if it has changed, which a warning says. `info` is run.json, which has the hashes of
    the files that the run used; a kept file with another hash is not taken.
    """
    components = info.get("components")
    origins = components.values() if isinstance(components, Mapping) else ()
    hashes = {origin.get("sha256") for origin in origins if isinstance(origin, Mapping)}

    def locate(file: Path) -> Path:
        is_there = file.is_file()
        if is_there and (not instead_of_changed or file_sha256(file) in hashes):
            return file
        kept = sorted((run / "plugins").glob(f"*/{glob.escape(file.name)}"))
        copy = next((copy.resolve() for copy in kept if file_sha256(copy) in hashes), file)
        if is_there and copy != file:
            warnings.warn(f"{file} has changed since the run used it; the copy in {run} is used", stacklevel=2)
        return copy

    return locate
