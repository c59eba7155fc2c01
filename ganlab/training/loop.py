"""The training loop: phases in turn, step after step. All that is slow happens in `boundary`, between steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from torch import nn

from ganlab.data.batch import Batch
from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.loader import BatchLoader
from ganlab.nn import dropout, memory_format
from ganlab.protocols import Dataset, ImageSpec
from ganlab.training import schedules
from ganlab.training.cuda_graphs import CapturedTurns
from ganlab.training.ema import EMA
from ganlab.training.game import Game
from ganlab.training.turns import Turns


@frozen
class Training:
    """All that a training loop needs."""

    game: Game
    turns: Turns
    capture: CapturedTurns | None
    loader: BatchLoader
    dataset: Dataset
    images: ImageSpec
    conditions: ConditionSampler
    schedules: schedules.Schedules
    total_steps: int
    stateful: dict[str, Any]

    def take_turns(self, real: Sequence[Batch], step: int) -> None:
        """Takes the turns of a step, captured where they are."""
        (self.capture or self.turns)(real, step)

    @property
    def average(self) -> EMA | None:
        return self.turns.average

    @property
    def levers(self) -> dict[str, Any]:
        """What makes the step fast and moves its last bits: a part of run.json.

        `captured` is False, True, or why the steps are eager where they should have been captured.
        """

        def having(has: Callable[[nn.Module], bool]) -> list[str]:
            return [player.name for player in self.game.players if has(player.network)]

        return {
            "joined": self.game.joined,
            "channels_last": having(memory_format.has_convolutions),
            "quick_dropout": having(dropout.has_quick_dropout),
            "captured": (self.capture.refusal or True) if self.capture else False,
        }

    @property
    def evaluated(self) -> nn.Module:
        """The generator that is sampled and scored: the running average where there is one."""
        return self.average.network if self.average else self.game.generator.network

    @property
    def weights(self) -> str:
        return "ema" if self.average else "plain"

    @property
    def steps_per_epoch(self) -> float:
        return self.loader.batches_per_epoch / self.turns.batches


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
    real = [training.loader.batch(step * count + number) for number in range(count)]
    training.schedules.fill(step)
    training.take_turns(real, step)
    training.game.images_seen.fill_((step + 1) * count * training.loader.batch_size)
