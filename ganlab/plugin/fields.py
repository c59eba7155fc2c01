"""attrs fields with a meaning: `component()` and `components()` hold other components, `location()` a path.

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


LOCATION = "ganlab.location"
"""The key in an attrs field's metadata of an option that is a path, where what is read there is bound otherwise."""


def location(default: Any = attrs.NOTHING, validator: Any = None) -> Any:
    """An attrs field for the path of a data set or of weights, as text.

    A run is resumed where the files lie elsewhere: the fingerprint of the images is compared, and scores record a hash
    of the weights.
    """
    return attrs.field(default=default, validator=validator, metadata={LOCATION: True})


NESTED = "ganlab.nested"
"""The key in an attrs field's metadata of a mapping by table, each of whose values is written inside that table.

Its value is the key there, which is also the kind where the values are components.
"""

TABLE = "ganlab.table"
"""The key in an attrs field's metadata of a game's option for the table that it is written in, instead of `[game]`."""


def train_option(default: Any = attrs.NOTHING, validator: Any = None) -> Any:
    """An attrs field for an option of a game that is written in the `[train]` table of the experiment file."""
    return attrs.field(default=default, validator=validator, metadata={TABLE: "train"})


def component(kind: str, default: Any = attrs.NOTHING) -> Any:
    """An attrs field that holds a component of `kind`; in TOML its name, or a table with `name` and its options.

    `default` is a component's name: `features: FeaturesConfig = component("features", default="inception")`.
    """
    return attrs.field(default=default, metadata={COMPONENT: kind})


def components(kind: str) -> Any:
    """An attrs field that holds a tuple of components of `kind`; in TOML a list of tables. Empty by default."""
    return attrs.field(factory=tuple, metadata={COMPONENT: kind})
