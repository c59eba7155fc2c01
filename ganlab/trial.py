"""What a penalty would see of a first update, made of a few images before there is a run folder: so that it may refuse.

Decisions:
- Authors declare nothing: whether a penalty can work with an experiment's networks and data is found by calling it.
- Copies are tried: no state, statistic or weight of what trains is touched. The random numbers that a trial draws are
  of no account, since the training's stream starts after it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from ganlab import ranks
from ganlab.data import Batch
from ganlab.phases import Game, frozen_parameters
from ganlab.protocols import Step


def first_steps(game: Game, real: Batch) -> Iterator[Step]:
    """What penalties see of each player's first update on these images: the discriminator's, then the generator's.

    Only of a player that has penalties. A step must be done with before the next one is asked for.
    """
    if not any(player.penalties for player in game.players):
        return
    tried = copy.deepcopy(game)
    tried.batch_size = len(real.images) * ranks.world()
    condition = real.condition

    def step(player: str, shown: Tensor | None, fake: Tensor) -> Step:
        on_real = None if shown is None else tried.judged(shown, condition)
        on_fake = tried.judged(fake, condition)
        networks = tried.generator.network, tried.discriminator.network
        return Step(player, *networks, shown, fake, on_real, on_fake, condition, tried.images_seen)

    if game.discriminator.penalties:
        with torch.no_grad():
            fake = next(tried.fakes([real]))
        yield step("discriminator", real.images, fake)
    if game.generator.penalties:
        with frozen_parameters(tried.discriminator.network):
            yield step("generator", real.images if game.uses_real else None, next(tried.fakes([real])))
