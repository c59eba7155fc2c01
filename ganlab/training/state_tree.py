"""ganlab.training.state_tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def not_finite(state: Any, at: str = "") -> str | None:
    """Where in a state the first tensor with NaN or infinity is, as "part.name"; None where all are finite."""
    found = [(place, tensor.detach()) for place, tensor in _tensors(state, at) if tensor.is_floating_point()]
    suspects: set[int] = set()
    for device in {tensor.device for _, tensor in found}:
        here = [number for number, (_, tensor) in enumerate(found) if tensor.device == device]
        # What is not finite makes a sum so, and sums are quick. The host waits once a device, not once a tensor.
        sums = torch.stack([found[number][1].sum(dtype=torch.float32) for number in here])
        suspects |= {number for number, sound in zip(here, sums.isfinite().tolist(), strict=True) if not sound}
    # A sum may overflow where its terms do not.
    return next((found[number][0] for number in sorted(suspects) if not found[number][1].isfinite().all()), None)


def _tensors(state: Any, at: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a state with the path it is found at."""
    if isinstance(state, Tensor):
        yield at, state
    elif isinstance(state, Mapping):
        for key, item in state.items():
            yield from _tensors(item, f"{at}.{key}" if at else str(key))
    elif isinstance(state, (list, tuple)):
        for index, item in enumerate(state):
            yield from _tensors(item, f"{at}.{index}" if at else str(index))
