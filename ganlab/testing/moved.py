"""Whether a schedule may move a component's options: as tensors they must do in the step what they do as numbers.

Decisions:
- Authors declare nothing: a training in which a schedule puts another value for an option is held against one whose
  option has that value as a number.
- A schedule that is refused is no fault, and neither is one that makes steps eager: a run says both. That it moves
  nothing is a fault, since a run goes on without a word.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch
from attrs import frozen
from torch import Tensor

from ganlab.errors import UserError, one_line
from ganlab.plugins import Guard
from ganlab.schedules import Target, movable, with_option
from ganlab.schema import Experiment
from ganlab.testing.checks import Check, Fault, Inspection, raised
from ganlab.testing.game import LISTED, TinyGame

TOLD = 1e-5
"""The least that another value must change the weights by, as a share of them, for a difference to be no rounding."""


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
    own = [target for key, target in movable(experiment).items() if key.startswith(f"{inspection.kind}.")]
    skipped = 2 if inspection.kind in LISTED else 1
    said = []
    for target in own:
        option = ".".join(target.path[skipped:])
        note = _follows(inspection, game, experiment, target, option)
        said.append(f"{option} ({note})" if note else option)
    return ", ".join(said) or "it has none that could be moved"


def _follows(inspection: Inspection, game: TinyGame, experiment: Experiment, target: Target, option: str) -> str:
    """What there is to say of one option; raises Fault where a schedule moves it in vain."""
    before = _weights(game, experiment)
    for value in _others(experiment, target):
        as_number = _weights(game, with_option(experiment, target.path, value))
        effect = (as_number - before).norm()
        if effect > TOLD * before.norm():  # and it is no NaN
            break
    else:
        return "other values change nothing here"
    scheduled = attrs.evolve(experiment, schedule=(Put(target.key, value),))
    moved: list[Tensor] = []
    with Guard() as guard:
        moved.append(_weights(game, scheduled))
    if isinstance(guard.error, UserError):
        return f"not to be moved: {one_line(guard.error).partition(': ')[2]}"
    if guard.error is not None:
        return f"not to be moved: {raised(guard.error)}"
    if not (moved[0] - as_number).norm() <= 0.1 * effect:  # nor where it is NaN
        raise Fault(
            f"{option}: moved to {value:g} by a schedule it does not do what the number {value:g} does; what is made "
            "of an option must be made in the step",
            inspection.line_of_class(),
        )
    if game.unfit(game.training()):  # which is told already
        return ""
    fault = game.unfit(game.built(scheduled))
    if fault is None:
        return ""
    return f"steps are eager under it: {fault.at.replace(f'{inspection.file}:', 'line ')} {fault}"


def _others(experiment: Experiment, target: Target) -> Iterator[float]:
    """Other values that the option may have, which float32 holds."""
    first = target.first
    for near in (first / 2, first * 2, first + 0.25, first - 0.25):
        value = float(torch.tensor(near))
        try:
            with_option(experiment, target.path, value)
        except (TypeError, ValueError):
            continue
        if value != first:
            yield value


def _weights(game: TinyGame, experiment: Experiment) -> Tensor:
    """Both networks' weights after some steps, as one vector."""
    training = game.built(experiment)
    game.steps(training, 0, game.length)
    weights = [weight for player in training.game.players for weight in player.network.parameters()]
    return torch.cat([weight.detach().double().flatten() for weight in weights])
