"""Reading an experiment: from a file and `--set` overrides to an `Experiment`, and back to the resolved file.

Decisions:
- A file is refused as a whole, with one line a problem, before anything is built.
- The resolved file holds every option with its value, so it repeats a run even after a default has changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from ganlab.config.converter import MOST_VALUES, Problem, Problems, Structurer
from ganlab.config.overrides import apply_override, parse_override
from ganlab.config.schema import NESTED, NO_RESULTS, Experiment
from ganlab.config.toml import read_toml
from ganlab.plugin.loader import Plugins, load_plugins
from ganlab.utils.errors import UserError, one_line, quote


def load_experiment(
    path: Path,
    overrides: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    blocked: Iterable[str] = (),
) -> tuple[Experiment, Plugins]:
    """Reads an experiment file, with `--set` overrides, and loads the plugins it may use.

    Raises UserError with a line for every problem there is.
    """
    table = read_toml(path)
    problems: list[str] = []
    for text in overrides:
        try:
            apply_override(table, *parse_override(text))
        except UserError as error:
            problems += error.problems
    table.setdefault("name", path.stem)
    return resolve(table, path, problems, plugin_files, blocked)


def resolve(
    table: Mapping[str, Any],
    path: Path,
    problems: Iterable[str] = (),
    plugin_files: Iterable[Path] = (),
    blocked: Iterable[str] = (),
) -> tuple[Experiment, Plugins]:
    """The experiment that a table from `path` describes; `problems` are those that were found in it before."""
    problems = list(problems)
    local = table.get("plugins", [])
    written = [file for file in local if isinstance(file, str)][:MOST_VALUES] if isinstance(local, list) else []
    plugin_files = [file.expanduser().resolve() for file in plugin_files]
    named = []
    for place, file in enumerate(written):
        try:
            found = (path.parent / Path(file).expanduser()).resolve()
            found.is_file()  # raises where a name is too long
        except (OSError, ValueError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else one_line(error)
            problems.append(f"{path}: plugins[{place}]: {quote(file)}: {reason}")
        else:
            named.append(found)
    named += plugin_files
    plugins = load_plugins(named, blocked)
    problems += plugins.problems
    problems += [str(failure) for failure in plugins.failures if failure.origin.file in named]

    try:
        experiment = structure_experiment(table, plugins)
    except Problems as error:
        problems += [f"{path}: {problem}" for problem in error.problems]
        if any("unknown" in problem.message for problem in error.problems):
            problems += [f"{failure} (so what it registers is unknown)" for failure in plugins.failures]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return experiment, plugins


def structure_experiment(table: Mapping[str, Any], plugins: Plugins) -> Experiment:
    """The table as an Experiment; raises Problems."""
    flat = dict(table)
    for key, (player, inner) in NESTED.items():
        flat.pop(key, None)
        if isinstance(flat.get(player), Mapping) and inner in flat[player]:
            flat[key] = _over(table.get(inner, "adam"), flat[player][inner])
            flat[player] = {name: value for name, value in flat[player].items() if name != inner}
    try:
        experiment: Experiment = Structurer(plugins.registry).read(flat, Experiment)
    except Problems as error:
        raise Problems([_as_written(problem) for problem in error.problems]) from None
    return experiment


def _over(common: Any, own: Any) -> Any:
    """A player's optimiser: a table without a name changes the common one."""
    if not isinstance(own, Mapping) or "name" in own:
        return own
    return {**(common if isinstance(common, Mapping) else {"name": common}), **own}


def _as_written(problem: Problem) -> Problem:
    """A problem under the path that the file has: generator_optimizer is written generator.optimizer."""
    head, dot, rest = problem.path.partition(".")
    return Problem(".".join(NESTED.get(head, (head,))) + dot + rest, problem.message)


def used_files(experiment: Experiment, plugins: Plugins) -> list[str]:
    """The plugin files that the experiment's components come from, absolute."""
    used = Structurer(plugins.registry).components_in(experiment)
    return sorted({str(part.origin.file) for part in used if part.origin.source == "file"})


def to_table(experiment: Experiment, plugins: Plugins) -> dict[str, Any]:
    """The experiment as the table of its resolved file."""
    table = Structurer(plugins.registry).write(experiment)
    for key, (player, inner) in NESTED.items():
        if key in table:
            table[player][inner] = table.pop(key)
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    return {key: value for key, value in table.items() if key not in tables} | tables


def to_toml(experiment: Experiment, plugins: Plugins) -> str:
    """The resolved experiment file: every option, and the plugin files it needs by absolute path."""
    table = to_table(experiment, plugins)
    table["plugins"] = used_files(experiment, plugins)
    return tomli_w.dumps(table)


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """The keys in which the tables of two experiments differ, their seeds aside and what changes no result."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        paths = {key: f"{at}.{key}" if at else key for key in {**one, **other}}
        kept = {key: path for key, path in paths.items() if path not in ("seed", *NO_RESULTS)}
        return [d for key, path in kept.items() for d in differences(one.get(key), other.get(key), path)]
    return [] if one == other else [at]
