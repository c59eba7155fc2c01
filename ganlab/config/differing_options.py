"""The options in which two experiments differ: runs of one variant may differ in their seed alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ganlab.config.schema import NO_RESULTS
from ganlab.utils.hashing import sha256

UNCOMPARED = ("seed", *NO_RESULTS)
"""The options in which runs of one variant may differ."""


def differing_options(one: Any, other: Any, at: str = "") -> list[str]:
    """Returns the differences between two experiments: paths of options, without seeds and what changes no result.

    Of plugin files only the names count, since a project may have been moved; a comparison sees their contents by hash.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        paths = {key: f"{at}.{key}" if at else key for key in {**one, **other}}
        compared = {key: path for key, path in paths.items() if path not in UNCOMPARED}
        return [d for key, path in compared.items() for d in differing_options(one.get(key), other.get(key), path)]
    return [] if _compared(one, at) == _compared(other, at) else [at]


def compared_options_sha256(experiment: Mapping[str, Any]) -> str:
    """Returns a hash that two experiments share if, and only if, `differing_options` finds none between them."""
    return sha256(json.dumps(_compared(experiment, ""), sort_keys=True, default=str).encode())


def _compared(value: Any, at: str) -> Any:
    """A value of an experiment without the options in which runs of one variant may differ, and folders of plugins."""
    if at == "plugins" and isinstance(value, list):
        return sorted(os.path.basename(str(file)) for file in value)
    if not isinstance(value, Mapping):
        return value
    paths = {key: f"{at}.{key}" if at else key for key in value}
    return {key: _compared(value[key], path) for key, path in paths.items() if path not in UNCOMPARED}
