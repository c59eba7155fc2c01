"""What a component's fields can be besides plain values: an interval, and another component.

An option is a field of an `attrs.frozen` class, with a type; numbers take `attrs.validators` for their range and
`typing.Literal` names a choice. Two things that plain types cannot say are here.
"""

from __future__ import annotations

from typing import Any

import attrs

COMPONENT = "ganlab.component"
"""The key in a field's metadata that names the kind of component the field takes."""

DEFAULT = "ganlab.default"
"""The key in a field's metadata that says what holds where the file is silent, where that is no plain value."""


def component(kind: str, default: Any = attrs.NOTHING) -> Any:
    """A field that holds a component of `kind`, given in TOML by its name or by a table with `name` and its options.

    `default` is a name, such as `features: FeaturesConfig = component("features", default="inception")`.
    """
    return attrs.field(default=default, metadata={COMPONENT: kind})


def components(kind: str) -> Any:
    """A field that holds a tuple of components of `kind`, given in TOML by a list of tables; empty by default."""
    return attrs.field(factory=tuple, metadata={COMPONENT: kind})
