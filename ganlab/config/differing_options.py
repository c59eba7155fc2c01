"""The options in which two experiments differ: runs of one variant may differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganlab.config.schema import NO_RESULTS


def differing_options(one: Any, other: Any, at: str = "") -> list[str]:
    """Returns the differences between two experiments: paths of options, without seeds and what changes no result."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        paths = {key: f"{at}.{key}" if at else key for key in {**one, **other}}
        compared = {key: path for key, path in paths.items() if path not in ("seed", *NO_RESULTS)}
        return [d for key, path in compared.items() for d in differing_options(one.get(key), other.get(key), path)]
    return [] if one == other else [at]
