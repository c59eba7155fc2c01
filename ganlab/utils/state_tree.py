"""Nested states (dicts, lists and tuples of tensors): iteration with paths, and the search for NaN and infinity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def find_non_finite(state: Any, at: str = "") -> str | None:
    """Searches a state tree: returns the path of its first tensor with NaN or infinity, as "part.name", or None."""
    found = [(path, tensor.detach()) for path, tensor in tensors_with_paths(state, at) if tensor.is_floating_point()]
    suspects: set[int] = set()
    for device in {tensor.device for _, tensor in found}:
        indices = [index for index, (_, tensor) in enumerate(found) if tensor.device == device]
        # A value that is not finite makes the sum so, and sums are fast. The host waits once a device, not a tensor.
        sums = torch.stack([found[index][1].sum(dtype=torch.float32) for index in indices])
        suspects |= {index for index, finite in zip(indices, sums.isfinite().tolist(), strict=True) if not finite}
    # A sum of finite values may overflow.
    return next((found[index][0] for index in sorted(suspects) if not found[index][1].isfinite().all()), None)


def tensors_with_paths(state: Any, at: str) -> Iterator[tuple[str, Tensor]]:
    """Walks a state tree: yields every tensor of the nested state with its path."""
    if isinstance(state, Tensor):
        yield at, state
    elif isinstance(state, Mapping):
        for key, item in state.items():
            yield from tensors_with_paths(item, f"{at}.{key}" if at else str(key))
    elif isinstance(state, (list, tuple)):
        for index, item in enumerate(state):
            yield from tensors_with_paths(item, f"{at}.{index}" if at else str(index))
