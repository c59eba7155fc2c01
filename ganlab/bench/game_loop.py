"""The baseline "by hand" of `ganlab bench` for games that are not the default: the plain loop that a game has itself.

Decisions:
- A game has it as the method `plain_step`, since the core knows no game: it is given networks, optimisers and batches,
  and returns a function that takes a step of the same arithmetic, without any of ganlab.
- Networks and optimisers are copies of ganlab's at step 0: the same weights, memory format and dropout.
- On CUDA the plain loop is not captured as a graph.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.config.schema import Experiment
from ganlab.data.loader import BatchLoader
from ganlab.data.pixels import as_input
from ganlab.protocols import Batch, map_condition
from ganlab.training.loop import Training
from ganlab.utils.capturable import expect_eager_steps
from ganlab.utils.errors import UserError, quote
from ganlab.utils.rng import derived_seed, seed_everything


def plain_game_step(experiment: Experiment, training: Training) -> tuple[Callable[[], None], Mapping[str, nn.Module]]:
    """Returns a function that takes one step of a game's plain loop, and the networks that it trains.

    It is to be called before the first step of `training`.
    """
    game = training.game
    players = {name: player.optimizer for name, player in game.players.items()}
    # Copied together, so that the optimisers have the copies' parameters.
    networks, optimizers = copy.deepcopy((dict(game.networks), players))
    for optimizer in optimizers.values():
        expect_eager_steps(optimizer)
    main, streams = _batches(training.loader.main), {n: _batches(of) for n, of in training.loader.streams.items()}

    def next_batch() -> Batch:
        batch = next(main)
        return Batch(batch.images, batch.condition, {name: next(of) for name, of in streams.items()})

    seed_everything(derived_seed(experiment.seed, "training"))
    config: Any = training.game_config
    plain: Callable[[], None] = config.plain_step(networks, optimizers, next_batch)

    def step() -> None:
        with torch.autocast(game.device.type, dtype=game.autocast, enabled=game.autocast is not None):
            plain()

    return step, networks


def check_plain_options(experiment: Experiment, training: Training) -> None:
    """Raises UserError for what a game's plain loop does without."""
    players = training.game.players.values()
    without = {
        "penalty": [name for player in players for name, _ in player.penalties],
        "augmentation": list(experiment.augmentation),
        "clip_norm": [player.name for player in players if player.clip_norm is not None],
        "train.ema": [True] if training.ema is not None else [],
    }
    if used := [option for option, values in without.items() if values]:
        raise UserError(
            f"{used[0]}: the plain loop of a game does without it; ganlab bench needs an experiment without"
        )


def check_game(name: str, game: Any) -> None:
    """Raises UserError for a game, called `name`, that has no plain loop."""
    if not callable(getattr(game, "plain_step", None)):
        raise UserError(f"game: {quote(name)} has no plain loop to compare with, which is its method `plain_step`")


def _batches(loader: BatchLoader) -> Iterator[Batch]:
    """Yields the batches of a game's data set, epoch after epoch, in the order of ganlab's, by gathers of rows."""
    size = loader.batch_size
    for epoch in itertools.count():
        generator = torch.Generator().manual_seed(derived_seed(loader.seed, "order", epoch))
        order = torch.randperm(len(loader.images), generator=generator).to(loader.images.device)
        for rows in order[: loader.batches_per_epoch * size].split(size):

            def given(part: Tensor, rows: Tensor = rows) -> Tensor:
                return as_input(part[rows].to(loader.device))

            yield Batch(given(loader.images), map_condition(given, loader.condition))
