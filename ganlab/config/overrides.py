"""`--set` overrides: parses `train.steps=100` and sets the value in an experiment's table.

An override's value is TOML, except that a plain word needs no quotes. The tables of a sweep's variants, and of a file
that has a base, are overrides as well, a key each.
"""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from ganlab.config.toml import LONGEST_PATH, MAX_BYTES, MAX_DEPTH, parse_toml
from ganlab.utils.errors import UserError, quote, quote_key

OF_A_PLAYER = ("optimizer", "clip_norm")
"""The keys of a network's table that are not of the network."""


def parse_override(text: str, of: str = "--set", example: str = "train.steps=100") -> tuple[list[str], Any]:
    """Parses a `--set` override: `loss.margin=0.5` becomes (["loss", "margin"], 0.5). `of` is the argument's name."""
    key, equals, value = text.partition("=")
    key = key.strip()
    parts = key.split(".")
    shown = text if text.isprintable() else quote(text)
    shown = shown if len(shown) <= LONGEST_PATH else f"{shown[:LONGEST_PATH]}…"
    if not equals or len(key) > LONGEST_PATH or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
        raise UserError(f"{of} {shown}: expected KEY=VALUE, such as {example}")
    if len(parts) > MAX_DEPTH:
        raise UserError(f"{of} {key}: a dotted key of more than {MAX_DEPTH} parts")
    value = value.strip()
    if len(value) > MAX_BYTES or "\n" in value:
        raise UserError(f"{of} {key}: expected a value on one line")
    if not value:
        raise UserError(
            f"{of} {shown}: has no value; expected one, such as {example}. Write '{key}=\"\"' for an empty text, "
            f"{key}=[] for an empty list, and leave {of} {key} out for what the file has, or the default"
        )
    try:
        return parts, parse_toml(f"value = {value}", f"{of} {key}")["value"]
    except tomllib.TOMLDecodeError:
        if not re.search(r"""["'\[\]{}=]""", value):
            return parts, value
        raise UserError(f"{of} {shown}: {quote(value)} is neither a TOML value nor a plain word") from None


def parse_options(texts: Iterable[str]) -> dict[str, Any]:
    """Parses the overrides of a sampler's options, `--option psi=0.5`; raises UserError for a dotted name."""
    found: dict[str, Any] = {}
    for text in texts:
        parts, value = parse_override(text, "--option", "psi=0.5")
        if len(parts) > 1:
            raise UserError(f"--option {'.'.join(parts)}: expected NAME=VALUE, such as psi=0.5")
        found[parts[0]] = value
    return found


def apply_override(table: dict[str, Any], parts: list[str], value: Any, of: str = "--set ") -> None:
    """Applies a `--set` override to an experiment's table. A number in the key is a list index: `metric.0.samples`.

    Setting another component's name drops the options of the previous component, but not what is of a network's player:
    `optimizer` and `clip_norm`; so does a name in place of a network's table. Setting one of train.steps and
    train.epochs drops the other. `of` is put before the key in an error.
    """
    where = ".".join(map(quote_key, parts))
    at: Any = table
    for depth, part in enumerate(parts[:-1]):
        here = ".".join(map(quote_key, parts[: depth + 1]))
        at = at[_list_index(at, part, f"{of}{where}")] if isinstance(at, list) else at.setdefault(part, {})
        if isinstance(at, str):
            raise UserError(f"{of}{where}: {here} is {quote(at)}, not a table; set {here}={{ name = {quote(at)}, … }}")
        if not isinstance(at, (dict, list)):
            raise UserError(f"{of}{where}: {here} is {quote(at)}, not a table")
    last = parts[-1]
    if isinstance(at, list):
        at[_list_index(at, last, f"{of}{where}")] = value
        return
    if last == "name" and len(parts) > 1 and at.get("name") != value:
        for key in [key for key in at if key not in OF_A_PLAYER or len(parts) > 2]:
            del at[key]
    if len(parts) == 1 and isinstance(value, str) and isinstance(before := at.get(last), Mapping):
        of_player = {key: before[key] for key in OF_A_PLAYER if key in before}
        value = {"name": value, **of_player} if of_player else value
    if parts[0] == "train" and last in ("steps", "epochs"):
        at.pop("epochs" if last == "steps" else "steps", None)
    at[last] = value


def apply_changes(table: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Applies the overrides of a file to the table of its base: tables are merged, values and lists are replaced.

    A component that the base gives by its name alone is a table with that name. Raises UserError.
    """
    _apply_changes(table, table, changes, [])


def _apply_changes(table: dict[str, Any], at: Any, changes: Mapping[str, Any], parts: list[str]) -> None:
    if parts == ["train"] and {"steps", "epochs"} <= changes.keys():
        raise UserError("train: give one of 'steps' and 'epochs', not both")
    # A component's name first, since it drops the options before it.
    for key, value in sorted(changes.items(), key=lambda item: item[0] != "name"):
        if not isinstance(value, Mapping):
            apply_override(table, [*parts, key], copy.deepcopy(value), "")
            continue
        inner = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict) and (key not in at or isinstance(inner, str)):
            inner = at[key] = {} if inner is None else {"name": inner}
        _apply_changes(table, inner, value, [*parts, key])


def _list_index(items: list[Any], part: str, where: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", part) and int(part) < len(items):
        return int(part)
    many = f" of {len(items)}" if items else ""
    empty = "" if items else ", but the list is empty; fill it, as in [{ name = 'NAME' }]"
    raise UserError(f"{where}: expected a place in a list{many}, counted from 0, got {quote(part)}{empty}")
