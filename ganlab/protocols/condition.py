"""The condition of data: None, one tensor, or several by name, and what is done with each of them.

One is class labels int64 (N,), images uint8 or uint16 (N, C, H, W), or attributes float32 (N, K, …). In the step images
are float32 in [-1, 1], and attributes are as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Condition: TypeAlias = "Tensor | Mapping[str, Tensor] | None"


def map_condition(change: Callable[..., Tensor], condition: Any, *others: Any) -> Any:
    """Returns a condition of which each tensor is changed, with its name; None for none.

    `change` is called with a tensor of `condition`, and with that of each of `others`, which have the same names.
    """
    if condition is None:
        return None
    if isinstance(condition, Mapping):
        return {name: change(part, *(other[name] for other in others)) for name, part in condition.items()}
    return change(condition, *others)


def named_conditions(condition: Condition, single: str = "condition") -> dict[str, Tensor]:
    """Returns the tensors of a condition by name: `single` where there is one, "single.NAME" of several."""
    if condition is None:
        return {}
    if isinstance(condition, Mapping):
        return {f"{single}.{name}": part for name, part in condition.items()}
    return {single: condition}


def labels_in(condition: Condition) -> Tensor | None:
    """Returns the class labels (N,) of a condition: it, or the only labels of several; None without any."""
    found = [part for part in named_conditions(condition).values() if part.ndim == 1]
    return found[0] if len(found) == 1 else None


def condition_count(condition: Condition) -> int:
    """Returns how many entries a condition has; 0 for none."""
    return next((len(part) for part in named_conditions(condition).values()), 0)
