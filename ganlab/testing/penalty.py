"""The conformance checks of a penalty: its player and interval, a finite scalar, its gradient."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from ganlab.protocols import ImageSpec, Step
from ganlab.testing.check_result import Fault, summarize_refusals
from ganlab.testing.finite_differences import check_gradient
from ganlab.testing.fixed_inputs import CLASSES, IMAGE_SHAPES, PLAYERS, Shape, fixed_noise, shape_text
from ganlab.testing.inspection import Inspection
from ganlab.testing.line_tracer import LineTracer
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.tensor_checks import check_scalar, is_finite
from ganlab.testing.tiny_components import TinyClassifier, TinyDiscriminator, TinyGenerator
from ganlab.testing.tiny_training import CPU, TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.rng import seed_everything

SHAPES = IMAGE_SHAPES[:2]


def check_penalty(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a penalty."""
    run_check = inspection.run_check
    declared = run_check(
        "player and every: a player's name, and an interval of at least 1", lambda: _check_declaration(inspection)
    )
    scalar = run_check(
        "finite: a finite scalar, for images of 1 and 3 channels and batches of 1, 2 and 7",
        lambda: _check_finite(inspection, tiny),
        declared,
    )
    reached = run_check(
        "gradient: reaches the weights of its player", lambda: _check_gradient_reaches(inspection, tiny), scalar
    )
    run_check(
        "gradient: agrees with finite differences in float64",
        lambda: _check_gradient_value(inspection, tiny),
        reached,
    )
    check_scheduled_options(inspection, tiny, run_training_checks(inspection, tiny, scalar, reached, stateful=True))


def _check_declaration(inspection: Inspection) -> str:
    """Checks that a penalty declares a player's name and an interval of at least 1 update."""
    player, every = inspection.instance.player, inspection.instance.every
    if player not in PLAYERS:
        raise Fault(f"player is {player!r}, expected 'generator' or 'discriminator'", inspection.line_of("player"))
    if type(every) is not int or every < 1:
        raise Fault(f"every is {every!r}, expected a whole number of at least 1", inspection.line_of("every"))
    return f"the {player}'s, every {every} updates" if every > 1 else f"the {player}'s, in every update"


def _step(player: str, shape: Shape, count: int, dtype: torch.dtype = torch.float32, classifies: bool = False) -> Step:
    """Returns the `Step` that a penalty under check is called with, of one player's update of tiny networks."""
    images = ImageSpec(*shape)
    seed_everything(1)
    generator = TinyGenerator().build(images).to(dtype)
    discriminator = (TinyClassifier() if classifies else TinyDiscriminator()).build(images).to(dtype)
    if player == "generator":
        discriminator.requires_grad_(False)
    real = torch.tanh(fixed_noise(count, *shape, seed=3, dtype=dtype))
    latents = fixed_noise(count, 6, seed=4, dtype=dtype)
    fake = generator(latents, None)
    fake = fake if player == "generator" else fake.detach()
    has_real = player == "discriminator"
    return Step(
        player=player,
        networks={"generator": generator, "discriminator": discriminator},
        real=real,
        fake=fake,
        real_logits=discriminator(real, None) if has_real else None,
        fake_logits=discriminator(fake, None),
        condition=torch.arange(count) % CLASSES,
        images_seen=torch.zeros((), dtype=torch.int64, device=CPU),
        latents=latents,
        judged_by="discriminator",
        generated_by="generator",
    )


def _check_finite(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks that a penalty is a finite scalar for images of several shapes and batches of several sizes."""
    refusals = []
    player, at = inspection.instance.player, inspection.line_of("penalty")
    cases = [(shape, count) for shape in SHAPES for count in (1, 2, 7)]
    tiny.classifies = _needs_classes(inspection)
    for shape, count in cases:
        try:
            with LineTracer(inspection.file) as lines:
                value = inspection.fresh().penalty(_step(player, shape, count, classifies=tiny.classifies))
        except ComponentError as error:
            refusals.append(f"refuses {count} images of {shape_text(shape)}: {one_line(error, limit=200)}")
            continue
        check_scalar(value, at)
        if not is_finite(value):
            raise Fault(f"is {value.item():g} for {count} images of {shape_text(shape)}", lines.not_finite or at)
    return summarize_refusals(refusals, len(cases))


def _needs_classes(inspection: Inspection) -> bool:
    """Whether the penalty under check refuses a discriminator without class logits."""
    try:
        inspection.fresh().penalty(_step(inspection.instance.player, SHAPES[0], 2))
    except ComponentError:
        return True
    return False


def _check_gradient_reaches(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that a penalty's gradient reaches its player's weights and is finite."""
    player, at = inspection.instance.player, inspection.line_of("penalty")
    step = _step(player, (3, 8, 8), 7, classifies=tiny.classifies)
    for network in (step.generator, step.discriminator):
        network.requires_grad_(True)
    # With a graph that leads to both networks in either turn, so that the fault can name the one that is reached.
    value = inspection.fresh().penalty(step)
    reached = dict.fromkeys(PLAYERS, False)
    if value.requires_grad:
        for name in PLAYERS:
            weights = list(getattr(step, name).parameters())
            gradients = torch.autograd.grad(value, weights, allow_unused=True, retain_graph=True)
            reached[name] = any(gradient is not None and bool(gradient.any()) for gradient in gradients)
            if not all(map(is_finite, gradients)):
                raise Fault(f"its gradient with respect to the {name}'s weights is not finite", at)
    if not reached[player]:
        other = next(name for name in PLAYERS if name != player)
        hint = f"; it reaches the {other}'s: is that its player?" if reached[other] else ""
        raise Fault(f"its gradient reaches no weight of the {player}, its player{hint}", at)


def _check_gradient_value(inspection: Inspection, tiny: TinyTraining) -> str | None:
    """Checks a penalty's gradient with respect to its player's weights against finite differences."""
    player, at = inspection.instance.player, inspection.line_of("penalty")
    step = _step(player, (3, 8, 8), 5, torch.float64, tiny.classifies)
    z, real = fixed_noise(5, 6, seed=4, dtype=torch.float64), step.real

    def value() -> Tensor:
        fake = step.generator(z, None)
        fake = fake if player == "generator" else fake.detach()
        changed: dict[str, Any] = {"fake": fake, "fake_logits": step.discriminator(fake, None)}
        if real is not None:
            changed["real_logits"] = step.discriminator(real, None)
        penalty: Tensor = inspection.fresh().penalty(attrs.evolve(step, **changed))
        return penalty

    return check_gradient(value, list(getattr(step, player).parameters()), "the penalty", at)
