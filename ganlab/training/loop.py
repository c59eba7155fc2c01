"""The training loop: one train step after another. All that is slow happens in `boundary`, between steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from torch import nn

from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.loader import BatchLoader
from ganlab.nn import dropout, memory_format
from ganlab.protocols import Dataset, ImageSpec
from ganlab.training import schedules
from ganlab.training.cuda_graphs import CapturedTrainStep
from ganlab.training.ema import EMA
from ganlab.training.game import Game
from ganlab.training.train_step import TrainStep


@frozen
class Training:
    """The objects that the training loop needs: the game, its train step, the batches, the schedules and all else.

    `capture` is the captured train step, None where steps are eager. `stateful` holds the components with a state of
    their own, by their name in a checkpoint. `initialised` has the hashes of weights files that a warm start has read,
    by network and path; `weights_files` those of files that the components read whenever they are built.
    """

    game: Game
    train_step: TrainStep
    capture: CapturedTrainStep | None
    loader: BatchLoader
    dataset: Dataset
    images: ImageSpec
    conditions: ConditionSampler
    schedules: schedules.Schedules
    total_steps: int
    stateful: dict[str, Any]
    initialised: dict[str, dict[str, str]] = field(factory=dict)
    weights_files: dict[str, str] = field(factory=dict)

    @property
    def ema(self) -> EMA | None:
        return self.train_step.ema

    @property
    def step_optimizations(self) -> dict[str, Any]:
        """The loop's speed-ups of its steps: `step_levers` in run.json, as they change the last bits.

        `captured` is True, False, or the reason why steps are eager although capture was asked for.
        """

        def players_with(has: Callable[[nn.Module], bool]) -> list[str]:
            return [player.name for player in self.game.players if has(player.network)]

        return {
            "joined": self.game.joint_pass,
            "channels_last": players_with(memory_format.has_convolutions),
            "quick_dropout": players_with(dropout.has_quick_dropout),
            "captured": (self.capture.refusal or True) if self.capture else False,
        }

    @property
    def evaluated_generator(self) -> nn.Module:
        """The generator with EMA weights, if any."""
        return self.ema.network if self.ema else self.game.generator.network

    @property
    def weights(self) -> str:
        """The sampled weights: "ema" or "plain"."""
        return "ema" if self.ema else "plain"

    @property
    def steps_per_epoch(self) -> float:
        return self.loader.batches_per_epoch / self.train_step.batches_per_step


def train(training: Training, start: int, boundary: Callable[[int], None]) -> None:
    """Runs the training loop from step `start` to the end; calls `boundary(step)` before the first and after each."""
    boundary(start)
    for step in range(start, training.total_steps):
        take_step(training, step)
        boundary(step + 1)


def take_step(training: Training, step: int) -> None:
    """Runs one step of the training loop, an update of the generator; `step` counts the earlier ones.

    The images of a batch are a function of the batch's index, and that of the step, so a resumed loop gets the same
    batches as an uninterrupted one.
    """
    count = training.train_step.batches_per_step
    real = [training.loader.batch(step * count + index) for index in range(count)]
    training.schedules.fill(step)
    (training.capture or training.train_step)(real, step)
    training.game.images_seen.fill_((step + 1) * count * training.loader.batch_size)
