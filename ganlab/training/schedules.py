"""Options that change while a run goes on: what a schedule may move, and filling it before each step.

Decisions:
- A schedule is a function of the step, so no checkpoint holds anything of it.
- An option of a term becomes a 0-dim tensor that is filled before each step: a captured step reads it where it lies.
- Of an optimiser's options the learning rate is such a tensor where the optimiser takes one, as torch's do. Others are
  plain numbers, set between steps, which a captured step would not see: with them steps are eager.
- Which values an option may have its own class says, and it is asked before the run has a folder.
- A component that makes something of an option when it is made would go on with that, so its field must be the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.config.schema import Experiment
from ganlab.protocols import OptimizerConfig, Schedule
from ganlab.training import cuda_graphs
from ganlab.training.ema import EMA, decay_of
from ganlab.training.schedule_targets import HALF_LIFE, Target, with_option
from ganlab.training.update import Player
from ganlab.utils.errors import UserError, one_line, quote
from ganlab.utils.interval import Interval

LOOKED_AT = 1000
"""Steps of a run at which a schedule's values are looked at beforehand, the first and the last among them."""


@frozen
class Moving:
    """One option that changes. `value(step, total)` is what it has in a step of a run of `total`, `put` sets it."""

    key: str
    value: Callable[[int, int], float]
    put: Callable[[float], None]


@frozen
class Schedules:
    """All options that change in a run of `total` steps. `unfit` says why its steps cannot be captured, if so."""

    moving: tuple[Moving, ...] = ()
    total: int = 0
    unfit: str | None = None

    def fill(self, step: int) -> None:
        """Gives every option what it has in the step."""
        for moved in self.moving:
            moved.put(moved.value(step, self.total))

    def values(self, step: int) -> dict[str, float]:
        """What each option has in the step, by its key."""
        return {moved.key: moved.value(step, self.total) for moved in self.moving}

    def bent(self, total: int, until: int) -> list[str]:
        """The keys whose values before step `until` would be others in a run of `total` steps."""
        return [
            moved.key
            for moved in self.moving
            if any(moved.value(step, self.total) != moved.value(step, total) for step in _some_of(until))
        ]


# ---------------------------------------------------------------------------------------------------------------------
# What may be moved
# ---------------------------------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------------------------------
# What moves them
# ---------------------------------------------------------------------------------------------------------------------


def scheduled(
    experiment: Experiment,
    targets: Sequence[Target],
    players: Mapping[str, Player],
    average: EMA | None,
    images_a_step: int,
    total: int,
    steps_per_epoch: float,
    device: torch.device,
) -> Schedules:
    """What moves the targets of an experiment's schedules. Raises UserError with a line for each that cannot be."""
    problems: list[str] = []
    moving: list[Moving] = []
    numbers: list[str] = []
    half_life = _still(experiment.train.ema_half_life)
    for index, (schedule, target) in enumerate(zip(experiment.schedule, targets, strict=True)):
        at = f"schedule[{index}]"
        try:
            value = _course(_in_steps(schedule, steps_per_epoch), target.first)
        except (TypeError, ValueError) as error:
            problems.append(f"{at}: {one_line(error)}")
            continue
        if refusal := _out_of_range(experiment, target, value, total):
            problems.append(f"{at}: {refusal}")
        elif target.key == HALF_LIFE:
            half_life = value
        elif target.tensor is not None:
            moving.append(Moving(target.key, value, _filling(target.tensor)))
        else:
            optimizers = [players[name].optimizer for name in target.players]
            name = target.path[1]
            place = int(target.path[2]) if len(target.path) > 2 else None
            if not all(_has(optimizer, name, place, target.first) for optimizer in optimizers):
                problems.append(
                    f"{at}.key: {quote(target.key)} cannot be moved: what the optimiser builds has no {name!r} "
                    f"of {target.first:g} in its param_groups"
                )
                continue
            config: OptimizerConfig = getattr(experiment, target.path[0])
            tensor = _rate(device) if name == "lr" and _takes_tensor(config, device) else None
            if tensor is None:
                numbers.append(target.key)
            moving.append(Moving(target.key, value, _setting(optimizers, name, place, tensor)))
    if problems:
        raise UserError(*problems)
    if average is not None and average.moves:
        warmed = _warmed(half_life, experiment.train.ema_warmup, images_a_step)
        moving.append(Moving(HALF_LIFE, warmed, lambda value: average.fill(decay_of(value, images_a_step))))
    unfit = f"{', '.join(numbers)}: moved by a schedule, and the optimiser takes no tensor for it" if numbers else None
    return Schedules(tuple(moving), total, unfit)


