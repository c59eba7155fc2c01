"""The conformance checks of an optimiser: it is one of torch's, lowers a quadratic, and its state continues bitwise."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ganlab.protocols import build_optimizer, parameters_of
from ganlab.testing.check_result import Fault
from ganlab.testing.fixed_inputs import fixed_noise
from ganlab.testing.global_randomness import global_generators_used
from ganlab.testing.inspection import Inspection
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.state_comparison import first_difference
from ganlab.testing.tensor_checks import is_finite
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.utils.optimizer_state import load_optimizer_state
from ganlab.utils.rng import seed_everything


def check_optimizer(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of an optimiser."""
    run_check = inspection.run_check
    built = run_check(
        "builds: a torch optimiser, from an iterator, without drawing random numbers", lambda: _check_builds(inspection)
    )
    lowers = run_check(
        "steps: 100 steps lower a quadratic, and its weights stay finite", lambda: _check_lowers(inspection), built
    )
    state = run_check(
        "state: another optimiser with its state continues bitwise identically",
        lambda: _check_state(inspection),
        lowers,
    )
    check_scheduled_options(inspection, tiny, run_training_checks(inspection, tiny, lowers, state))


def _quadratic(inspection: Inspection) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A linear layer, and the optimiser under check that is to lower its mean squared output."""
    seed_everything(0)
    network = nn.Linear(5, 3)
    return network, build_optimizer(inspection.fresh(), parameters_of("network", network))


def _take_steps(network: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Takes steps of the optimiser under check on the quadratic; returns its values."""
    values = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        value = network(fixed_noise(16, 5, seed=1)).square().mean()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def _check_builds(inspection: Inspection) -> None:
    """Checks that an optimiser is built from an iterator of parameters, and draws no random numbers."""
    at = inspection.line_of("build")
    given = {f"network.{name}": nn.Parameter(fixed_noise(3)) for name in ("weight", "bias")}
    built: list[Any] = []
    whose = global_generators_used(lambda: built.append(build_optimizer(inspection.fresh(), iter(given.items()))))
    if not isinstance(built[0], torch.optim.Optimizer):
        raise Fault(f"build returns {type(built[0]).__name__}, expected a torch.optim.Optimizer", at)
    held = {id(one) for group in built[0].param_groups for one in group["params"]}
    if lacking := [name for name, weight in given.items() if id(weight) not in held]:
        raise Fault(f"the optimiser does not hold the parameter {lacking[0]!r} that build was called with", at)
    if whose:
        raise Fault(f"build draws {whose} global random numbers", at)


def _check_lowers(inspection: Inspection) -> str:
    """Checks that 100 steps of an optimiser lower a quadratic, and that its weights stay finite."""
    network, optimizer = _quadratic(inspection)
    first = copy.deepcopy(dict(network.state_dict()))
    values = _take_steps(network, optimizer, 100)
    at = inspection.line_of("step", optimizer)
    if not all(map(is_finite, network.parameters())):
        raise Fault("weights are not finite after 100 steps on a quadratic", at)
    if not values[-1] < values[0]:
        raise Fault(f"100 steps took a quadratic from {values[0]:.4g} to {values[-1]:.4g}", at)
    for name, value in network.state_dict().items():
        if torch.equal(value, first[name]):
            raise Fault(f"100 steps leave one of its parameters as it was, the {name} of a linear layer", at)
    return f"from {values[0]:.4g} to {values[-1]:.4g}"


def _check_state(inspection: Inspection) -> None:
    """Checks that an optimiser that loads another's state_dict() continues bitwise as that one does."""
    one, optimizer = _quadratic(inspection)
    _take_steps(one, optimizer, 5)
    other, resumed = _quadratic(inspection)
    other.load_state_dict(one.state_dict())
    load_optimizer_state(resumed, from_bytes(to_bytes(optimizer.state_dict())))
    for network, its_optimizer in ((one, optimizer), (other, resumed)):
        seed_everything(1)  # whatever either draws is the same
        _take_steps(network, its_optimizer, 5)
    if first_difference(dict(one.state_dict()), dict(other.state_dict())) is not None:
        at = inspection.line_of("step", optimizer)
        raise Fault(
            "with the state_dict of another it does not continue as that one does: it keeps more than its state", at
        )
