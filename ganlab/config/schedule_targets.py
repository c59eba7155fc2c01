"""Schedule targets: which options of an experiment a schedule may change, and the tensors that replace them.

A component that derives something from an option when it is created would not see later values. So the option's field
must hold the very tensor that the loop fills, or the schedule is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

from ganlab.config.game_tables import game_fields, network_tables
from ganlab.config.schema import Experiment
from ganlab.plugin.fields import COMPONENT, TABLE
from ganlab.utils.errors import did_you_mean, one_line, quote

LISTED = ("loss_wrapper", "penalty", "augmentation")
"""The kinds whose components run in the train step and are given in lists."""

STEP_COMPONENTS = ("game", "loss", *LISTED)
"""The kinds whose components run in the train step."""

EMA_HALF_LIFE = "train.ema_half_life"


@frozen
class ScheduleTarget:
    """The target of a schedule: an option's key, its path in the `Experiment`, and its value in the experiment file.

    `tables` are those of the networks whose optimisers have the option. `tensor` replaces it in a component of the
    step.
    """

    key: str
    path: tuple[str, ...]
    first: float
    tables: tuple[str, ...] = ()
    tensor: Tensor | None = None


def schedulable_options(experiment: Experiment) -> dict[str, ScheduleTarget]:
    """Returns all possible targets of schedules, by key: the floats of step components, optimisers and EMA."""
    found: list[ScheduleTarget] = []
    game = experiment.game
    for f in game_fields(game):
        kind = f.metadata.get(COMPONENT, "game")
        if kind in STEP_COMPONENTS and TABLE not in f.metadata:
            key = f.alias if COMPONENT in f.metadata else f"game.{f.alias}"
            found += [ScheduleTarget(*option) for option in _numbers(getattr(game, f.name), key, ("game", f.alias))]
    for kind in LISTED:
        found += [ScheduleTarget(*option) for option in _numbers(getattr(experiment, kind), kind, (kind,))]
    tables = tuple(network_tables(game))
    own = experiment.optimizers
    optimizers: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        f"{table}.optimizer": (("optimizers", table) if table in own else ("optimizer",), (table,)) for table in tables
    }
    optimizers |= {f"{name}.optimizer": (("optimizers", name), (name,)) for name in own if name not in tables}
    if not own:
        optimizers = {"optimizer": (("optimizer",), tables), **optimizers}
    for key_prefix, (path, of) in optimizers.items():
        numbers = _numbers(_at(experiment, path), key_prefix, path)
        found += [ScheduleTarget(*option, of) for option in numbers]
    if experiment.train.ema_half_life:
        found.append(ScheduleTarget(EMA_HALF_LIFE, ("train", "ema_half_life"), experiment.train.ema_half_life))
    return {target.key: target for target in found}


def _numbers(part: Any, key: str, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], float]]:
    """Yields key, path and value of each schedule target in a component: floats, in lists and nested ones too."""
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
    """Sets the schedule target at `path`: returns a copy of the experiment or component with another value there."""
    if not path:
        return value
    head, *rest = path
    if isinstance(part, tuple):
        index = int(head)
        return (*part[:index], with_option(part[index], rest, value), *part[index + 1 :])
    if isinstance(part, Mapping):
        return {**part, head: with_option(part[head], rest, value)}
    return attrs.evolve(part, **{head: with_option(_option(part, head), rest, value)})


def _at(part: Any, path: Sequence[str]) -> Any:
    for name in path:
        part = part[int(name)] if isinstance(part, tuple) else _option(part, name)
    return part


def optimizer_option(experiment: Experiment, target: ScheduleTarget) -> tuple[Any, Sequence[str]]:
    """Returns the optimiser of the schedule target of one, and the path of the option in it."""
    length = 2 if target.path[0] == "optimizers" else 1
    return _at(experiment, target.path[:length]), target.path[length:]


def _option(part: Any, alias: str) -> Any:
    if isinstance(part, Mapping):
        return part[alias]
    return getattr(part, next(f.name for f in attrs.fields(type(part)) if f.alias == alias))


def resolve_targets(
    experiment: Experiment, device: torch.device, problems: list[str]
) -> tuple[Experiment, list[ScheduleTarget]]:
    """Resolves the keys of schedules to their targets; returns the experiment with tensors, and the targets.

    Scheduled options of components in the step are replaced by tensors. Wrong keys are added to `problems`.
    """
    known = schedulable_options(experiment)
    targets: list[ScheduleTarget] = []
    scheduled: dict[tuple[str, str], str] = {}
    for index, schedule in enumerate(experiment.schedule):
        at = f"schedule[{index}].key"
        target = known.get(schedule.key)
        if target is None:
            problems.append(f"{at}: {_unknown(schedule.key, known, network_tables(experiment.game))}")
            continue
        option = ".".join(optimizer_option(experiment, target)[1]) if target.tables else ""
        options = [(table, option) for table in target.tables] or [("", target.key)]
        twice = next((scheduled[option] for option in options if option in scheduled), None)
        if twice is not None:
            problems.append(f"{at}: {quote(schedule.key)} is already moved by the schedule of {quote(twice)}")
            continue
        scheduled |= dict.fromkeys(options, schedule.key)
        if target.path[0] in STEP_COMPONENTS:
            tensor = torch.full((), target.first, device=device)
            try:
                experiment = with_option(experiment, target.path, tensor)
                holds_tensor = _at(experiment, target.path) is tensor
            except (TypeError, ValueError) as error:
                problems.append(f"{at}: {quote(schedule.key)} takes no tensor: {one_line(error)}")
                continue
            if not holds_tensor:
                problems.append(f"{at}: {quote(schedule.key)} cannot be moved: its class makes a number of a tensor")
                continue
            target = attrs.evolve(target, tensor=tensor)
        targets.append(target)
    return experiment, targets


def _unknown(key: str, known: Mapping[str, ScheduleTarget], tables: Sequence[str]) -> str:
    if key == EMA_HALF_LIFE:
        return f"{quote(key)}: train.ema_half_life is not set, and is what the schedule begins with"
    common, dot, option = key.partition(".")
    both = [f"{table}.optimizer.{option}" for table in tables]
    if both and common == "optimizer" and dot and all(name in known for name in both):
        named = " or ".join(map(repr, both))
        return (
            f"{quote(key)}: a player has an optimiser of its own; name {named}, or that of another network that has a "
            "table [NETWORK.optimizer]"
        )
    listed = did_you_mean(key, known) or f"; there are: {', '.join(known)}"
    return (
        f"{quote(key)} is not an option that can be moved, a number with a fraction of a term, of an optimiser or of "
        f"the average{listed}"
    )


def ineffective_schedules(experiment: Experiment, targets: Sequence[ScheduleTarget], game: Any) -> list[str]:
    """Returns a line for each schedule target, an option of a loss, whose tensor a loss wrapper has replaced.

    `game` is the experiment's game with its losses in their wrappers.
    """
    keys = [schedule.key for schedule in experiment.schedule]
    lines = []
    for target in targets:
        table = target.path[1] if target.path[0] == "game" and len(target.path) > 2 else ""
        if not table or type(_option(game, table)) is not type(_option(experiment.game, table)):
            continue  # the wrapper's own class may use the loss inside as it likes
        if _at(game, target.path[1:]) is not target.tensor:
            lines.append(
                f"schedule[{keys.index(target.key)}].key: {quote(target.key)} has no effect: a loss_wrapper puts "
                "another value in its place"
            )
    return lines
