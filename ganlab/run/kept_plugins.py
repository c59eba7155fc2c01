"""Kept plugins: a run folder holds a copy of each local plugin file that its run uses, for when the original is gone.

The copies are `plugins/HASH/NAME.py`, so that a run that was resumed with a changed file keeps both. What the file
imports of other local files is in `plugins/HASH/kept_imports/`, and also beside the copy as it lay beside the original,
for plugins that look there. HASH is that of all of them.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ganlab.config.base_files import read_experiment_table
from ganlab.config.converter import TableConverter
from ganlab.config.schema import Experiment
from ganlab.plugin.loader import Plugins, plugin_sources
from ganlab.plugin.local_imports import KEPT_IMPORTS, kept_path
from ganlab.run.request import RunRequest
from ganlab.run.run_folder import RunFolder
from ganlab.utils.errors import UserError
from ganlab.utils.files import write_whole
from ganlab.utils.hashing import file_sha256, sha256

Imports = Mapping[str, Mapping[str, str]]
"""The local files that a plugin imports, as in run.json: by module, each with `file` and `sha256`."""


def keep_plugins(folder: RunFolder, experiment: Experiment, plugins: Plugins, imports: Mapping[str, Imports]) -> None:
    """Copies the local plugin files of a run's components and observers into its folder, and the files they import.

    `imports` are those of each plugin. Raises CannotWrite.
    """
    if not folder.writes:
        return
    used = TableConverter(plugins.registry).components_in(experiment)
    for origin in {*(part.origin for part in used if part.origin.source == "file"), *plugins.observers}:
        assert origin.file is not None
        content = origin.file.read_bytes()
        own = imports.get(origin.plugin, {})
        kept = folder.path / "plugins" / _hash_of_all(sha256(content), own)[:16]
        _write(kept / origin.file.name, content)
        for module, record in own.items():
            file = Path(record["file"])
            content = file.read_bytes()
            _write(kept_path(kept / KEPT_IMPORTS, module, file), content)
            if origin.file.parent in file.parents and file != origin.file:
                _write(kept / file.relative_to(origin.file.parent), content)


def _write(copy: Path, content: bytes) -> None:
    if not copy.is_file():
        write_whole(copy, content)


def _hash_of_all(file: str, imports: Imports) -> str:
    """Of a kept plugin, the hash by which its folder is called: that of its file if it imports no other local file."""
    if not imports:
        return file
    return sha256(json.dumps([file, sorted((name, record["sha256"]) for name, record in imports.items())]).encode())


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
    files = read_experiment_table(experiment).table.get("plugins")
    return [Path(file) for file in files if isinstance(file, str)] if isinstance(files, list) else []


def kept_plugin_finder(run: Path, info: Mapping[str, Any], instead_of_changed: bool) -> Callable[[Path], Path]:
    """Returns a function from a plugin file to the file to load: the one kept in the run's folder if it is gone.

    It is also the kept one if the file is as it was and a file that it imports is gone. With `instead_of_changed` also
    if any of them has changed. A warning says so where the file itself is there. `info` is run.json, which has the
    hashes of the files that the run used; a kept file with another hash is not taken.
    """
    used = list(_plugins_of(info))

    def locate(file: Path) -> Path:
        is_there = file.is_file()
        reason = _why_not(file, used, instead_of_changed) if is_there else ""
        if reason is None:
            return file
        for copy in sorted((run / "plugins").glob(f"*/{glob.escape(file.name)}")):
            if any(_is_copy(copy, hashed, imports) for _, hashed, imports in used):
                if is_there:
                    warnings.warn(f"{reason} since the run used it; the copy in {run} is used", stacklevel=2)
                return copy.resolve()
        return file

    return locate


def _plugins_of(info: Mapping[str, Any]) -> Iterator[tuple[Path, str, Imports]]:
    """Yields the plugin files of a run, with their hashes and what they import, of which copies may be kept."""
    imports = info.get("imports")
    parts = [part for key in ("components", "observers") if isinstance(part := info.get(key), Mapping)]
    for origin in (origin for part in parts for origin in part.values()):
        if isinstance(origin, Mapping) and {"file", "sha256"} <= origin.keys():
            of = imports.get(origin.get("plugin")) if isinstance(imports, Mapping) else None
            yield Path(origin["file"]), origin["sha256"], of if isinstance(of, Mapping) else {}


def _why_not(file: Path, used: list[tuple[Path, str, Imports]], instead_of_changed: bool) -> str | None:
    """Why the kept copy of a plugin file is to be loaded though the file is there; None for the file itself.

    What it imports is looked for where it lay as seen from the file, which may have been moved with it.
    """
    hashed = file_sha256(file)
    reasons = []
    for original, then, imports in used:
        if then != hashed:
            continue
        changed = None
        for record in imports.values():
            imported = Path(os.path.normpath(file.parent / os.path.relpath(record["file"], original.parent)))
            if not imported.is_file():
                changed = f"{imported}, which {file} imports, is gone"
            elif instead_of_changed and file_sha256(imported) != record["sha256"]:
                changed = f"{imported}, which {file} imports, has changed"
        reasons.append(changed)
    if None in reasons or not (reasons or instead_of_changed):
        return None
    return reasons[0] if reasons else f"{file} has changed"


def _is_copy(copy: Path, hashed: str, imports: Imports) -> bool:
    """Whether a file that is kept in a run folder is the plugin file of that hash, with all that it imports."""
    copies = {
        kept_path(copy.parent / KEPT_IMPORTS, name, Path(of["file"])): of["sha256"] for name, of in imports.items()
    }
    copies[copy] = hashed
    return all(file.is_file() and file_sha256(file) == of for file, of in copies.items())
