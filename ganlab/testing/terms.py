"""What a loss, a loss wrapper, a penalty and an augmentation are checked for: the terms of the game."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from ganlab.checkpoint import from_bytes, to_bytes
from ganlab.errors import ComponentError, one_line
from ganlab.protocols import ImageSpec, Loss, Step, TargetedLoss
from ganlab.rng import seed_everything
from ganlab.testing.checks import (
    CPU,
    Check,
    Fault,
    Inspection,
    Lines,
    check_scalar,
    compare_with_differences,
    difference,
    draws,
    finite,
    noise,
)
from ganlab.testing.game import Shape, TinyGame, look_at_game
from ganlab.testing.moved import look_at_options
from ganlab.testing.tiny import CLASSES, PlainLoss, TinyClassifier, TinyDiscriminator, TinyGenerator, TinyLoss

BATCHES = (1, 2, 7, 64)
SPREADS = (0.0, 1.0, 10.0, 100.0)
SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32))

OBSERVED = 1000
"""Batches of 1,024 logits that an augmentation is shown."""

PLAYERS = ("discriminator", "generator")


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


def check_loss_wrapper(inspection: Inspection, game: TinyGame) -> None:
    wraps = inspection.look("wraps: a loss in, a loss out", lambda: _wraps(inspection))
    sound = look_at_loss(inspection, lambda: inspection.fresh()(TinyLoss()), wraps)
    look_at_options(inspection, game, look_at_game(inspection, game, wraps, *sound, terms=True))


def _wraps(inspection: Inspection) -> str:
    at = inspection.line_of("__call__")
    refusals = []
    for loss, which in ((TinyLoss(), "a loss with label targets"), (PlainLoss(), "a loss without label targets")):
        try:
            wrapped = inspection.fresh()(loss)
        except ComponentError as error:
            refusals.append(f"refuses {which}: {one_line(error, limit=200)}")
            continue
        if not isinstance(wrapped, Loss):
            raise Fault(f"gives {type(wrapped).__name__} for {which}, which is no loss", at)
    if len(refusals) == 2:
        raise ComponentError("; ".join(refusals))
    return "; ".join(refusals)


# ---------------------------------------------------------------------------------------------------------------------
# Penalties
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# Augmentations
# ---------------------------------------------------------------------------------------------------------------------


def check_augmentation(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    shaped = look(
        f"shape: finite images of the shape given, for {', '.join(map(_by, SHAPES))} and 1, 2 and 7 of them",
        lambda: _augments(inspection, game),
    )
    kept = look("images: what it is given stays as it was", lambda: _leaves_images(inspection, game), shaped)
    alone = look(
        "each image by itself: none changes with another one", lambda: _each_by_itself(inspection, game), shaped
    )
    reached = look("gradient: goes through to the images", lambda: _augmentation_has_gradient(inspection, game), shaped)
    look(
        "gradient: is right, by differences in float64",
        lambda: _augmentation_gradient_is_right(inspection, game),
        reached,
    )
    sound = [shaped, kept, alone, reached]
    if hasattr(inspection.instance, "observe") or hasattr(inspection.instance, "measures"):
        sound += [
            look(
                "observe, measures: what it learns of logits is in its state, what it tells are scalars",
                lambda: _observes(inspection, game),
                shaped,
            )
        ]
    look_at_options(inspection, game, look_at_game(inspection, game, *sound, terms=True))


def _images(shape: Shape, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tanh(noise(count, *shape, seed=5, dtype=dtype))


def _augments(inspection: Inspection, game: TinyGame) -> str:
    at = inspection.line_of("augment")
    refused, taken = [], []
    for shape in SHAPES:
        for count in (1, 2, 7):
            images = _images(shape, count)
            try:
                with Lines(inspection.file) as lines:
                    made = inspection.fresh().augment(images)
            except ComponentError as error:
                refused.append(f"refuses {count} images of {_by(shape)}: {one_line(error, limit=200)}")
                continue
            if not isinstance(made, Tensor) or made.shape != images.shape or made.dtype != images.dtype:
                got = f"{made.dtype} {tuple(made.shape)}" if isinstance(made, Tensor) else type(made).__name__
                raise Fault(f"gives {got} for images float32 {tuple(images.shape)}", at)
            if not finite(made):
                raise Fault(f"gives NaN or infinity for {count} images of {_by(shape)}", lines.not_finite or at)
            taken.append(shape)
    if taken and game.shape not in taken:
        game.shape = taken[0]
    return _unless_all(refused, 3 * len(SHAPES))


def _leaves_images(inspection: Inspection, game: TinyGame) -> None:
    images = _images(game.shape, 7)
    inspection.fresh().augment(images)
    if not torch.equal(images, _images(game.shape, 7)):
        raise Fault("changes the images that it is given, in place", inspection.line_of("augment"))


def _each_by_itself(inspection: Inspection, game: TinyGame) -> None:
    images = _images(game.shape, 6)
    images[3:] = torch.nan
    seed_everything(0)
    if not finite(inspection.fresh().augment(images)[:3]):
        at = inspection.line_of("augment")
        raise Fault("images change with others of their batch: NaN in three of six reaches the rest", at)


def _augmentation_has_gradient(inspection: Inspection, game: TinyGame) -> None:
    at = inspection.line_of("augment")
    images = _images(game.shape, 7).requires_grad_()
    seed_everything(0)
    made = inspection.fresh().augment(images * 1)
    if not made.requires_grad:
        raise Fault("has no gradient: what it gives is detached from the images", at)
    (gradient,) = torch.autograd.grad((made * noise(*made.shape, seed=6)).sum(), images, allow_unused=True)
    if gradient is None or not gradient.any():
        raise Fault("has no gradient: it is 0 for every pixel, so that the generator learns nothing through it", at)
    if not finite(gradient):
        raise Fault("its gradient is not finite", at)


def _augmentation_gradient_is_right(inspection: Inspection, game: TinyGame) -> str | None:
    images = _images(game.shape, 4, torch.float64)
    weights = noise(*images.shape, seed=6, dtype=torch.float64)

    def value() -> Tensor:
        made: Tensor = inspection.fresh().augment(images * 1)
        return (made * weights).sum()

    return compare_with_differences(value, [images], "what it does to images", inspection.line_of("augment"))


def _observes(inspection: Inspection, game: TinyGame) -> None:
    learnt, other = inspection.fresh(), inspection.fresh()
    at = inspection.line_of("observe")
    if hasattr(learnt, "observe"):
        logits = noise(1024, seed=7).abs()  # so many that the slowest to learn has learnt that all look real
        for _ in range(OBSERVED):
            learnt.observe(logits)
        if not torch.equal(logits, noise(1024, seed=7).abs()):
            raise Fault("changes the logits that it is given, in place", at)
    if hasattr(learnt, "state_dict"):
        other.load_state_dict(from_bytes(to_bytes(learnt.state_dict())))
    told: list[Any] = []
    for part in (learnt, other):
        seed_everything(0)
        measures = part.measures() if hasattr(part, "measures") else {}
        for name, value in measures.items():
            if not isinstance(name, str):
                raise Fault(f"measures {name!r}, wanted a name", inspection.line_of("measures"))
            check_scalar(value, inspection.line_of("measures"))
        told.append({"images": part.augment(_images(game.shape, 7)), **measures})
    if where := difference(told[0], told[1]):
        raise Fault(
            f"a fresh one with its state differs in {where} after {OBSERVED:,} batches of logits were observed: give "
            "what is learnt of them in state_dict() and take it in load_state_dict()",
            at,
        )


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _unless_all(refusals: list[str], cases: int) -> str:
    """What was refused, in words; where everything was, that is no check that passed."""
    if len(refusals) == cases:
        raise ComponentError(refusals[0])
    return "; ".join(dict.fromkeys(refusals))
