"""ganlab.testing.penalty."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from ganlab.protocols import ImageSpec, Step
from ganlab.testing.augmentation import SHAPES, _by, _unless_all
from ganlab.testing.inspection import (
    CPU,
    Fault,
    Inspection,
    Lines,
    check_scalar,
    compare_with_differences,
    finite,
    noise,
)
from ganlab.testing.scheduled_options import look_at_options
from ganlab.testing.tiny_components import (
    CLASSES,
    TinyClassifier,
    TinyDiscriminator,
    TinyGenerator,
)
from ganlab.testing.tiny_training import Shape, TinyGame, look_at_game
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.rng import seed_everything

PLAYERS = ("discriminator", "generator")


def check_penalty(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    declared = look("player and every: a player's name, and an interval of at least 1", lambda: _declares(inspection))
    scalar = look(
        "finite: a finite scalar, for images of 1 and 3 channels and 1, 2 and 7 of them",
        lambda: _penalty_is_finite(inspection, game),
        declared,
    )
    reached = look(
        "gradient: reaches the weights of its player", lambda: _penalty_has_gradient(inspection, game), scalar
    )
    look(
        "gradient: is right, by differences in float64",
        lambda: _penalty_gradient_is_right(inspection, game),
        reached,
    )
    look_at_options(inspection, game, look_at_game(inspection, game, scalar, reached, terms=True))


def _declares(inspection: Inspection) -> str:
    player, every = inspection.instance.player, inspection.instance.every
    if player not in PLAYERS:
        raise Fault(f"player is {player!r}, wanted 'generator' or 'discriminator'", inspection.line_of("player"))
    if type(every) is not int or every < 1:
        raise Fault(f"every is {every!r}, wanted a whole number of at least 1", inspection.line_of("every"))
    return f"the {player}'s, every {every} updates" if every > 1 else f"the {player}'s, in every update"


def _step(player: str, shape: Shape, count: int, dtype: torch.dtype = torch.float32, classifies: bool = False) -> Step:
    """What a penalty would see of a player's update in a game of tiny networks."""
    images = ImageSpec(*shape)
    seed_everything(1)
    generator = TinyGenerator().build(images).to(dtype)
    discriminator = (TinyClassifier() if classifies else TinyDiscriminator()).build(images).to(dtype)
    if player == "generator":
        discriminator.requires_grad_(False)
    real = torch.tanh(noise(count, *shape, seed=3, dtype=dtype))
    fake = generator(noise(count, 6, seed=4, dtype=dtype), None)
    fake = fake if player == "generator" else fake.detach()
    mine = player == "discriminator"
    return Step(
        player=player,
        generator=generator,
        discriminator=discriminator,
        real=real if mine else None,
        fake=fake,
        real_logits=discriminator(real, None) if mine else None,
        fake_logits=discriminator(fake, None),
        condition=torch.arange(count) % CLASSES,
        images_seen=torch.zeros((), dtype=torch.int64, device=CPU),
    )


def _penalty_is_finite(inspection: Inspection, game: TinyGame) -> str:
    refusals = []
    player, at = inspection.instance.player, inspection.line_of("penalty")
    cases = [(shape, count) for shape in SHAPES[:2] for count in (1, 2, 7)]
    game.classifies = _needs_classes(inspection)
    for shape, count in cases:
        try:
            with Lines(inspection.file) as lines:
                value = inspection.fresh().penalty(_step(player, shape, count, classifies=game.classifies))
        except ComponentError as error:
            refusals.append(f"refuses {count} images of {_by(shape)}: {one_line(error, limit=200)}")
            continue
        check_scalar(value, at)
        if not finite(value):
            raise Fault(f"is {value.item():g} for {count} images of {_by(shape)}", lines.not_finite or at)
    return _unless_all(refusals, len(cases))


def _needs_classes(inspection: Inspection) -> bool:
    """Whether it refuses a discriminator of bare logits."""
    try:
        inspection.fresh().penalty(_step(inspection.instance.player, SHAPES[0], 2))
    except ComponentError:
        return True
    return False


def _penalty_has_gradient(inspection: Inspection, game: TinyGame) -> None:
    player, at = inspection.instance.player, inspection.line_of("penalty")
    step = _step(player, (3, 8, 8), 7, classifies=game.classifies)
    for network in (step.generator, step.discriminator):
        network.requires_grad_(True)
    # With a graph that leads to the generator in either turn, so that what is reached instead can be told.
    value = inspection.fresh().penalty(step)
    reached = dict.fromkeys(PLAYERS, False)
    if value.requires_grad:
        for name in PLAYERS:
            weights = list(getattr(step, name).parameters())
            gradients = torch.autograd.grad(value, weights, allow_unused=True, retain_graph=True)
            reached[name] = any(gradient is not None and bool(gradient.any()) for gradient in gradients)
            if not all(map(finite, gradients)):
                raise Fault(f"its gradient at the {name}'s weights is not finite", at)
    if not reached[player]:
        other = next(name for name in PLAYERS if name != player)
        hint = f"; it reaches the {other}'s: is that its player?" if reached[other] else ""
        raise Fault(f"its gradient reaches no weight of the {player}, its player{hint}", at)


def _penalty_gradient_is_right(inspection: Inspection, game: TinyGame) -> str | None:
    player, at = inspection.instance.player, inspection.line_of("penalty")
    step = _step(player, (3, 8, 8), 5, torch.float64, game.classifies)
    z, real = noise(5, 6, seed=4, dtype=torch.float64), step.real

    def value() -> Tensor:
        fake = step.generator(z, None)
        fake = fake if player == "generator" else fake.detach()
        changed: dict[str, Any] = {"fake": fake, "fake_logits": step.discriminator(fake, None)}
        if real is not None:
            changed["real_logits"] = step.discriminator(real, None)
        penalty: Tensor = inspection.fresh().penalty(attrs.evolve(step, **changed))
        return penalty

    return compare_with_differences(value, list(getattr(step, player).parameters()), "the penalty", at)
