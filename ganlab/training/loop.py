"""The training loop: one train step after another. All that is slow happens in `boundary`, between steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, frozen

from ganlab.data.condition_sampler import ConditionSampler
from ganlab.data.game_loader import GameLoader
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.nn import dropout, memory_format
from ganlab.protocols import Dataset, DataSpec, GameConfig, ImageSpec
from ganlab.training import schedules
from ganlab.training.cuda_graphs import CapturedTrainStep
from ganlab.training.ema import EMA
from ganlab.training.game import Game
from ganlab.training.train_step import TrainStep


@frozen
class Training:
    """The objects that the training loop needs: the game, its train step, the batches, the schedules and all else.

    `game_config` is what built the rules of the game, with the losses in their wrappers. `capture` is the captured
    train step, None where steps are eager. `conditional`: networks use the conditions of `[dataset]`. `stateful` holds
    the components with a state of their own, by their name in a checkpoint. `initialised` has the hashes of weights
    files that a warm start has read, by network and path; `weights_files` those of files that the components read
    whenever they are built.
    """

    game: Game
    game_config: GameConfig
    train_step: TrainStep
    capture: CapturedTrainStep | None
    loader: GameLoader
    dataset: Dataset
    streams: Mapping[str, Dataset]
    data: DataSpec
    conditions: ConditionSampler
    conditional: bool
    schedules: schedules.Schedules
    total_steps: int
    stateful: dict[str, Any]
    initialised: dict[str, dict[str, str]] = field(factory=dict)
    weights_files: dict[str, str] = field(factory=dict)

    @property
    def images(self) -> ImageSpec:
        return self.data.images

    @property
    def ema(self) -> EMA | None:
        return self.train_step.ema

    @property
    def step_optimizations(self) -> dict[str, Any]:
        """The loop's speed-ups of its steps: `step_levers` in run.json, as they change the last bits.

        `captured` is True, False, or the reason why steps are eager although capture was asked for.
        """
        networks = self.game.networks
        return {
            **self.game.rules.levers(networks),
            "channels_last": [name for name in networks if memory_format.has_convolutions(networks[name])],
            "quick_dropout": [name for name in networks if dropout.has_quick_dropout(networks[name])],
            "captured": (self.capture.refusal or True) if self.capture else False,
        }

    @property
    def evaluated_networks(self) -> NetworkSampler:
        """The sampled networks, with EMA weights if there are any."""
        rules, networks = self.game.rules, self.ema.networks if self.ema else self.game.networks
        return NetworkSampler(rules.main_sampler, networks, self.images.dtype)

    @property
    def weights(self) -> str:
        """The sampled weights: "ema" or "plain"."""
        return "ema" if self.ema else "plain"

    @property
    def steps_per_epoch(self) -> float:
        return self.loader.batches_per_epoch / self.train_step.batches_per_step


def train(training: Training, start: int, boundary: Callable[[int], None]) -> None:
    """Runs the training loop from step `start` to the end; calls `boundary(step)` before the first and after each."""
    if start:
        training.schedules.fill(start - 1)  # what the boundary draws and scores has the values of the last step
    boundary(start)
    for step in range(start, training.total_steps):
        take_step(training, step)
        boundary(step + 1)


def take_step(training: Training, step: int) -> None:
    """Runs one step of the training loop; `step` counts the earlier ones.

    The images of a batch are a function of the batch's index, and that of the step, so a resumed loop gets the same
    batches as an uninterrupted one.
    """
    count = training.train_step.batches_per_step
    real = [training.loader.batch(step * count + index) for index in range(count)]
    training.schedules.fill(step)
    (training.capture or training.train_step)(real, step)
    training.game.images_seen.fill_((step + 1) * count * training.loader.batch_size)
