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

from ganlab.build import Training
from ganlab.errors import UserError, one_line
from ganlab.plugins import Guard
from ganlab.schedules import Target, movable, with_option
from ganlab.schema import Experiment
from ganlab.testing.checks import Check, Fault, Inspection, raised
from ganlab.testing.game import LISTED, TinyGame

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
    before = _weights(game, _built(game, experiment))
    eager_anyway = game.why_eager(_built(game, experiment)) is not None  # which another check tells
    own = [target for key, target in movable(experiment).items() if key.startswith(f"{inspection.kind}.")]
    skipped = 2 if inspection.kind in LISTED else 1
    said = []
    for target in own:
        option = ".".join(target.path[skipped:])
        found = _another(game, experiment, target, before)
        if found is None:
            note = "no other value that was tried changes anything here"
        else:
            scheduled = attrs.evolve(experiment, schedule=(Put(target.key, found[0]),))
            note = _follows(inspection, game, scheduled, before, found[1], option)
            note = note or ("" if eager_anyway else _eager(inspection, game, scheduled))
        said.append(f"{option} ({note})" if note else option)
    return ", ".join(said) or "it has none that could be moved"


def _another(game: TinyGame, experiment: Experiment, target: Target, before: Tensor) -> tuple[float, Tensor] | None:
    """Another value of an option that changes the weights, and the weights; None where none was found."""
    for value in _values(target.first):
        with Guard() as guard:  # not every value is one that it may have
            weights = _weights(game, _built(game, with_option(experiment, target.path, value)))
        if guard.error is None and (weights - before).norm() > TOLD * before.norm():
            return value, weights
    return None


def _values(first: float) -> Iterator[float]:
    """Values near another one, which float32 holds."""
    for near in (first / 2, first * 2, first + 0.25, first - 0.25):
        value = float(torch.tensor(near))
        if value != first:
            yield value


def _follows(
    inspection: Inspection, game: TinyGame, scheduled: Experiment, before: Tensor, as_number: Tensor, option: str
) -> str:
    """Raises Fault where the schedule moves an option in vain; gives what a run with it would end with, if it would."""
    moved: Tensor | None = None
    with Guard() as guard:
        moved = _weights(game, _built(game, scheduled))
    if isinstance(guard.error, UserError):
        return f"not to be moved: {one_line(guard.error).removeprefix('schedule[0].key: ')}"
    if guard.error is not None or moved is None:
        return f"not to be moved, which ends the step: {raised(guard.error)}" if guard.error else ""
    # Put so that weights which are NaN are a fault too.
    if not (moved - as_number).norm() <= ASTRAY * (as_number - before).norm():
        (put,) = (f"{schedule.to:g}" for schedule in scheduled.schedule if isinstance(schedule, Put))
        raise Fault(
            f"{option}: moved to {put} by a schedule it does not do what the number {put} does; what is made of an "
            "option must be made in the step",
            inspection.line_of_class(),
        )
    return ""


def _eager(inspection: Inspection, game: TinyGame, scheduled: Experiment) -> str:
    """Why steps under the schedule would not be captured, or nothing."""
    training = _built(game, scheduled)
    if training.schedules.unfit:
        return f"steps are eager under it: {training.schedules.unfit.partition(': ')[2]}"
    fault = game.why_eager(training)
    if fault is None:
        return ""
    line = fault.at.removeprefix(f"{inspection.file}:")
    at = f"line {line} " if line.isdigit() else f"{fault.at} " if line else ""
    return f"steps are eager under it: {at}{fault}"


def _built(game: TinyGame, experiment: Experiment) -> Training:
    """A training of unused components: what one has learnt is not the next one's."""
    return game.built(copy.deepcopy(experiment))


def _weights(game: TinyGame, training: Training) -> Tensor:
    """Both networks' weights after some steps, as one vector."""
    game.steps(training, 0, game.length)
    weights = [weight for player in training.game.players for weight in player.network.parameters()]
    return torch.cat([weight.detach().double().flatten() for weight in weights])
