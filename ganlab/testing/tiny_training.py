"""Trainings of a component under check in a tiny experiment, built and run by the core's own build and loop.

Decisions:
- The device is the CPU, where a step is watched for what a CUDA graph could not hold, but in the check of a device.
- One uninterrupted training is shared by all the checks that look at its end: it is deterministic where they pass.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from attrs import define, field, frozen

from ganlab.config.schema import Experiment, Train
from ganlab.plugin.registry import Registry
from ganlab.protocols import Move
from ganlab.run.first_updates import FirstUpdates
from ganlab.testing.fixed_inputs import ConditionShape, Shape
from ganlab.testing.inspection import Inspection
from ganlab.testing.tiny_components import TINY, StatefulLoss, TinyImages, tiny_networks
from ganlab.testing.tiny_game import TinyGame
from ganlab.training.build import build
from ganlab.training.loop import Training, take_step
from ganlab.training.state import training_state
from ganlab.utils.interval import Interval
from ganlab.utils.paths import places

CPU = torch.device("cpu")

LISTED = ("loss_wrapper", "penalty", "augmentation", "schedule")
"""Kinds of which an experiment has any number, in a list, so that the tiny one can also be trained without."""

LONGEST_INTERVAL = 50

LONGEST = 200
"""The most steps of a tiny training; a move of a game that begins later is not made."""


@frozen
class CompletedTraining:
    """A completed tiny training of the component under check: the weights before it and the state after it."""

    training: Training
    weights_before: dict[str, dict[str, Any]]
    state: dict[str, Any]


@define
class TinyTraining:
    """Builds and runs tiny trainings: of a tiny experiment that uses the component under check.

    A check may set `shape`, of an image, signal or row, before the first training, and the configurations of the tiny
    game's networks, for a component that needs others. `conditions` has the form of the condition for images of each
    shape, class labels where it has none.
    `moves` are those of a game under check.
    `own` are the networks' configurations, by kind, of the file that the component is from.
    """

    inspection: Inspection
    registry: Registry
    own: Mapping[str, Sequence[Any]] = field(factory=dict)
    shape: Shape = (3, 8, 8)
    networks: dict[str, Any] = field(factory=tiny_networks)
    conditions: dict[Shape, ConditionShape] = field(factory=dict)
    device: torch.device = CPU
    moves: Sequence[Move] = ()
    _completed: CompletedTraining | None = field(default=None, init=False)

    def experiment(self, without: bool = False) -> Experiment:
        """The tiny training's experiment with an unused component; `without` it, or with the suite's own instead."""
        kind = self.inspection.kind
        loss = StatefulLoss if kind == "loss_wrapper" else TINY["loss"]
        own: dict[str, Any] = {**self.networks, "loss": loss()}
        dataset = TinyImages(self.shape, condition=self.conditions.get(self.shape, ()))
        parts: dict[str, Any] = {"optimizer": TINY["optimizer"](), "dataset": dataset}
        fresh = None if without else self.inspection.fresh()
        if fresh is not None and kind in own:
            own[kind] = fresh
        parts["game"] = TinyGame(**own)
        if fresh is not None and kind not in own:
            parts[kind] = (fresh,) if kind in LISTED else fresh
        train = Train(steps=1000, batch_size=8, ema=0.9, log_every=Interval(1))
        return Experiment(name="check", train=train, **parts)

    def build_experiment(self, experiment: Experiment) -> Training:
        """Builds a tiny training of an experiment, by the core's own build."""
        if self.inspection.kind != "game":
            return build(experiment, self.registry, places(), self.device)
        trial = partial(FirstUpdates, experiment=experiment, registry=self.registry)
        return build(experiment, self.registry, places(), self.device, make_trial=trial)

    def build(self, without: bool = False) -> Training:
        """Builds a new tiny training of an unused component under check."""
        return self.build_experiment(self.experiment(without))

    @property
    def every(self) -> int:
        """The interval of a tiny training, in updates, at which its component is due: a penalty's `every`, else 1."""
        return self.inspection.instance.every if self.inspection.kind == "penalty" else 1

    @property
    def length(self) -> int:
        """The steps of a tiny training, until everything was due twice, up to a limit.

        For a penalty with a long interval, and for a game whose moves begin later, they are more.
        """
        moves = [move.start + move.every + 1 for move in self.moves]
        return min(max(6, 2 * min(self.every, LONGEST_INTERVAL) + 2, *moves), LONGEST)

    def run_steps(self, training: Training, first: int, end: int) -> dict[str, Any]:
        """Takes the steps from `first` to `end` of a tiny training; returns a copy of what a checkpoint then holds."""
        for step in range(first, end):
            take_step(training, step)
        return copy.deepcopy(training_state(training, end))

    def completed(self) -> CompletedTraining:
        """Returns the tiny training, run to its end on first use, that all checks of a component share."""
        if self._completed is None:
            training = self.build()
            before = {
                name: copy.deepcopy(player.network.state_dict()) for name, player in training.game.players.items()
            }
            self._completed = CompletedTraining(training, before, self.run_steps(training, 0, self.length))
        return self._completed
