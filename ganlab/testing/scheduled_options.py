"""Whether a schedule may move a component's options: as tensors they must do in the step what they do as numbers.

Decisions:
- Authors declare nothing: a training in which a schedule puts another value for an option is held against one whose
  option has that value as a number.
- What a run says by itself is no fault, and is told here: that a schedule is refused, that the step ends with an error,
  that steps are eager. That an option is moved and the step goes on as before is a fault, since no run would say so.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import attrs
import torch
from attrs import frozen
from torch import Tensor

from ganlab.config.schema import Experiment
from ganlab.plugin.failures import Guard
from ganlab.testing.inspection import Check, Fault, Inspection, raised
from ganlab.testing.tiny_training import LISTED, TinyGame
from ganlab.training.loop import Training
from ganlab.training.schedule_targets import Target, movable, with_option
from ganlab.utils.errors import UserError, one_line

TOLD = 1e-5
"""The least that another value must change the weights by, as a share of them, for a difference to be no rounding."""

ASTRAY = 0.1
"""How far a moved option may lead from where the number leads, as a share of what the number changes: for rounding."""


@frozen
class Put:
    """A schedule that gives an option one value from the first step on."""

    key: str
    to: float

    def value(self, first: float, step: int, total: int) -> float:
        return self.to


def look_at_options(inspection: Inspection, game: TinyGame, *after: Check) -> None:
    """The check of a component whose options schedules may move."""
    inspection.look(
        "schedules: an option that one moves does what the number would", lambda: _moved(inspection, game), *after
    )


def _moved(inspection: Inspection, game: TinyGame) -> str:
    experiment = game.experiment()
    trial = _Trial(inspection, game, experiment, _weights(game, experiment))
    own = [target for key, target in movable(experiment).items() if key.startswith(f"{inspection.kind}.")]
    skipped = 2 if inspection.kind in LISTED else 1
    said = []
    for target in own:
        option = ".".join(target.path[skipped:])
        note = trial.told(target, option)
        said.append(f"{option} ({note})" if note else option)
    return ", ".join(said) or "it has none that could be moved"


@frozen
class _Trial:
    """A tiny game, and the weights that it comes to when no option is moved."""

    inspection: Inspection
    game: TinyGame
    experiment: Experiment
    unmoved: Tensor

    def told(self, target: Target, option: str) -> str:
        """What there is to say of an option; raises Fault where a schedule moves it in vain."""
        found = self.another(target)
        if found is None:
            return "no other value that was tried changes anything here"
        value, as_number = found
        scheduled = attrs.evolve(self.experiment, schedule=(Put(target.key, value),))
        moved: list[Tensor] = []
        with Guard() as guard:
            moved.append(_weights(self.game, scheduled))
        if isinstance(guard.error, UserError):
            return f"not to be moved: {one_line(guard.error).removeprefix('schedule[0].key: ')}"
        if guard.error is not None:
            return f"not to be moved, which ends the step: {raised(guard.error)}"
        # Put so that weights which are NaN are a fault too.
        if not (moved[0] - as_number).norm() <= ASTRAY * (as_number - self.unmoved).norm():
            raise Fault(
                f"{option}: moved to {value:g} by a schedule it does not do what the number {value:g} does; what is "
                "made of an option must be made in the step",
                self.inspection.line_of_class(),
            )
        return self.eager(scheduled)

    def another(self, target: Target) -> tuple[float, Tensor] | None:
        """Another value of an option that changes the weights, and the weights; None where none was found."""
        for value in _near(target.first):
            with Guard() as guard:  # not every value is one that it may have
                weights = _weights(self.game, with_option(self.experiment, target.path, value))
            if guard.error is None and (weights - self.unmoved).norm() > TOLD * self.unmoved.norm():
                return value, weights
        return None

    def eager(self, scheduled: Experiment) -> str:
        """Why steps are eager under a schedule, or nothing; nor where they always are, which another check tells."""
        training = _built(self.game, scheduled)
        if training.schedules.unfit:
            return f"steps are eager under it: {training.schedules.unfit.partition(': ')[2]}"
        fault = self.game.why_eager(training)
        if fault is None or self.game.why_eager(_built(self.game, self.experiment)):
            return ""
        line = fault.at.removeprefix(f"{self.inspection.file}:")
        at = f"line {line} " if line.isdigit() else f"{fault.at} " if line else ""
        return f"steps are eager under it: {at}{fault}"


def _near(first: float) -> Iterator[float]:
    """Values near another one, which float32 holds."""
    for near in (first / 2, first * 2, first + 0.25, first - 0.25):
        value = float(torch.tensor(near))
        if value != first:
            yield value


def _built(game: TinyGame, experiment: Experiment) -> Training:
    """A training of unused components: what one has learnt is not the next one's."""
    return game.built(copy.deepcopy(experiment))


def _weights(game: TinyGame, experiment: Experiment) -> Tensor:
    """Both networks' weights after some steps, as one vector."""
    training = _built(game, experiment)
    game.steps(training, 0, game.length)
    weights = [weight for player in training.game.players for weight in player.network.parameters()]
    return torch.cat([weight.detach().double().flatten() for weight in weights])
