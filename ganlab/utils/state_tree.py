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


GATHERED = 2**26
"""How many bytes of a state tree's small tensors are copied to the host at a time."""


def copies_on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies a state tree's tensors, by name, to the CPU: contiguous, each with memory of its own.

    Tensors of a device are gathered there and copied together, since the host waits for each copy.
    """
    copies: dict[str, Tensor] = {}
    groups: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.device.type == "cpu" or tensor.nbytes > GATHERED // 4:
            copies[name] = tensor.cpu().contiguous().clone()
        else:
            groups.setdefault((tensor.device, tensor.dtype), []).append(name)
    for names in groups.values():
        while names:
            some, size = [], 0
            while names and size + tensors[names[0]].nbytes <= GATHERED:
                size += tensors[names[0]].nbytes
                some.append(names.pop(0))
            together = torch.cat([tensors[name].flatten() for name in some]).cpu()
            parts = together.split([tensors[name].numel() for name in some])
            for name, part in zip(some, parts, strict=True):
                copies[name] = part.clone().view(tensors[name].shape)
    return {name: copies[name] for name in tensors}


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
