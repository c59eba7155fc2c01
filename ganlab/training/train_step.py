"""The train step as a sequence of phases: whose update comes when, and the update of the generator's EMA at the end."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from attrs import frozen

from ganlab.data.batch import Batch
from ganlab.training.ema import EMA
from ganlab.training.game import Game


@frozen
class Phase:
    """One player's phase of the train step: `repeats` updates, in every `every`-th step.

    With `new_images` each update takes the next batch of real images; otherwise it takes the batch of the phase before.
    In steps without the phase its batches are still taken, for the phases after it.
    `update(real, updates)` makes one update on a batch of real images; `updates` counts this phase's earlier ones.
    `terms(updates)` returns the names of the penalties that are part of that update's loss.
    """

    name: str
    update: Callable[[Batch, int], None]
    terms: Callable[[int], tuple[str, ...]]
    repeats: int = 1
    every: int = 1
    new_images: bool = False

    def updates_before(self, step: int) -> list[int | None]:
        """Returns, for each update of this phase in a train step, how many came earlier; None for a skipped one."""
        if step % self.every:
            return [None] * self.repeats
        return [step // self.every * self.repeats + repeat for repeat in range(self.repeats)]


def two_player_phases(game: Game, discriminator_steps: int, discriminator_every: int) -> list[Phase]:
    """Returns the phases of a GAN's train step: the discriminator's updates on new images, then the generator's.

    The discriminator makes `discriminator_steps` updates in every `discriminator_every`-th step; the generator makes
    one in each step, on the last batch of the discriminator.
    """
    g, d = game.players
    return [
        Phase(
            d.name,
            game.discriminator_phase,
            d.due_penalties,
            discriminator_steps,
            discriminator_every,
            new_images=True,
        ),
        Phase(g.name, game.generator_phase, g.due_penalties),
    ]


@frozen
class TrainStep:
    """The eager train step: runs all phases on a step's batches, then updates the EMA of the generator's weights."""

    phases: Sequence[Phase]
    ema: EMA | None

    @property
    def batches_per_step(self) -> int:
        """How many real batches it takes."""
        return sum(phase.repeats for phase in self.phases if phase.new_images)

    def signature(self, step: int) -> Hashable:
        """Returns the signature of a train step: steps of one signature do the same operations on other values."""
        return tuple(
            None if updates is None else phase.terms(updates)
            for phase in self.phases
            for updates in phase.updates_before(step)
        )

    def __call__(self, real: Sequence[Batch], step: int) -> None:
        batches = iter(real)
        for phase in self.phases:
            for updates in phase.updates_before(step):
                if phase.new_images:
                    batch = next(batches)
                if updates is not None:
                    phase.update(batch, updates)
        if self.ema is not None:
            self.ema.update()
