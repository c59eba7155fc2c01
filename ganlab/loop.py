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
    batch = step * training.batches_per_step

    # Each player in its turn.
    for phase in training.phases:
        for repeat in range(phase.repeats):
            if phase.new_images:
                real = training.feeder.batch(batch)
                batch += 1
            phase.update(real, step * phase.repeats + repeat)

    # What follows from the generator's update.
    if training.average is not None:
        training.average.update()
    training.game.images_seen.fill_(batch * training.feeder.batch_size)
