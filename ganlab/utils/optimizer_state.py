"""Loading the state of an optimiser exactly: with the types that it was saved with, in the weights' memory format."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Loads what an optimiser's `state_dict` returned; its step counters stay on the device where torch wants them.

    torch casts a state to the type of the weights: means in float64, or counts, would not be what they were. A fused
    optimiser needs a state in the memory format of the weights, which may be channels last.
    """
    optimizer.load_state_dict(saved)
    for index, weight in enumerate(weight for group in optimizer.param_groups for weight in group["params"]):
        held: dict[str, Any] = optimizer.state.get(weight, {})
        for name, value in saved.get("state", {}).get(index, {}).items():
            if isinstance(value, Tensor) and isinstance(held.get(name), Tensor):
                like = weight if value.shape == weight.shape else held[name]
                held[name] = torch.empty_like(like, dtype=value.dtype, device=held[name].device).copy_(value)
