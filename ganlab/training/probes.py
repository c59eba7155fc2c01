"""What a penalty would see of a first update, made of a few images before there is a run folder: so that it may refuse.

Decisions:
- Authors declare nothing: whether a penalty can work with an experiment's networks and data is found by calling it.
- Copies are tried: no state, statistic or weight of what trains is touched. The random numbers that a trial draws are
  of no account, since the training's stream starts after it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.data.batch import Batch
from ganlab.nn.modes import evaluating, frozen_parameters
from ganlab.nn.outputs import logits
from ganlab.protocols import ImageSpec, Step, batch_independent
from ganlab.training.game import Game
from ganlab.training.update import _changeable, step_unless
from ganlab.utils import distributed
from ganlab.utils.errors import UserError


def first_steps(game: Game, real: Batch) -> Iterator[Step]:
    """What penalties see of each player's first update on these images: the discriminator's, then the generator's.

    Only of a player that has penalties. A step must be done with before the next one is asked for.
    """
    if not any(player.penalties for player in game.players):
        return
    tried = copy.deepcopy(game)
    tried.batch_size = len(real.images) * distributed.world_size()
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


class _Looked(Exception):
    """Somebody used a tensor that tells of it."""


class _Telling(Tensor):
    """A tensor that raises where anything is done with it."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> Any:
        raise _Looked


def looks_at_condition(network: nn.Module, given: Tensor, condition: Tensor) -> bool:
    """Whether a network does anything with its condition. Not whether that changes what it gives: at first it may not.

    `given` are latents or images.
    """
    try:
        with torch.no_grad():
            copy.deepcopy(network)(given, condition.as_subclass(_Telling))
    except _Looked:
        return True
    return False


def leaves_no_trace(build: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], network: nn.Module) -> bool:
    """Whether an update that is stopped changes nothing of the later ones of the optimisers that `build` makes.

    A copy of the network with stopped updates, the first among them, is held against one without them, to the bit. What
    counts its updates in Python, or begins with anything but zeros, is found so.
    """
    ends = []
    for course in ((True, False, True, True, False), (False, False)):
        twin = copy.deepcopy(network)
        optimizer = build(twin.parameters())
        for stop in course:
            for parameter in twin.parameters():
                parameter.grad = torch.full_like(parameter, 0.5 if stop else 0.25)
            device = next(twin.parameters()).device
            step_unless(torch.full((), stop, device=device), optimizer)
        ends.append(_changeable(optimizer))
    one, other = ends
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def _check_shapes(
    generator: nn.Module, discriminator: nn.Module, z: Tensor, images: ImageSpec, condition: Tensor | None
) -> Tensor:
    """One small pass through both networks, so that a wrong shape is found before a step is taken; the images made."""
    wanted = (len(z), images.channels, images.height, images.width)
    with evaluating(generator), evaluating(discriminator):
        made: Tensor = generator(z, condition)
        if tuple(made.shape) != wanted:
            raise UserError(f"generator: makes images of shape {tuple(made.shape)}; the data set's are {wanted}")
        output = discriminator(made, condition)
        if batch_independent(discriminator) and not isinstance(output, Tensor):
            raise UserError(
                f"discriminator: batch_independent is True, and it returns {type(output).__name__}; expected a tensor "
                "of logits"
            )
        judged = logits(output)
        if judged.shape != (len(z),):
            raise UserError(
                f"discriminator: gives logits of shape {tuple(judged.shape)} for {len(z)} images; expected ({len(z)},)"
            )
    return made
