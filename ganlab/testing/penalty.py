"""The conformance checks of a penalty: its player and interval, a finite scalar, its gradient."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from ganlab.testing.check_result import Fault, summarize_refusals
from ganlab.testing.finite_differences import check_gradient
from ganlab.testing.fixed_inputs import shape_text
from ganlab.testing.inspection import Inspection
from ganlab.testing.line_tracer import LineTracer
from ganlab.testing.network_conditions import network_inputs
from ganlab.testing.penalty_networks import PenaltyNetworks, choose_networks, is_tiny
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.tensor_checks import check_kept, check_scalar, is_finite, tensor_versions
from ganlab.testing.tiny_game import GENERATES, JUDGES
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.utils.errors import ComponentError, one_line

PLAYERS = (JUDGES, GENERATES)
"""The players of the tiny game, in the order in which they are checked."""

INPUTS = ("real", "fake", "real_logits", "fake_logits", "latents", "condition")
"""What a step has that a penalty must not change in place."""

IMAGES_SEEN = (0, 64, 10**4, 10**6, 10**9)
"""The `images_seen` of the calls in which a penalty may begin to have a gradient."""


def check_penalty(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a penalty."""
    run_check = inspection.run_check
    declared = run_check(
        "player and every: a player's name, and an interval of at least 1", lambda: _check_declaration(inspection)
    )
    chosen: list[PenaltyNetworks] = []

    def finite() -> str:
        chosen.append(choose_networks(inspection.fresh, inspection.instance.player, tiny))
        return _check_finite(inspection, chosen[0])

    scalar = run_check(
        "finite: a finite scalar, for images of 1 and 3 channels and batches of 1, 2 and 7", finite, declared
    )
    reached = run_check(
        "gradient: reaches the weights of its player", lambda: _check_gradient_reaches(inspection, chosen[0]), scalar
    )
    run_check(
        "gradient: agrees with finite differences in float64",
        lambda: _check_gradient_value(inspection, chosen[0]),
        reached,
    )
    check_scheduled_options(inspection, tiny, run_training_checks(inspection, tiny, scalar, reached, stateful=True))


def _check_declaration(inspection: Inspection) -> str:
    """Checks that a penalty declares a player's name and an interval of at least 1 update."""
    player, every = inspection.instance.player, inspection.instance.every
    if player not in PLAYERS:
        expected = f"expected {GENERATES!r} or {JUDGES!r}"
        raise Fault(f"player is {player!r}, {expected}", inspection.line_of("player"))
    if type(every) is not int or every < 1:
        raise Fault(f"every is {every!r}, expected a whole number of at least 1", inspection.line_of("every"))
    return f"the {player}'s, every {every} updates" if every > 1 else f"the {player}'s, in every update"


def _check_finite(inspection: Inspection, networks: PenaltyNetworks) -> str:
    """Checks that a penalty is a finite scalar for images of several shapes and batches of several sizes.

    Also that it changes nothing in place that the step has.
    """
    refusals = []
    player, at = inspection.instance.player, inspection.line_of("penalty")
    cases = [(shape, count) for shape in networks.shapes for count in networks.counts]
    for shape, count in cases:
        try:
            with LineTracer(inspection.file) as lines:
                step = networks.step(player, shape, count)
                inputs = {f"step.{name}": getattr(step, name) for name in INPUTS}
                before = tensor_versions(inputs)
                value = inspection.fresh().penalty(step)
        except ComponentError as error:
            refusals.append(f"refuses {count} images of {shape_text(shape)}: {one_line(error, limit=200)}")
            continue
        check_kept(inputs, before, at)
        check_scalar(value, at)
        if not is_finite(value):
            raise Fault(f"is {value.item():g} for {count} images of {shape_text(shape)}", lines.not_finite or at)
    own = [type(config).__name__ for config in networks.configs.values() if not is_tiny(config)]
    notes = [summarize_refusals(refusals, len(cases)), f"checked with {' and '.join(own)}" if own else ""]
    return "; ".join(filter(None, notes))


def _check_gradient_reaches(inspection: Inspection, networks: PenaltyNetworks) -> None:
    """Checks that a penalty's gradient reaches its player's weights and is finite.

    The weight of a penalty may begin at 0, and grow with its state or with the images seen. The gradient must be finite
    for a discriminator too whose logits are all 0, and so their gradient, as a square root's is not.
    """
    player, at = inspection.instance.player, inspection.line_of("penalty")
    if is_tiny(networks.configs[JUDGES]):
        step = networks.step(player, networks.largest, 7, zeros=True)
        weights = list(step.networks[player].requires_grad_(True).parameters())
        value = inspection.fresh().penalty(step)
        if value.requires_grad and not all(map(is_finite, torch.autograd.grad(value, weights, allow_unused=True))):
            raise Fault(f"its gradient with respect to the {player}'s weights is not finite where all logits are 0", at)
    penalty = inspection.fresh()
    reached = dict.fromkeys(PLAYERS, False)
    for images_seen in IMAGES_SEEN:
        step = networks.step(player, networks.largest, 7, images_seen=images_seen)
        for network in step.networks.values():
            network.requires_grad_(True)
        # With a graph that leads to both networks in either turn, so that the fault can name the one that is reached.
        value = penalty.penalty(step)
        if value.requires_grad:
            for name in PLAYERS:
                weights = list(step.networks[name].parameters())
                gradients = torch.autograd.grad(value, weights, allow_unused=True, retain_graph=True)
                reached[name] |= any(gradient is not None and bool(gradient.any()) for gradient in gradients)
                if not all(map(is_finite, gradients)):
                    raise Fault(f"its gradient with respect to the {name}'s weights is not finite", at)
        if reached[player]:
            return
    other = next(name for name in PLAYERS if name != player)
    hint = f"; it reaches the {other}'s: is that its player?" if reached[other] else ""
    raise Fault(f"its gradient reaches no weight of the {player}, its player{hint}", at)


def _check_gradient_value(inspection: Inspection, networks: PenaltyNetworks) -> str | None:
    """Checks a penalty's gradient with respect to its player's weights against finite differences."""
    player, at = inspection.instance.player, inspection.line_of("penalty")
    shape = networks.largest
    step = networks.step(player, shape, 5, torch.float64)
    generate, judge = (step.networks[name] for name in (GENERATES, JUDGES))
    z, real = network_inputs(generate, shape, 5, torch.float64, seed=4), step.real

    def value() -> Tensor:
        fake = generate(z, step.condition)
        fake = fake.detach() if player == JUDGES else fake
        changed: dict[str, Any] = {"fake": fake, "fake_logits": judge(fake, step.condition)}
        if step.real_logits is not None:
            changed["real_logits"] = judge(real, step.condition)
        penalty: Tensor = inspection.fresh().penalty(attrs.evolve(step, **changed))
        return penalty

    weights = list(step.networks[player].parameters())
    return check_gradient(value, weights, "the penalty", at, stopped=inspection.stops_gradient)
