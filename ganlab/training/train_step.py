"""The train step as a sequence of phases: whose update comes when, and the update of the EMA at the end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from attrs import frozen

from ganlab.protocols import Batch, Move
from ganlab.training.ema import EMA
from ganlab.training.game import Game


@frozen
class Phase:
    """A move of the game in the train step: `repeats` updates, in every `every`-th step from `start` on.

    With `new_batch` each update takes the next batch; otherwise it takes the batch of the phase before.
    In steps without the phase its batches are still taken, for the phases after it.
    `update(batch, updates)` makes one update on a batch; `updates` counts this phase's earlier ones.
    `due_penalties(updates)` returns the names of the penalties that are part of that update's loss.
    """

    name: str
    update: Callable[[Batch, int], None]
    due_penalties: Callable[[int], tuple[str, ...]]
    repeats: int = 1
    every: int = 1
    start: int = 0
    new_batch: bool = False

    def updates_before(self, step: int) -> list[int | None]:
        """Returns, for each update of this phase in a train step, how many came earlier; None for a skipped one."""
        steps = step - self.start
        if steps < 0 or steps % self.every:
            return [None] * self.repeats
        return [steps // self.every * self.repeats + repeat for repeat in range(self.repeats)]


def build_phases(game: Game) -> list[Phase]:
    """Returns the phases of a game's train step: one for each of its moves, of which the first takes new batches."""
    return [_phase(game, move, index == 0) for index, move in enumerate(game.rules.moves)]


def _phase(game: Game, move: Move, first: bool) -> Phase:
    players = [game.players[name] for name in move.players]

    def update(batch: Batch, updates: int) -> None:
        game.make_update(move, batch, updates)

    def due(updates: int) -> tuple[str, ...]:
        return tuple(name for player in players for name, _ in player.due_penalties(updates))

    return Phase(move.name, update, due, move.repeats, move.every, move.start, first or move.new_batch)


@frozen
class TrainStep:
    """The eager train step: runs all phases on a step's batches, then updates the EMA of the sampled networks."""

    game: Game
    phases: Sequence[Phase]
    ema: EMA | None

    @property
    def batches_per_step(self) -> int:
        """How many batches it takes."""
        return sum(phase.repeats for phase in self.phases if phase.new_batch)

    def signature(self, step: int) -> Hashable:
        """Returns the signature of a train step: steps of one signature do the same operations on other values."""
        return tuple(
            None if updates is None else phase.due_penalties(updates)
            for phase in self.phases
            for updates in phase.updates_before(step)
        )

    def __call__(self, batches: Sequence[Batch], step: int) -> None:
        self.game.start_step()
        following = iter(batches)
        for phase in self.phases:
            for updates in phase.updates_before(step):
                if phase.new_batch:
                    batch = next(following)
                if updates is not None:
                    phase.update(batch, updates)
        if self.ema is not None:
            self.ema.update()
