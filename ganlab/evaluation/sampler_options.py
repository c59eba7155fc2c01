"""The options of a sampler, as a user gives them: checked against the names and types of the game's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ganlab.protocols import Sampler
from ganlab.utils.errors import UserError, did_you_mean, quote

WANTED = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}


def sampler_options(sampler: Sampler, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the options of a sampler; returns all of them, the given ones and the defaults.

    Raises UserError for an unknown name, and for a value of another type than the default.
    """
    problems, chosen = [], dict(sampler.options)
    for name, value in given.items():
        if name not in sampler.options:
            known = list(sampler.options)
            listed = f"; its options are: {', '.join(known)}" if known else "; it has none"
            problems.append(f"--option {name}: the sampler has no such option{did_you_mean(name, known) or listed}")
            continue
        kind = type(sampler.options[name])
        if not _fits(value, kind):
            default = sampler.options[name]
            shown = str(default).lower() if kind is bool else str(default)
            problems.append(f"--option {name}={quote(value)}: expected {WANTED[kind]}, such as {shown}")
            continue
        chosen[name] = kind(value)
    if problems:
        raise UserError(*problems)
    return chosen


def _fits(value: Any, kind: type) -> bool:
    """Whether this is a value for a sampler's option of a type: a whole number is one for a float, no bool is."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is kind
