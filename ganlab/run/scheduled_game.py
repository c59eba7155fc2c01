"""The game of a run that is read again: its scheduled options have their values at the checkpoint, not the file's.

A sampler may use them, as that of an adversarial autoencoder uses the deviation of its prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganlab.config.schedule_targets import schedulable_options, with_option
from ganlab.config.schema import Experiment
from ganlab.plugin.component import MissingComponent
from ganlab.training.schedules import in_steps


def game_at_step(experiment: Experiment, step: int, info: Mapping[str, Any]) -> Any:
    """The game of an experiment with the values that scheduled options had in the last of `step` steps.

    `info` is run.json. Runs of earlier releases do not say how many steps an epoch has: their options are the file's.
    """
    if not step or not {"total_steps", "steps_per_epoch"} <= info.keys():
        return experiment.game
    options = schedulable_options(experiment)
    for schedule in experiment.schedule:
        target = None if isinstance(schedule, MissingComponent) else options.get(schedule.key)
        if target is not None and target.path[0] == "game":
            counted = in_steps(schedule, info["steps_per_epoch"])
            value = float(counted.value(target.first, step - 1, info["total_steps"]))
            experiment = with_option(experiment, target.path, value)
    return experiment.game
