"""attrs fields that hold other components: `component()` for one and `components()` for a list.

All other options are ordinary fields of an `attrs.frozen` class: with a type, with `attrs.validators` for the range of
numbers, and with `typing.Literal` for a choice.
"""

from __future__ import annotations

from typing import Any

import attrs

COMPONENT = "ganlab.component"
"""The key in an attrs field's metadata for the kind of component that the field holds."""

DEFAULT = "ganlab.default"
"""The key in an attrs field's metadata for a description of a default that is not a plain value."""


def component(kind: str, default: Any = attrs.NOTHING) -> Any:
    """An attrs field that holds a component of `kind`; in TOML its name, or a table with `name` and its options.

    `default` is a component's name: `features: FeaturesConfig = component("features", default="inception")`.
    """
    return attrs.field(default=default, metadata={COMPONENT: kind})


def components(kind: str) -> Any:
    """An attrs field that holds a tuple of components of `kind`; in TOML a list of tables. Empty by default."""
    return attrs.field(factory=tuple, metadata={COMPONENT: kind})
