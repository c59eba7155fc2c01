"""Loads an experiment from its TOML file and `--set` overrides, and writes the resolved experiment file.

Decisions:
- All problems of a file are reported at once, one line each, before anything is built.
- The resolved file has every option with its value, so it reproduces a run even after a default has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

import tomli_w

from ganlab.config.base_files import ExperimentTable, file_of, read_experiment_table
from ganlab.config.converter import MOST_VALUES, InvalidTable, TableConverter
from ganlab.config.game_tables import read_experiment, write_experiment
from ganlab.config.overrides import apply_override, parse_override
from ganlab.config.schema import NAME, NAME_RULE, Experiment
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.utils.errors import UserError, one_line, printable, quote
from ganlab.utils.paths import expand_home


def load_experiment(
    path: Path,
    overrides: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    blocked: Iterable[str] = (),
    locate: Callable[[Path], Path] = Path,
    optional: Collection[str] = (),
    metrics: Iterable[str] = (),
) -> tuple[Experiment, Plugins]:
    """Loads an experiment file with `--set` overrides, and all plugins.

    `metrics` are names: the file's metrics are reduced to these, and those that it lacks are added, before `overrides`
    change them. `locate` returns the file to load for a plugin file that the experiment names. Plugins that are missing
    or fail, and unknown components of the `optional` kinds, are no problem. Raises UserError with a line for every
    problem.
    """
    read, problems = _overridden_table(path, overrides, metrics)
    return experiment_from_table(
        read.table, path, problems, plugin_files, blocked, locate=locate, optional=optional, bases=read.bases
    )


def name_and_seed(path: Path, overrides: Iterable[str]) -> tuple[str, int]:
    """Loads an experiment's name and seed, before its plugins are known; raises UserError where they are not valid."""
    read, problems = _overridden_table(path, overrides)
    table = read.table
    name, seed = table["name"], table.get("seed", 0)
    if problems or not isinstance(name, str) or not re.fullmatch(NAME, name) or type(seed) is not int:
        raise UserError(*problems or [f"{path}: its name or its seed is not valid"])
    return name, seed


def _overridden_table(
    path: Path, overrides: Iterable[str], metrics: Iterable[str] = ()
) -> tuple[ExperimentTable, list[str]]:
    """Loads the table of an experiment file, changed by `--metric` and `--set`, and what is wrong with those."""
    read = read_experiment_table(path)
    table = read.table
    problems: list[str] = []
    if wanted := list(dict.fromkeys(metrics)):
        table["metric"] = _named_metrics(table.get("metric"), wanted)
    for text in overrides:
        try:
            apply_override(table, *parse_override(text))
        except UserError as error:
            problems += error.problems
    return read, problems + add_name(table, path)


def _named_metrics(own: Any, names: Iterable[str]) -> list[Any]:
    """On loading a file, its metrics of these names in their order; one that it lacks has its default options."""
    entries = [entry for entry in own if isinstance(entry, Mapping)] if isinstance(own, list) else []
    return [entry for name in names for entry in [e for e in entries if e.get("name") == name] or [{"name": name}]]


