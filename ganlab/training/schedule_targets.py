"""ganlab.training.schedule_targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

from ganlab.config.schema import NESTED, Experiment
from ganlab.plugin.fields import COMPONENT
from ganlab.protocols import Loss
from ganlab.utils.errors import did_you_mean, one_line, quote

TERMS = ("loss", "loss_wrapper", "penalty", "augmentation")


HALF_LIFE = "train.ema_half_life"


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
            problems.append(f"{at}: {quote(schedule.key)} is already moved by the schedule of {quote(twice)}")
            continue
        moved |= dict.fromkeys(places, schedule.key)
        if target.path[0] in TERMS:
            tensor = torch.full((), target.first, device=device)
            try:
                experiment = with_option(experiment, target.path, tensor)
                kept = _at(experiment, target.path) is tensor
            except (TypeError, ValueError) as error:
                problems.append(f"{at}: {quote(schedule.key)} takes no tensor: {one_line(error)}")
                continue
            if not kept:
                problems.append(f"{at}: {quote(schedule.key)} cannot be moved: its class makes a number of a tensor")
                continue
            target = attrs.evolve(target, tensor=tensor)
        targets.append(target)
    return experiment, targets


def _unknown(key: str, known: Mapping[str, Target]) -> str:
    if key == HALF_LIFE:
        return f"{quote(key)}: train.ema_half_life is not set, and is what the schedule begins with"
    common, dot, option = key.partition(".")
    both = [f"{player}.optimizer.{option}" for player, _ in NESTED.values()]
    if common == "optimizer" and dot and all(name in known for name in both):
        return f"{quote(key)}: a player has an optimiser of its own; name {' or '.join(map(repr, both))}"
    listed = did_you_mean(key, known) or f"; there are: {', '.join(known)}"
    return (
        f"{quote(key)} is no option that can be moved, a number with a fraction of a term, of an optimiser or of the "
        f"average{listed}"
    )


def without_effect(experiment: Experiment, targets: Sequence[Target], loss: Loss) -> list[str]:
    """A line for each schedule of an option of the experiment's loss that a wrapper has put another value for."""
    if type(loss) is not type(experiment.loss):  # what it makes of the loss inside is its own affair
        return []
    keys = [schedule.key for schedule in experiment.schedule]
    return [
        f"schedule[{keys.index(target.key)}].key: {quote(target.key)} has no effect: a loss_wrapper puts another value "
        "in its place"
        for target in targets
        if target.path[0] == "loss" and _at(loss, target.path[1:]) is not target.tensor
    ]
