"""The training loop: phases in turn, step after step. All that is slow happens in `boundary`, between steps."""

from __future__ import annotations

from collections.abc import Callable

from ganlab.build import Training


def train(training: Training, start: int, boundary: Callable[[int], None]) -> None:
    """Takes the steps from `start` to the end; calls `boundary(step)` before the first and after each."""
    boundary(start)
    for step in range(start, training.total_steps):
        take_step(training, step)
        boundary(step + 1)


def take_step(training: Training, step: int) -> None:
    """One step, which is one update of the generator; `step` counts those before it.

    Which images a batch holds is a function of the batch's number, and that of the step, so a resumed loop sees what an
    uninterrupted one would have seen.
    """
    count = training.turns.batches
    real = [training.feeder.batch(step * count + number) for number in range(count)]
    training.schedules.fill(step)
    training.take_turns(real, step)
    training.game.images_seen.fill_((step + 1) * count * training.feeder.batch_size)
