"""ganlab.training.turns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from attrs import frozen

from ganlab.data.batch import Batch
from ganlab.training.ema import EMA
from ganlab.training.game import Game


@frozen
class Phase:
    """A turn in the game. A step takes it `repeats` times, on new images each time where `new_images` says so.

    Only every k-th step takes it, `every` being k; in the others its images are for the phases after it alone.
    `update(real, updates)` is given a batch of real images and the number of updates that this phase made before.
    `terms(updates)` names what that update's loss is made of besides the loss itself.
    """

    name: str
    update: Callable[[Batch, int], None]
    terms: Callable[[int], tuple[str, ...]]
    repeats: int = 1
    every: int = 1
    new_images: bool = False

    def turns(self, step: int) -> list[int | None]:
        """For each of its turns in a step the number of updates before it; None where the turn is not taken."""
        if step % self.every:
            return [None] * self.repeats
        return [step // self.every * self.repeats + repeat for repeat in range(self.repeats)]


def two_player_phases(game: Game, discriminator_steps: int, discriminator_every: int) -> list[Phase]:
    """The discriminator's turn, `discriminator_steps` times on new images, then the generator's on the last of them.

    The discriminator has its turn in every `discriminator_every`-th step only.
    """
    g, d = game.players
    return [
        Phase(d.name, game.discriminator_phase, d.due, discriminator_steps, discriminator_every, new_images=True),
        Phase(g.name, game.generator_phase, g.due),
    ]


@frozen
class Turns:
    """All turns of one step, each player in its turn, and what follows from the generator's update."""

    phases: Sequence[Phase]
    average: EMA | None

    @property
    def batches(self) -> int:
        """How many batches of real images a step takes."""
        return sum(phase.repeats for phase in self.phases if phase.new_images)

    def kind(self, step: int) -> Hashable:
        """What the step is made of: steps of one kind do the same work on other numbers."""
        return tuple(
            None if updates is None else phase.terms(updates) for phase in self.phases for updates in phase.turns(step)
        )

    def __call__(self, real: Sequence[Batch], step: int) -> None:
        batches = iter(real)
        for phase in self.phases:
            for updates in phase.turns(step):
                if phase.new_images:
                    batch = next(batches)
                if updates is not None:
                    phase.update(batch, updates)
        if self.average is not None:
            self.average.update()
