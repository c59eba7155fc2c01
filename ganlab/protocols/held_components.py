"""The components that another one holds: losses, penalties and augmentations inside others, as wrappers have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from ganlab.protocols.augmentation import Augmentation
from ganlab.protocols.loss import Loss
from ganlab.protocols.penalty import Penalty


def components_within(component: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields a component by its name, and the losses, penalties and augmentations that it holds in its attributes.

    Their names are paths: "loss.inner", and "loss.terms.0" in a list.
    """
    yield name, component
    kind: Any = type(component)
    slots = [f.name for f in attrs.fields(kind)] if attrs.has(kind) else []
    held = {attribute: getattr(component, attribute) for attribute in slots} or getattr(component, "__dict__", {})
    for attribute, value in held.items():
        items = enumerate(value) if isinstance(value, (list, tuple)) else [(None, value)]
        for index, item in items:
            if isinstance(item, (Loss, Penalty, Augmentation)) and not isinstance(item, type):
                path = f"{name}.{attribute}"
                yield from components_within(item, path if index is None else f"{path}.{index}")
