"""What a loss, a loss wrapper, a penalty and an augmentation are checked for: the terms of the game."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ganlab.protocols import Loss, TargetedLoss
from ganlab.testing.inspection import (
    Check,
    Fault,
    Inspection,
    Lines,
    check_scalar,
    compare_with_differences,
    draws,
    finite,
    noise,
)
from ganlab.testing.penalty import PLAYERS
from ganlab.testing.scheduled_options import look_at_options
from ganlab.testing.tiny_training import TinyGame, look_at_game

BATCHES = (1, 2, 7, 64)
SPREADS = (0.0, 1.0, 10.0, 100.0)


# ---------------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------------


def check_loss(inspection: Inspection, game: TinyGame) -> None:
    sound = look_at_loss(inspection, inspection.fresh)
    if isinstance(inspection.instance, TargetedLoss):
        inspection.look(
            "label targets: with_targets() changes the discriminator's loss and not the generator's",
            lambda: _targets(inspection),
            *sound,
        )
    look_at_options(inspection, game, look_at_game(inspection, game, *sound, terms=True))


def look_at_loss(inspection: Inspection, make: Callable[[], Loss], *after: Check) -> list[Check]:
    """The checks of a loss's arithmetic; gives those that a game rests on."""
    look = inspection.look
    finite_ = look(
        "finite: both losses are finite scalars, for 1 to 64 logits of up to a few hundred",
        lambda: _loss_is_finite(inspection, make),
        *after,
    )
    reached = look(
        "gradient: reaches the logits of both players", lambda: _loss_has_gradient(inspection, make), finite_
    )
    look(
        "gradient: is right, by differences in float64",
        lambda: _loss_gradient_is_right(inspection, make),
        reached,
    )
    still = look(
        "randomness: no global random state is changed", lambda: _loss_draws_nothing(inspection, make), finite_
    )
    return [finite_, reached, still]


def _loss_is_finite(inspection: Inspection, make: Callable[[], Loss]) -> None:
    for player in PLAYERS:
        for count in BATCHES:
            for spread in SPREADS:
                loss = make()
                at = inspection.line_of(player, loss)
                real, fake = (spread * noise(count, seed=seed) for seed in (1, 2))
                with Lines(inspection.file) as lines:
                    value = getattr(loss, player)(real, fake)
                check_scalar(value, at)
                if not finite(value):
                    of = f"{count} logits {'of 0' if not spread else f'with a standard deviation of {spread:g}'}"
                    raise Fault(f"the {player}'s loss of {of} is {value.item():g}", lines.not_finite or at)


def _loss_has_gradient(inspection: Inspection, make: Callable[[], Loss]) -> None:
    for player, needed in (("discriminator", ("real", "fake")), ("generator", ("fake",))):
        loss = make()
        at = inspection.line_of(player, loss)
        logits = {name: noise(16, seed=seed).requires_grad_() for seed, name in enumerate(("real", "fake"), 1)}
        value = getattr(loss, player)(logits["real"], logits["fake"])
        if not value.requires_grad:
            raise Fault(f"the {player}'s loss has no gradient: it is detached from the logits", at)
        gradients = torch.autograd.grad(value, list(logits.values()), allow_unused=True)
        for name, gradient in zip(logits, gradients, strict=True):
            if name in needed and (gradient is None or not gradient.any()):
                raise Fault(f"the {player}'s loss has no gradient at the logits of {name} images", at)
            if gradient is not None and not finite(gradient):
                raise Fault(f"the gradient of the {player}'s loss at the logits of {name} images is not finite", at)


def _loss_gradient_is_right(inspection: Inspection, make: Callable[[], Loss]) -> str | None:
    note = None
    for player in PLAYERS:
        logits = [noise(7, seed=seed, dtype=torch.float64) for seed in (1, 2)]
        at = inspection.line_of(player, make())
        note = compare_with_differences(
            lambda player=player, logits=logits: getattr(make(), player)(*logits),  # type: ignore[misc]
            logits,
            f"the {player}'s loss",
            at,
        )
    return note


def _loss_draws_nothing(inspection: Inspection, make: Callable[[], Loss]) -> None:
    for player in PLAYERS:
        loss = make()
        with Lines(inspection.file) as lines:
            whose = draws(partial(getattr(loss, player), noise(8, seed=1), noise(8, seed=2)))
        if whose:
            at = lines.random or inspection.line_of(player, loss)
            raise Fault(f"the {player}'s loss draws {whose} global random numbers", at)


def _targets(inspection: Inspection) -> None:
    at = inspection.line_of("with_targets")
    real, fake = noise(8, seed=1), noise(8, seed=2)
    plain, other = inspection.fresh(), inspection.fresh().with_targets(real=0.7, fake=0.2)
    if not isinstance(other, TargetedLoss):
        raise Fault(f"with_targets() gives {type(other).__name__}, which is no loss with label targets", at)
    if torch.equal(plain.discriminator(real, fake), other.discriminator(real, fake)):
        raise Fault("with_targets(real=0.7, fake=0.2) leaves the discriminator's loss as it was", at)
    if not torch.equal(plain.generator(real, fake), other.generator(real, fake)):
        raise Fault("with_targets(real=0.7, fake=0.2) changes the generator's loss", at)


# ---------------------------------------------------------------------------------------------------------------------
# Penalties
# ---------------------------------------------------------------------------------------------------------------------


# ---------------------------------------------------------------------------------------------------------------------
# Augmentations
# ---------------------------------------------------------------------------------------------------------------------
