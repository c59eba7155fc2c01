"""The components that run in the train step: the wrapped loss, each player's penalties, the augmentations."""

from __future__ import annotations

from typing import Any

import torch
from attrs import frozen

from ganlab.config.schema import Experiment
from ganlab.plugin.registry import Registry
from ganlab.protocols import Loss, generator_uses_real
from ganlab.training import schedule_targets
from ganlab.training.component_errors import collect_component_errors
from ganlab.training.schedule_targets import ScheduleTarget

PLAYERS = ("generator", "discriminator")


@frozen
class StepComponents:
    """The step components of an experiment, ready for the train step.

    `experiment` has 0-dim tensors in place of the options that a schedule changes, which are `targets`. `loss` is the
    loss in all its wrappers, and `penalties` are each player's, by the names they are logged under.
    """

    experiment: Experiment
    targets: list[ScheduleTarget]
    loss: Loss
    uses_real: bool
    penalties: dict[str, list[Any]]

    @property
    def stateful(self) -> dict[str, Any]:
        """The step components that have a `state_dict`, by their name in a checkpoint."""
        found: dict[str, Any] = {"loss": self.loss}
        for kind in ("penalty", "augmentation"):
            found |= {f"{kind}.{index}": part for index, part in enumerate(getattr(self.experiment, kind))}
        return {name: part for name, part in found.items() if hasattr(part, "state_dict")}


def resolve_step_components(
    experiment: Experiment, registry: Registry, device: torch.device, problems: list[str]
) -> StepComponents:
    """Prepares the step components: wraps the loss, sorts the penalties, places tensors; adds misfits to `problems`."""
    experiment, targets = schedule_targets.resolve_targets(experiment, device, problems)
    loss = _wrapped_loss(experiment, registry, problems)
    uses_real = True
    with collect_component_errors(problems, "loss"):
        uses_real = generator_uses_real(loss)
    problems += schedule_targets.ineffective_schedules(experiment, targets, loss)
    penalties = _penalties_by_player(experiment, registry, problems)
    return StepComponents(experiment, targets, loss, uses_real, penalties)


def _wrapped_loss(experiment: Experiment, registry: Registry, problems: list[str]) -> Loss:
    loss = experiment.loss
    for index, wrapper in enumerate(experiment.loss_wrapper):
        name = registry.component_of("loss_wrapper", wrapper).name
        with collect_component_errors(problems, f"loss_wrapper[{index}] {name!r}"):
            loss = wrapper(loss)
    return loss


def _penalties_by_player(experiment: Experiment, registry: Registry, problems: list[str]) -> dict[str, list[Any]]:
    """Each player's penalties, by logged name."""
    penalties: dict[str, list[Any]] = {name: [] for name in PLAYERS}
    names = penalty_names(experiment, registry)
    for index, (penalty, name) in enumerate(zip(experiment.penalty, names, strict=True)):
        if penalty.player not in penalties:
            problems.append(f"penalty[{index}]: player is {penalty.player!r}; expected 'generator' or 'discriminator'")
        elif penalty.every < 1:
            problems.append(f"penalty[{index}]: every is {penalty.every}; expected at least 1")
        else:
            penalties[penalty.player].append((name, penalty))
    return penalties


def penalty_names(experiment: Experiment, registry: Registry) -> list[str]:
    """Returns the name that each penalty among the step components is logged under, such as "penalty_r1"."""
    suffixes = registry.suffixes("penalty", experiment.penalty)
    names = (registry.component_of("penalty", penalty).name for penalty in experiment.penalty)
    return [f"penalty_{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)]
