"""The matrix of a sweep file: keys with a list of values each, whose product becomes variants with readable names.

Decisions:
- A variant's name is made from the keys and values, `lr-0.001_loss-hinge`, so that a folder or a table's row says what
  it is. It does not depend on the other values, unless two of them read alike: more values may be added later, and the
  runs that have finished keep their folders.
- A variant of a matrix is a table of changes, as one that is written out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ganlab.utils.errors import UserError, quote, quote_key

LONGEST = 100
"""Most characters of a variant's name, as `NAME` in `ganlab/config/schema.py` has it."""


def matrix_variants(matrix: Mapping[str, Any], most: int) -> dict[str, dict[str, Any]]:
    """Returns the variants of a sweep's matrix, by name: the changes of each combination; the last key varies fastest.

    matrix: a list of values for each dotted key; `optimizer.lr` may be a quoted key or tables in tables.
    most: the most combinations. Raises UserError with a line for every problem.
    """
    problems: list[str] = []
    found: dict[str, list[Any]] = {}
    for key, values in _flat(matrix):
        shown = f"matrix.{quote_key(key)}"
        if not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in key.split(".")):
            problems.append(f"{shown}: expected a dotted key, such as 'optimizer.lr'")
        elif key in found:
            problems.append(f"{shown}: is given twice")
        elif key in ("seed", "base", "name", "plugins"):
            instead = "give the seeds by the sweep's key seeds" if key == "seed" else "it is the same for all variants"
            problems.append(f"{shown}: cannot be varied; {instead}")
        elif not isinstance(values, list) or not values:
            problems.append(f"{shown}: expected a list of values, got {quote(values)}")
        elif twice := [value for place, value in enumerate(values) if _exact(value) in map(_exact, values[:place])]:
            problems.append(f"{shown}: {quote(twice[0])} is listed twice")
        else:
            found[key] = values
    if not matrix:
        problems.append("matrix: expected a list of values for each key, got {}")
    if (count := math.prod(map(len, found.values()))) > most:
        problems.append(f"matrix: {count:,} combinations; a sweep has at most {most:,} runs")
    if problems:
        raise UserError(*problems)
    titles = _titles(list(found))
    texts = [
        [f"{title}-{text}" for text in _texts(values)] for title, values in zip(titles, found.values(), strict=True)
    ]
    variants: dict[str, dict[str, Any]] = {}
    combinations = zip(itertools.product(*texts), itertools.product(*found.values()), strict=True)
    for parts, values in combinations:
        name = _limited("_".join(parts))
        if name in variants:
            raise UserError(f"matrix: two combinations would be called {name!r}; write one of them under [variants]")
        variants[name] = _changes(dict(zip(found, values, strict=True)))
    return variants


def _flat(matrix: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys of a sweep's matrix with their values."""
    for key, value in matrix.items():
        where = f"{at}.{key}" if at else key
        if isinstance(value, Mapping) and value:
            yield from _flat(value, where)
        else:
            yield where, value


def _exact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _titles(keys: Sequence[str]) -> list[str]:
    """Short titles of a matrix' keys: the last part, or as many parts as tell a key from the others.

    The part `name` is left out: the title of `loss.name` is `loss`.
    """
    parts = [key.removesuffix(".name").split(".") for key in keys]
    titles = []
    for own in parts:
        others = [other for other in parts if other is not own]
        length = next((n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)), len(own))
        titles.append(".".join(own[-length:]))
    return titles


def _texts(values: Sequence[Any]) -> list[str]:
    """The values of one key of a matrix as parts of names; those that read alike are numbered by their place."""
    texts = [re.sub(r"[^A-Za-z0-9._-]+", "-", _text(value)).strip("_-.") or "none" for value in values]
    signed = [f"-{text}" if _is_negative(value) else text for text, value in zip(texts, values, strict=True)]
    return [text if signed.count(text) == 1 else f"{text}.{place + 1}" for place, text in enumerate(signed)]


def _is_negative(value: Any) -> bool:
    return isinstance(value, int | float) and value < 0


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value["name"]) if "name" in value else "-".join(map(_text, value.values()))
    if isinstance(value, list):
        return "-".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).replace("+", "")


def _limited(name: str) -> str:
    """A name of at most `LONGEST` characters that begins as a folder's may; a longer one ends with its hash."""
    name = name.lstrip("._-")
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The table of changes of one combination of a matrix; raises UserError where one key is a part of another."""
    changes: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        at = changes
        for part in parents:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise UserError(f"matrix.{quote_key(key)}: another key of the matrix sets {part!r} as a whole")
        if last in at:
            raise UserError(f"matrix.{quote_key(key)}: another key of the matrix sets a part of it")
        at[last] = value
    return changes