def add_name(table: dict[str, Any], path: Path) -> list[str]:
    """Loads the name of a file without the key `name`: its file name. Returns the problem where that is not valid."""
    if "name" in table:
        return []
    if re.fullmatch(NAME, path.stem):
        table["name"] = path.stem
        return []
    table["name"] = re.sub("[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:100] or "experiment"
    return [
        f"{path}: it has no key name, and its file's name cannot be used instead: {NAME_RULE}, got {quote(path.stem)}; "
        f'add a line such as name = "{table["name"]}"'
    ]


def experiment_from_table(
    table: Mapping[str, Any],
    path: Path,
    problems: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    blocked: Iterable[str] = (),
    load: Callable[[tuple[Path, ...], tuple[str, ...]], Plugins] = load_plugins,
    locate: Callable[[Path], Path] = Path,
    optional: Collection[str] = (),
    bases: Sequence[tuple[Path, Mapping[str, Any]]] = (),
) -> tuple[Experiment, Plugins]:
    """Loads an experiment from the table of its file, and all plugins.

    `problems` are errors that were found in the file before. `load` replaces `load_plugins`, for a caller with many
    tables. `locate` and `optional` are those of `load_experiment`; a file of `plugin_files` is located if it is gone.
    `bases` are the files that the table was merged from besides `path`, which problems in them name.
    Raises UserError with a line for every problem.
    """
    problems = list(problems)
    local = table.get("plugins", [])
    written = [file for file in local if isinstance(file, str)][:MOST_VALUES] if isinstance(local, list) else []
    plugin_files = [expand_home(file).resolve() for file in plugin_files]
    originals: dict[Path, Path] = {}
    for place, file in enumerate(written):
        try:
            original = (path.parent / Path(file).expanduser()).resolve()
            found = locate(original)
            is_given = found.name in {given.name for given in plugin_files}
            if not found.is_file() and (optional or is_given):  # raises where a name is too long
                continue
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            problems.append(f"{path}: plugins[{place}]: {quote(file)}: {reason}")
        else:
            originals[found] = original
    originals |= {file if _is_file_or_invalid(file) else locate(file): file for file in plugin_files}
    named = tuple(originals)
    plugins = load(named, tuple(blocked))
    plugins.originals |= {found: original for found, original in originals.items() if found != original}
    problems += plugins.problems
    if not optional:
        problems += [str(failure) for failure in plugins.failures if failure.origin.file in named]

    try:
        experiment = convert_experiment(table, plugins, optional)
    except InvalidTable as error:
        problems += [f"{file_of(problem.path, path, table, bases)}: {problem}" for problem in error.problems]
        if any("unknown" in problem.message for problem in error.problems):
            unsaid = [failure for failure in plugins.failures if str(failure) not in problems]
            problems += [f"{failure} (so what it registers is unknown)" for failure in unsaid]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return experiment, plugins


def _is_file_or_invalid(file: Path) -> bool:
    """Whether a plugin file to load is there, or has a name that no file can have, for which none is kept."""
    try:
        return file.is_file()
    except (OSError, ValueError):
        return True


def convert_experiment(table: Mapping[str, Any], plugins: Plugins, optional: Collection[str] = ()) -> Experiment:
    """Loads an experiment from the table of its file, with plugins loaded before; raises InvalidTable."""
    return read_experiment(table, plugins.registry, optional)


def used_plugin_files(experiment: Experiment, plugins: Plugins) -> list[str]:
    """Returns the loaded plugin files that an experiment's components come from, or that observe its runs; absolute."""
    used = TableConverter(plugins.registry).components_in(experiment)
    origins = {*(part.origin for part in used), *plugins.observers}
    return sorted(str(origin.file) for origin in origins if origin.source == "file")


def experiment_to_table(experiment: Experiment, plugins: Plugins) -> dict[str, Any]:
    """Converts a loaded experiment to the table of its resolved file."""
    return write_experiment(experiment, plugins.registry)


def experiment_to_toml(experiment: Experiment, plugins: Plugins) -> str:
    """Writes a loaded experiment as its resolved file: every option, and the plugin files it needs by absolute path.

    Where a copy was loaded in place of a file that is gone, the file is named and not the copy. Raises UserError for a
    path with bytes that are not UTF-8: TOML has no way to write them.
    """
    table = experiment_to_table(experiment, plugins)
    files = map(Path, used_plugin_files(experiment, plugins))
    table["plugins"] = sorted(str(plugins.originals.get(file, file)) for file in files)
    problems = [f"{key}: {why}" for key, value in _values(table, "") if (why := _why_not_toml(value))]
    if problems:
        raise UserError(*problems)
    return tomli_w.dumps(table)


def _why_not_toml(value: object) -> str:
    """Why the resolved file of a loaded experiment cannot hold a value; empty where it can."""
    if isinstance(value, str) and printable(value) != value:
        return f"'{printable(value)}' is not UTF-8, so the run's experiment.toml cannot hold it; rename it"
    if isinstance(value, str | int | float | date | time):
        return ""
    return f"TOML has no {type(value).__name__}, so the run's experiment.toml cannot hold {quote(value)}"


def _values(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Of a loaded experiment, yields every value that is neither a table nor a list, with its key."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _values(item, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _values(item, f"{at}[{index}]")
    else:
        yield at, value
