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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab import levers
from ganlab.errors import UserError, did_you_mean, one_line, shown
from ganlab.options import COMPONENT, Interval
from ganlab.phases import Average, decay_of
from ganlab.protocols import Loss, OptimizerConfig, Schedule
from ganlab.schema import NESTED, Experiment
from ganlab.updating import Player

TERMS = ("loss", "loss_wrapper", "penalty", "augmentation")
HALF_LIFE = "train.ema_half_life"

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


@frozen
class Target:
    """An option that a schedule names: its key, where it is in an Experiment, its value there.

    `players` are those whose optimisers have it; `tensor` is what stands for it in the step, where that is made.
    """

    key: str
    path: tuple[str, ...]
    first: float
    players: tuple[str, ...] = ()
    tensor: Tensor | None = None


# ---------------------------------------------------------------------------------------------------------------------
# What may be moved
# ---------------------------------------------------------------------------------------------------------------------


def movable(experiment: Experiment) -> dict[str, Target]:
    """Every option that a schedule may move, by its key: a number with a fraction of what is in the step."""
    found: list[Target] = []
    for kind in TERMS:
        found += [Target(key, path, first) for key, path, first in _numbers(getattr(experiment, kind), kind, (kind,))]
    own = {player: field for field, (player, _) in NESTED.items() if getattr(experiment, field) is not None}
    players = tuple(player for player, _ in NESTED.values())
    places: dict[str, tuple[str, tuple[str, ...]]] = {
        f"{player}.optimizer": (own.get(player, "optimizer"), (player,)) for player in players
    }
    if not own:
        places = {"optimizer": ("optimizer", players), **places}
    for at, (field, of) in places.items():
        found += [
            Target(key, path, first, of) for key, path, first in _numbers(getattr(experiment, field), at, (field,))
        ]
    if experiment.train.ema_half_life:
        found.append(Target(HALF_LIFE, ("train", "ema_half_life"), experiment.train.ema_half_life))
    return {target.key: target for target in found}


def _numbers(part: Any, key: str, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """The numbers with a fraction of a component, of a list, and of the components inside."""
    if isinstance(part, float):
        yield key, path, part
    elif isinstance(part, tuple):
        for index, item in enumerate(part):
            yield from _numbers(item, f"{key}.{index}", (*path, str(index)))
    elif attrs.has(type(part)):
        for f in attrs.fields(type(part)):
            value = getattr(part, f.name)
            if f.init and (isinstance(value, float | tuple) or COMPONENT in f.metadata):
                yield from _numbers(value, f"{key}.{f.alias}", (*path, f.alias))


def with_option(part: Any, path: Sequence[str], value: Any) -> Any:
    """A copy in which the option under a path has another value."""
    if not path:
        return value
    head, *rest = path
    if isinstance(part, tuple):
        place = int(head)
        return (*part[:place], with_option(part[place], rest, value), *part[place + 1 :])
    return attrs.evolve(part, **{head: with_option(_option(part, head), rest, value)})


def _at(part: Any, path: Sequence[str]) -> Any:
    for name in path:
        part = part[int(name)] if isinstance(part, tuple) else _option(part, name)
    return part


def _option(part: Any, alias: str) -> Any:
    return getattr(part, next(f.name for f in attrs.fields(type(part)) if f.alias == alias))


def placed(experiment: Experiment, device: torch.device, problems: list[str]) -> tuple[Experiment, list[Target]]:
    """The experiment with tensors for the terms' options that are moved, and what each schedule moves.

    What is wrong with the schedules' keys is added to `problems`.
    """
    known = movable(experiment)
    targets: list[Target] = []
    moved: dict[tuple[str, str], str] = {}
    for index, schedule in enumerate(experiment.schedule):
        at = f"schedule[{index}].key"
        target = known.get(schedule.key)
        if target is None:
            problems.append(f"{at}: {_unknown(schedule.key, known)}")
            continue
        places = [(player, ".".join(target.path[1:])) for player in target.players] or [("", target.key)]
        twice = next((moved[place] for place in places if place in moved), None)
        if twice is not None:
            problems.append(f"{at}: {shown(schedule.key)} is already moved by the schedule of {shown(twice)}")
            continue
        moved |= dict.fromkeys(places, schedule.key)
        if target.path[0] in TERMS:
            tensor = torch.full((), target.first, device=device)
            try:
                experiment = with_option(experiment, target.path, tensor)
                kept = _at(experiment, target.path) is tensor
            except (TypeError, ValueError) as error:
                problems.append(f"{at}: {shown(schedule.key)} takes no tensor: {one_line(error)}")
                continue
            if not kept:
                problems.append(f"{at}: {shown(schedule.key)} cannot be moved: its class makes a number of a tensor")
                continue
            target = attrs.evolve(target, tensor=tensor)
        targets.append(target)
    return experiment, targets


def _unknown(key: str, known: Mapping[str, Target]) -> str:
    if key == HALF_LIFE:
        return f"{shown(key)}: train.ema_half_life is not set, and is what the schedule begins with"
    common, dot, option = key.partition(".")
    both = [f"{player}.optimizer.{option}" for player, _ in NESTED.values()]
    if common == "optimizer" and dot and all(name in known for name in both):
        return f"{shown(key)}: a player has an optimiser of its own; name {' or '.join(map(repr, both))}"
    listed = did_you_mean(key, known) or f"; there are: {', '.join(known)}"
    return (
        f"{shown(key)} is no option that can be moved, a number with a fraction of a term, of an optimiser or of the "
        f"average{listed}"
    )


def without_effect(experiment: Experiment, targets: Sequence[Target], loss: Loss) -> list[str]:
    """A line for each schedule of an option of the experiment's loss that a wrapper has put another value for."""
    if type(loss) is not type(experiment.loss):  # what it makes of the loss inside is its own affair
        return []
    keys = [schedule.key for schedule in experiment.schedule]
    return [
        f"schedule[{keys.index(target.key)}].key: {shown(target.key)} has no effect: a loss_wrapper puts another value "
        "in its place"
        for target in targets
        if target.path[0] == "loss" and _at(loss, target.path[1:]) is not target.tensor
    ]


# ---------------------------------------------------------------------------------------------------------------------
# What moves them
# ---------------------------------------------------------------------------------------------------------------------


def scheduled(
    experiment: Experiment,
    targets: Sequence[Target],
    players: Mapping[str, Player],
    average: Average | None,
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
                    f"{at}.key: {shown(target.key)} cannot be moved: what the optimiser builds has no {name!r} "
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
            levers.make_capturable(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = lr
        weight.grad = torch.ones_like(weight)
        try:
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):
            return False
        after.append(weight.detach())
    return torch.allclose(after[0], after[1])
