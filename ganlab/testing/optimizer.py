"""ganlab.testing.optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ganlab.testing.inspection import (
    Fault,
    Inspection,
    difference,
    draws,
    finite,
    noise,
)
from ganlab.testing.scheduled_options import look_at_options
from ganlab.testing.tiny_training import TinyGame, look_at_game
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.utils.rng import seed_everything


def check_optimizer(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    built = look(
        "builds: an optimiser of torch, from an iterator, and draws nothing at random", lambda: _builds(inspection)
    )
    lowers = look("steps: 100 of them lower a quadratic, and all stays finite", lambda: _lowers(inspection), built)
    state = look("state: another one takes its state and goes on to the bit", lambda: _state(inspection), lowers)
    look_at_options(inspection, game, look_at_game(inspection, game, lowers, state))


def _quadratic(inspection: Inspection) -> tuple[nn.Linear, torch.optim.Optimizer]:
    seed_everything(0)
    network = nn.Linear(5, 3)
    return network, inspection.fresh().build(network.parameters())


def _take(network: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    values = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        value = network(noise(16, 5, seed=1)).square().mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def _builds(inspection: Inspection) -> None:
    at = inspection.line_of("build")
    weights = [nn.Parameter(noise(3))]
    made: list[Any] = []
    whose = draws(lambda: made.append(inspection.fresh().build(iter(weights))))
    if not isinstance(made[0], torch.optim.Optimizer):
        raise Fault(f"build gives {type(made[0]).__name__}, wanted a torch.optim.Optimizer", at)
    if not any(weights[0] is weight for group in made[0].param_groups for weight in group["params"]):
        raise Fault("the optimiser does not have the parameter that build was given", at)
    if whose:
        raise Fault(f"build draws {whose} global random numbers", at)


def _lowers(inspection: Inspection) -> str:
    network, optimizer = _quadratic(inspection)
    values = _take(network, optimizer, 100)
    at = inspection.line_of("step", optimizer)
    if not all(map(finite, network.parameters())):
        raise Fault("weights are not finite after 100 steps on a quadratic", at)
    if not values[-1] < values[0]:
        raise Fault(f"100 steps took a quadratic from {values[0]:.4g} to {values[-1]:.4g}", at)
    return f"from {values[0]:.4g} to {values[-1]:.4g}"


def _state(inspection: Inspection) -> None:
    one, optimizer = _quadratic(inspection)
    _take(one, optimizer, 5)
    other, resumed = _quadratic(inspection)
    other.load_state_dict(one.state_dict())
    resumed.load_state_dict(from_bytes(to_bytes(optimizer.state_dict())))
    for network, with_ in ((one, optimizer), (other, resumed)):
        _take(network, with_, 5)
    if difference(dict(one.state_dict()), dict(other.state_dict())) is not None:
        at = inspection.line_of("step", optimizer)
        raise Fault(
            "with the state_dict of another it does not go on as that one does: it keeps more than its state", at
        )
