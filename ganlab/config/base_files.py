"""`base = "other.toml"` in an experiment file: the files that it is based on are read and merged table by table.

Decisions:
- A file with a base says only what differs, as a variant of a sweep does, and by the same rules: a component by another
  name drops the options of the one before, and a list replaces the base's.
- `name` is the one key that is not inherited: two experiments with one name would count as repetitions of each other.
- The merged table has no base, and its plugin files are absolute, so a resolved file depends on no other.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from ganlab.config.overrides import apply_changes
from ganlab.config.toml import read_toml
from ganlab.utils.errors import UserError, quote

BASE = "base"
"""The key of an experiment file that names the file it is based on, relative to itself."""

MOST_BASES = 16
"""The longest chain of files; each is read whole."""


@frozen
class ExperimentTable:
    """The table of an experiment file, merged with its bases, and the tables of the bases, the nearest first."""

    table: dict[str, Any]
    bases: tuple[tuple[Path, Mapping[str, Any]], ...]


def read_experiment_table(path: Path) -> ExperimentTable:
    """Reads the table of an experiment file and of its base files; raises UserError with the file and the problem."""
    chain = [(path, read_toml(path))]
    while BASE in chain[-1][1]:
        file, table = chain[-1]
        named = table.pop(BASE)
        if not isinstance(named, str) or not named:
            raise UserError(f"{file}: base: expected the path of an experiment file, got {quote(named)}")
        try:
            base = file.parent / Path(named).expanduser()
            found = base.resolve()
            earlier = [other.resolve() for other, _ in chain]
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{file}: base: {quote(named)}: {error}") from None
        if found in earlier:
            files = " → ".join(str(other) for other, _ in chain[earlier.index(found) :])
            raise UserError(f"{file}: base: {named!r} is based on this file: {files} → {base}")
        if len(chain) > MOST_BASES:
            raise UserError(f"{path}: base: more than {MOST_BASES} files, each the base of another")
        try:
            chain.append((base, read_toml(base)))
        except UserError as error:
            raise UserError(*(f"{file}: base: {line}" for line in error.problems)) from None
    *others, (first, merged) = chain
    if others:
        merged = copy.deepcopy(dict(with_absolute_plugins(first, merged)))  # the bases stay as they are
    for file, table in reversed(others):
        merged.pop("name", None)
        try:
            apply_changes(merged, table if file is path else with_absolute_plugins(file, table))
        except UserError as error:
            raise UserError(*(f"{file}: {line}" for line in error.problems)) from None
    return ExperimentTable(merged, tuple(chain[1:]))


def with_absolute_plugins(path: Path, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Makes the plugin files in a table of the file at `path` absolute, before it is merged into another file's."""
    files = table.get("plugins")
    if not isinstance(files, list):
        return table
    folder = path.parent.absolute()
    moved = [str(folder / file) if isinstance(file, str) and not file.startswith("~") else file for file in files]
    return {**table, "plugins": moved}


def file_of(key: str, path: Path, table: Mapping[str, Any], bases: Sequence[tuple[Path, Mapping[str, Any]]]) -> Path:
    """Returns the base file that a key's value in a merged table is from, else `path`, the file that has the bases.

    key: dotted, such as "penalty[0].weight"; the value is that of a base if the base has an equal one there.
    """
    parts = key.replace("[", ".[").split(".")
    for length in range(len(parts), 0, -1):
        value = _value_at(table, parts[:length])
        if value is not None:
            return next((base for base, own in bases if _value_at(own, parts[:length]) == value), path)
    return path


def _value_at(table: Any, parts: Sequence[str]) -> Any:
    """Of a base file's table, the value at a dotted key; None where there is none."""
    for part in parts:
        if isinstance(table, Mapping):
            table = table.get(part)
        elif isinstance(table, list) and part[1:-1].isdecimal() and int(part[1:-1]) < len(table):
            table = table[int(part[1:-1])]
        else:
            return None
    return table
