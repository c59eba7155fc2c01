"""Schedules in a training: the scheduled options (`[[schedule]]`), whose values are set before each step.

Decisions:
- A schedule is a function of the step, so a checkpoint holds nothing of it.
- An option of a component in the step is a 0-dim tensor that is filled before each step; a captured step reads it.
- An optimiser's learning rate is such a tensor where the optimiser accepts one, as torch's do. Its other options are
  plain numbers that are set between steps; a captured step would not see them, so steps are eager with them.
- Before the run folder exists, the least and the greatest of a schedule's values, of a thousand steps all over the run,
  are validated by the option's own class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

from ganlab.config.schedule_targets import EMA_HALF_LIFE, ScheduleTarget, optimizer_option, with_option
from ganlab.config.schema import Experiment
from ganlab.protocols import Schedule
from ganlab.training.ema import EMA, ema_decay
from ganlab.training.optimizer_options import accepts_tensor, find_in_groups, learning_rate_tensor, option_setter
from ganlab.training.update import Player
from ganlab.utils.errors import UserError, one_line, quote
from ganlab.utils.interval import Interval

CHECKED_STEPS = 1000
"""At how many steps of a run a schedule's values are validated beforehand, the first and the last among them."""


@frozen
class ScheduledOption:
    """One of a run's schedules: `value(step, total)` is its option's value in a step of `total`, and `set` sets it."""

    key: str
    value: Callable[[int, int], float]
    set: Callable[[float], None]


@frozen
class Schedules:
    """All schedules of a run of `total` steps. `eager_reason` says why they prevent a capture, if they do."""

    options: tuple[ScheduledOption, ...] = ()
    total: int = 0
    eager_reason: str | None = None

    def fill(self, step: int) -> None:
        """Applies the schedules: sets every scheduled option to its value in the step."""
        for option in self.options:
            option.set(option.value(step, self.total))

    def values(self, step: int) -> dict[str, float]:
        """Returns the schedules' values in the step, each by the key of its option."""
        return {option.key: option.value(step, self.total) for option in self.options}

    def keys_changed_by_total(self, total: int, until: int) -> list[str]:
        """Returns the keys of the schedules whose values before step `until` change in a run of `total` steps."""
        return [
            option.key
            for option in self.options
            if any(option.value(step, self.total) != option.value(step, total) for step in _spread_steps(until))
        ]


def build_schedules(
    experiment: Experiment,
    targets: Sequence[ScheduleTarget],
    players: Mapping[str, Player],
    ema: EMA | None,
    images_per_step: int,
    total: int,
    steps_per_epoch: float,
    device: torch.device,
) -> Schedules:
    """Builds a training's schedules. Raises UserError with a line for each option that cannot be scheduled."""
    problems: list[str] = []
    options: list[ScheduledOption] = []
    plain_numbers: list[str] = []
    half_life = _constant(experiment.train.ema_half_life)
    for index, (schedule, target) in enumerate(zip(experiment.schedule, targets, strict=True)):
        at = f"schedule[{index}]"
        try:
            value = _values(in_steps(schedule, steps_per_epoch), target.first)
        except (TypeError, ValueError) as error:
            problems.append(f"{at}: {one_line(error)}")
            continue
        if refusal := _out_of_range(experiment, target, value, total):
            problems.append(f"{at}: {refusal}")
        elif target.key == EMA_HALF_LIFE:
            half_life = value
        elif target.tensor is not None:
            options.append(ScheduledOption(target.key, value, _tensor_setter(target.tensor)))
        else:
            of_all = target.key.startswith("optimizer.")
            moved = [player for player in players.values() if of_all or player.table in target.tables]
            if not moved:
                problems.append(f"{at}.key: {quote(target.key)} has no effect: the game trains no network with it")
                continue
            config, option = optimizer_option(experiment, target)
            name = option[0]
            extremes = [value(step, total) for step in _spread_steps(total)]
            others = min(extremes), max(extremes)
            try:
                reached = [find_in_groups(target, config, option, player, others) for player in moved]
            except (TypeError, ValueError) as error:
                problems.append(f"{at}.key: {quote(target.key)} cannot be moved: {one_line(error)}")
                continue
            if not all(reached):
                problems.append(
                    f"{at}.key: {quote(target.key)} cannot be moved: what the optimiser builds has no {name!r} "
                    f"of {target.first:g} in its param_groups"
                )
                continue
            tensor = partial(learning_rate_tensor, device) if name == "lr" and accepts_tensor(config, device) else None
            if tensor is None:
                plain_numbers.append(target.key)
            set_option = option_setter([option for found in reached for option in found], tensor)
            options.append(ScheduledOption(target.key, value, set_option))
    if problems:
        raise UserError(*problems)
    if ema is not None and ema.decay_changes:
        warmed_up = _warmed_up(half_life, experiment.train.ema_warmup, images_per_step)
        options.append(
            ScheduledOption(EMA_HALF_LIFE, warmed_up, lambda value: ema.set_decay(ema_decay(value, images_per_step)))
        )
    eager_reason = None
    if plain_numbers:
        eager_reason = f"{', '.join(plain_numbers)}: moved by a schedule, and the optimiser takes no tensor for it"
    return Schedules(tuple(options), total, eager_reason)


def _constant(value: float) -> Callable[[int, int], float]:
    return lambda step, total: value


def _values(schedule: Schedule, first: float) -> Callable[[int, int], float]:
    return lambda step, total: float(schedule.value(first, step, total))


def _warmed_up(half_life: Callable[[int, int], float], share: float, images: int) -> Callable[[int, int], float]:
    """The EMA half-life among the schedules, with warm-up: at most `share` of the images seen before the step."""
    return lambda step, total: min(half_life(step, total), share * step * images if share else math.inf)


def in_steps(schedule: Schedule, steps_per_epoch: float) -> Schedule:
    """The schedule with intervals in steps."""
    given: Any = schedule
    intervals = {f.alias: getattr(given, f.name) for f in attrs.fields(type(given)) if f.init}
    counts = {
        name: Interval(value.in_steps(steps_per_epoch))
        for name, value in intervals.items()
        if isinstance(value, Interval)
    }
    return attrs.evolve(given, **counts)  # type: ignore[no-any-return]


def _spread_steps(steps: int) -> list[int]:
    """Evenly spread steps, first and last too."""
    count = min(steps, CHECKED_STEPS)
    return [index * (steps - 1) // max(1, count - 1) for index in range(count)]


def _out_of_range(
    experiment: Experiment, target: ScheduleTarget, value: Callable[[int, int], float], total: int
) -> str | None:
    """Returns why an option may not have a schedule's values, as text; the option's own class validates them."""
    steps = {value(step, total): step for step in reversed(_spread_steps(total))}
    for extreme in [number for number in steps if not math.isfinite(number)] or [min(steps), max(steps)]:
        said = f"{target.key} would be {extreme:g} in step {steps[extreme] + 1:,}"
        if not math.isfinite(extreme):
            return f"{said}; expected a finite number"
        try:
            with_option(experiment, target.path, extreme)
        except (TypeError, ValueError) as error:
            return f"{said}: {one_line(error.args[0])}"
    return None


def _tensor_setter(tensor: Tensor) -> Callable[[float], None]:
    def set_option(value: float) -> None:
        tensor.fill_(value)

    return set_option
