"""Checks options that schedules change: as tensors they must do in the step what they do as numbers.

Decisions:
- Authors declare nothing: a training in which a schedule sets another value of an option is compared with one whose
  option has that value as a number.
- What a run reports by itself is not a fault and is only shown here: that a schedule is refused, that the step raises,
  that steps are eager. That a schedule changes an option without effect is a fault, since no run would report it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import attrs
import torch
from attrs import frozen
from torch import Tensor

from ganlab.config.schedule_targets import ScheduleTarget, schedulable_options, with_option
from ganlab.config.schema import Experiment
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.testing.check_result import Check, Fault
from ganlab.testing.inspection import Inspection
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import why_not_capturable
from ganlab.training.loop import Training
from ganlab.utils.errors import UserError, error_text, one_line

MIN_EFFECT = 1e-5
"""The least relative change of the weights for which another value of an option has an effect and not just rounding."""

MAX_DEVIATION = 0.1
"""How far the weights under a schedule may lie from those under the number, as a share of the number's effect."""


@frozen
class SetTo:
    """A schedule for the check of scheduled options: sets an option to one value from the first step on."""

    key: str
    to: float

    def value(self, first: float, step: int, total: int) -> float:
        return self.to


def check_scheduled_options(inspection: Inspection, tiny: TinyTraining, *after: Check) -> None:
    """Runs the conformance check of a component's scheduled options: those that schedules may change."""
    inspection.run_check(
        "schedules: an option set by a schedule does what the same number does",
        lambda: _check_options(inspection, tiny),
        *after,
    )


def _check_options(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks every scheduled option, each that a schedule may change; returns what to report of each."""
    experiment = tiny.experiment()
    trial = _Trial(inspection, tiny, experiment, _weights(tiny.completed().training))
    own = [target for key, target in schedulable_options(experiment).items() if key.startswith(f"{inspection.kind}.")]
    skipped = 1 if inspection.kind in ("game", "optimizer") else 2  # a loss lies in the game, and others in lists
    notes = []
    for target in own:
        option = ".".join(target.path[skipped:])
        note = trial.check(target, option)
        notes.append(f"{option} ({note})" if note else option)
    return ", ".join(notes) or "it has none that a schedule could change"


@frozen
class _Trial:
    """What scheduled options are checked against: a tiny experiment, and its trained weights without schedules."""

    inspection: Inspection
    tiny: TinyTraining
    experiment: Experiment
    unscheduled: Tensor

    def check(self, target: ScheduleTarget, option: str) -> str:
        """Checks one scheduled option; returns a note, raises Fault where the schedule has another effect."""
        found = self.value_with_effect(target)
        if found is None:
            return "no other value that was tried changes anything here"
        value, as_number = found
        scheduled = attrs.evolve(self.experiment, schedule=(SetTo(target.key, value),))
        weights: list[Tensor] = []
        with CatchPluginErrors() as caught:
            weights.append(_trained_weights(self.tiny, scheduled))
        if isinstance(caught.error, UserError):
            return f"cannot be scheduled: {one_line(caught.error).removeprefix('schedule[0].key: ')}"
        if caught.error is not None:
            return f"cannot be scheduled, the step raises: {error_text(caught.error)}"
        # Written so that weights which are NaN are a fault too.
        if not (weights[0] - as_number).norm() <= MAX_DEVIATION * (as_number - self.unscheduled).norm():
            raise Fault(
                f"{option}: set to {value:g} by a schedule it does not do what the number {value:g} does; what is "
                "computed from an option must be computed in the step",
                self.inspection.line_of_class(),
            )
        return self.why_eager(scheduled)

    def value_with_effect(self, target: ScheduleTarget) -> tuple[float, Tensor] | None:
        """Returns another value of a scheduled option that changes the weights, and the weights; None if none does."""
        for value in _near(target.first):
            with CatchPluginErrors() as caught:  # the component may refuse a value
                weights = _trained_weights(self.tiny, with_option(self.experiment, target.path, value))
            if caught.error is None and (weights - self.unscheduled).norm() > MIN_EFFECT * self.unscheduled.norm():
                return value, weights
        return None

    def why_eager(self, scheduled: Experiment) -> str:
        """Returns why a scheduled option makes steps eager; empty where they are captured.

        Empty too where they are eager without it, which the check of capture reports.
        """
        training = _build(self.tiny, scheduled)
        if training.schedules.eager_reason:
            return f"steps are eager under it: {training.schedules.eager_reason.partition(': ')[2]}"
        fault = why_not_capturable(self.tiny, training)
        if fault is None or why_not_capturable(self.tiny, _build(self.tiny, self.experiment)):
            return ""
        line = fault.at.removeprefix(f"{self.inspection.file}:")
        at = f"line {line} " if line.isdigit() else f"{fault.at} " if line else ""
        return f"steps are eager under it: {at}{fault}"


def _near(first: float) -> Iterator[float]:
    """Values near it, exact in float32."""
    for near in (first / 2, first * 2, first + 0.25, first - 0.25):
        value = float(torch.tensor(near))
        if value != first:
            yield value


def _build(tiny: TinyTraining, experiment: Experiment) -> Training:
    """Builds from copies, to share no state."""
    return tiny.build_experiment(copy.deepcopy(experiment))


def _trained_weights(tiny: TinyTraining, experiment: Experiment) -> Tensor:
    """For the check of scheduled options: trains, and returns all networks' weights as one vector."""
    training = _build(tiny, experiment)
    tiny.run_steps(training, 0, tiny.length)
    return _weights(training)


def _weights(training: Training) -> Tensor:
    weights = [weight for player in training.game.players.values() for weight in player.network.parameters()]
    return torch.cat([weight.detach().double().flatten() for weight in weights])
