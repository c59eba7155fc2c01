"""Compares two states, of tensors in dicts and lists, bit by bit: for the conformance checks that repeat or resume."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def states_equal(one: Any, other: Any) -> bool:
    """Compares two states, of tensors in dicts and lists: whether they are bitwise identical; NaN equals NaN."""
    return first_difference(one, other) is None


def first_difference(one: Any, other: Any, path: str = "") -> str | None:
    """Compares two states: returns the path of the first difference, such as "optimizers.state[0]", or None."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        if equal and one.is_floating_point():
            equal = torch.equal(one.isnan(), other.isnan())
            one, other = one.nan_to_num(), other.nan_to_num()
        return None if equal and torch.equal(one, other) else path or "the whole"
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        entries = [(one[key], other[key], f"{path}.{key}" if path else str(key)) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        entries = [(a, b, f"{path}[{index}]") for index, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if type(one) is type(other) and bool(one == other) else path or "the whole"
    return next((found for a, b, entry in entries if (found := first_difference(a, b, entry)) is not None), None)
