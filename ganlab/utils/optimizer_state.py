"""The state of an optimiser: loading it exactly, with the saved types, and whether a saved one fits the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from ganlab.utils.capturable import expect_eager_steps


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


def load_state_that_fits(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> bool:
    """Loads a saved optimiser's state without its options; returns False, and loads nothing, where it does not fit.

    One fits if it is of as many weights, of these shapes, and has what the optimiser needs. torch compares the number
    of weights alone: a fused step would then write beyond the end of a state of smaller weights.
    """
    if not _fits(optimizer, saved):
        return False
    load_optimizer_state(optimizer, {**saved, "param_groups": optimizer.state_dict()["param_groups"]})
    return True


def _fits(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> bool:
    counts = [len(group["params"]) for group in optimizer.param_groups]
    if counts != [len(group["params"]) for group in saved["param_groups"]]:
        return False
    trial = copy.deepcopy(optimizer)  # what it needs is seen after a step
    expect_eager_steps(trial)
    for weight in (weight for group in trial.param_groups for weight in group["params"]):
        weight.grad = torch.zeros_like(weight)
    trial.step()
    expected = trial.state_dict()["state"]
    return all(_form(values) == _form(expected.get(index, {})) for index, values in saved["state"].items())


def _form(state: dict[str, Any]) -> dict[str, Any]:
    """What is compared of the state of one weight: the shapes of its tensors, and the types of all else."""
    return {name: value.shape if isinstance(value, Tensor) else type(value) for name, value in state.items()}
