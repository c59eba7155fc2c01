"""Checks of a value that a component under check returned: finite, a scalar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ganlab.testing.check_result import Fault


def is_finite(value: Any) -> bool:
    """Checks that a returned tensor has no NaN or infinity; a value that is not a tensor of floats has none."""
    return not isinstance(value, Tensor) or not value.is_floating_point() or bool(value.isfinite().all())


def float_tensors(value: Any) -> list[Tensor]:
    """The tensors of floats to check in a returned value: itself, or what a tuple, dict or object of results holds."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple)):
        parts = list(value)
    elif attrs.has(type(value)):
        parts = [getattr(value, f.name) for f in attrs.fields(type(value))]
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    return [tensor for part in parts for tensor in float_tensors(part)]


def tensor_versions(inputs: Mapping[str, Any]) -> dict[str, list[int]]:
    """The versions of each input's tensors, by its name, for the check that none is changed in place."""
    return {
        name: [leaf._version for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        for name, value in inputs.items()
    }


def check_kept(inputs: Mapping[str, Any], before: Mapping[str, list[int]], at: str) -> None:
    """Checks that a call left the tensors of its inputs as they were; raises Fault for one that is changed in place."""
    after = tensor_versions(inputs)
    for name in inputs:
        if after[name] != before[name]:
            raise Fault(f"changes {name} in place", at)


def check_scalar(value: Any, at: str) -> None:
    """Checks that a returned tensor is a scalar of floats; raises Fault for anything else."""
    if not isinstance(value, Tensor):
        raise Fault(f"returns {type(value).__name__}, expected a scalar tensor", at)
    if value.shape != () or not value.is_floating_point():
        raise Fault(
            f"returns {value.dtype} of shape {tuple(value.shape)}, expected a scalar of floats: take the mean", at
        )


def describe_value(value: Any) -> str:
    """Describes a returned tensor in a check's fault: its dtype and shape; of another value the name of its type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