def _still(value: float) -> Callable[[int, int], float]:
    return lambda step, total: value


def _course(schedule: Schedule, first: float) -> Callable[[int, int], float]:
    return lambda step, total: float(schedule.value(first, step, total))


def _warmed(half_life: Callable[[int, int], float], share: float, images: int) -> Callable[[int, int], float]:
    """The half-life, at most that share of the images that were seen before the step, where there is a share."""
    return lambda step, total: min(half_life(step, total), share * step * images if share else math.inf)


def _in_steps(schedule: Schedule, steps_per_epoch: float) -> Schedule:
    """The schedule with its intervals in steps."""
    given: Any = schedule
    intervals = {f.alias: getattr(given, f.name) for f in attrs.fields(type(given)) if f.init}
    counts = {
        name: Interval(value.in_steps(steps_per_epoch))
        for name, value in intervals.items()
        if isinstance(value, Interval)
    }
    return attrs.evolve(given, **counts)  # type: ignore[no-any-return]


def _some_of(steps: int) -> list[int]:
    """Some of that many steps, evenly spread, with the first and the last."""
    count = min(steps, LOOKED_AT)
    return [number * (steps - 1) // max(1, count - 1) for number in range(count)]


def _out_of_range(experiment: Experiment, target: Target, value: Callable[[int, int], float], total: int) -> str | None:
    """Why the option cannot have all the values that it would get, in words."""
    at = {value(step, total): step for step in reversed(_some_of(total))}
    for found in [number for number in at if not math.isfinite(number)] or [min(at), max(at)]:
        said = f"{target.key} would be {found:g} in step {at[found] + 1:,}"
        if not math.isfinite(found):
            return f"{said}; expected a finite number"
        try:
            with_option(experiment, target.path, found)
        except (TypeError, ValueError) as error:
            return f"{said}: {one_line(error.args[0])}"
    return None


def _filling(tensor: Tensor) -> Callable[[float], None]:
    def put(value: float) -> None:
        tensor.fill_(value)

    return put


def _setting(
    optimizers: Sequence[torch.optim.Optimizer], name: str, place: int | None, tensor: Tensor | None
) -> Callable[[float], None]:
    def put(value: float) -> None:
        if tensor is not None:
            tensor.fill_(value)
        # Each time: loading a state makes these groups anew.
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            if place is None:
                group[name] = value if tensor is None else tensor
            else:
                group[name] = (*group[name][:place], value, *group[name][place + 1 :])

    return put


def _has(optimizer: torch.optim.Optimizer, name: str, place: int | None, value: float) -> bool:
    """Whether every group of an optimiser's parameters has the option, with the value of the experiment."""
    for group in optimizer.param_groups:
        found = group.get(name)
        if place is not None:
            found = found[place] if isinstance(found, tuple | list) and place < len(found) else None
        if found != value:
            return False
    return True


def _rate(device: torch.device) -> Tensor:
    """What holds a learning rate: torch's fused optimisers read a float32 on CUDA, and any number on the CPU."""
    return torch.zeros((), dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)


def _takes_tensor(config: OptimizerConfig, device: torch.device) -> bool:
    """Whether the optimiser takes a tensor as its learning rate: an update with one is that of the number in it."""
    after = []
    for lr in (_rate(device).fill_(0.5), 0.5):
        weight = nn.Parameter(torch.ones(2, device=device))
        optimizer = config.build([weight])
        if device.type == "cuda":
            cuda_graphs.make_capturable(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = lr
        weight.grad = torch.ones_like(weight)
        try:
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):
            return False
        after.append(weight.detach())
    return torch.allclose(after[0], after[1])
