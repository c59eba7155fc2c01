"""The conformance checks of a loss: finite values, gradients, no randomness, label targets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from ganlab.plugin.failures import CatchPluginErrors
from ganlab.plugin.kinds import KINDS
from ganlab.protocols import Loss, TargetedLoss, generator_uses_real
from ganlab.testing.check_result import Check, Fault
from ganlab.testing.finite_differences import check_gradient
from ganlab.testing.fixed_inputs import fixed_noise
from ganlab.testing.global_randomness import global_generators_used
from ganlab.testing.inspection import Inspection
from ganlab.testing.line_tracer import LineTracer
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.tensor_checks import check_kept, check_scalar, is_finite, tensor_versions
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.utils.errors import ComponentError, error_text, one_line

BATCH_SIZES = (1, 2, 7, 64)
SPREADS = (0.0, 1.0, 10.0, 100.0)
PLAYERS = KINDS["loss"].members
"""The methods of a loss, each of which is a player's objective."""

MOVING_CALLS = 20
"""How often a loss is called to move its state, if it has one."""


def check_loss(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a loss."""
    sound = check_arithmetic(inspection, inspection.fresh)
    if isinstance(inspection.instance, TargetedLoss):
        inspection.run_check(
            "label targets: with_targets() changes the discriminator's loss and not the generator's",
            lambda: _check_label_targets(inspection),
            *sound,
        )
    check_scheduled_options(inspection, tiny, run_training_checks(inspection, tiny, *sound, stateful=True))


def check_arithmetic(
    inspection: Inspection, make: Callable[[], Loss], *after: Check, others: Sequence[Callable[[], Loss]] = ()
) -> list[Check]:
    """Runs the conformance checks of the arithmetic of a loss, or of a wrapped one, each on a new one of `make`.

    `others` make further losses, of which only `generator_uses_real` is checked. Returns the checks that a tiny
    training depends on.
    """
    run_check = inspection.run_check
    finite = run_check(
        "finite: both losses are finite scalars, for 1 to 64 logits of up to a few hundred",
        lambda: _check_finite(inspection, make),
        *after,
    )
    reached = run_check(
        "gradient: reaches the logits of both players", lambda: _check_gradient_reaches(inspection, make), finite
    )
    run_check(
        "gradient: agrees with finite differences in float64",
        lambda: _check_gradient_value(inspection, make),
        reached,
    )
    still = run_check(
        "randomness: no global random state is changed", lambda: _check_randomness(inspection, make), finite
    )
    declared = run_check(
        "real logits: without them the generator's loss is the same where generator_uses_real is False",
        lambda: _check_all_use_real(inspection, make, others),
        finite,
    )
    return [finite, reached, still, declared]


def _check_finite(inspection: Inspection, make: Callable[[], Loss]) -> str:
    """Checks that both players' losses are finite scalars, for few and many logits and for large ones.

    Also that the logits are not changed in place, and that its `measures` are scalars by name.
    """
    for player in PLAYERS:
        for count in BATCH_SIZES:
            for spread in SPREADS:
                loss = make()
                at = inspection.line_of(player, loss)
                real, fake = (spread * fixed_noise(count, seed=seed) for seed in (1, 2))
                logits = {"the real logits": real, "the fake logits": fake}
                before = tensor_versions(logits)
                with LineTracer(inspection.file) as lines:
                    value = getattr(loss, player)(real, fake)
                check_kept(logits, before, at)
                check_scalar(value, at)
                if not is_finite(value):
                    of = f"{count} logits {'of 0' if not spread else f'with a standard deviation of {spread:g}'}"
                    raise Fault(f"the {player}'s loss of {of} is {value.item():g}", lines.not_finite or at)
    _check_measures(inspection, make())
    return _note_of_maps(make)


def _check_measures(inspection: Inspection, loss: Any) -> None:
    """Checks that a loss's `measures`, where it has them, are scalars by name."""
    if not hasattr(loss, "measures"):
        return
    at, found = inspection.line_of("measures", loss), loss.measures(fixed_noise(8, seed=1), fixed_noise(8, seed=2))
    if not isinstance(found, Mapping):
        raise Fault(f"measures returns {type(found).__name__}, expected scalars by name", at)
    for name, value in found.items():
        if not isinstance(name, str):
            raise Fault(f"measures {name!r}, expected a name", at)
        check_scalar(value, at)


def _note_of_maps(make: Callable[[], Loss]) -> str:
    """Checks whether a loss takes maps of logits, (N, 1, h, w), and returns a note where it does not."""
    for player in PLAYERS:
        with CatchPluginErrors() as caught:
            value = getattr(make(), player)(*(fixed_noise(4, 1, 2, 3, seed=seed) for seed in (1, 2)))
            check_scalar(value, "")
        if (error := caught.error) is not None:
            cause = one_line(error) if isinstance(error, (Fault, ComponentError)) else f"raises {error_text(error)}"
            return f"for logits (N,) only: of maps (N, 1, h, w), which patches have, the {player}'s loss {cause}"
    return ""


def _in_several_states(make: Callable[[], Loss]) -> Iterator[Loss]:
    """Yields a new loss, and losses whose state has moved, by logits that differ in either direction.

    A state may begin at 0, as BEGAN's weight of the fake images does, and a part of the loss with it.
    """
    yield make()
    for sign in (-1, 1):
        loss = make()
        for call in range(MOVING_CALLS):
            real, fake = fixed_noise(16, seed=2 * call) + 3 * sign, fixed_noise(16, seed=2 * call + 1) - 3 * sign
            with torch.no_grad():
                for player in PLAYERS:
                    getattr(loss, player)(real, fake)
        yield loss


def _check_gradient_reaches(inspection: Inspection, make: Callable[[], Loss]) -> None:
    """Checks that each player's loss has a finite gradient with respect to the logits that it must depend on."""
    for player, needed in zip(PLAYERS, (("real", "fake"), ("fake",)), strict=True):
        at = inspection.line_of(player, make())
        attached, reached = False, set()
        for loss in _in_several_states(make):
            logits = {n: fixed_noise(16, seed=seed).requires_grad_() for seed, n in enumerate(("real", "fake"), 1)}
            value = getattr(loss, player)(logits["real"], logits["fake"])
            if not value.requires_grad:
                continue
            attached = True
            gradients = torch.autograd.grad(value, list(logits.values()), allow_unused=True)
            for name, gradient in zip(logits, gradients, strict=True):
                if gradient is not None and not is_finite(gradient):
                    of = f"with respect to the logits of {name} images"
                    raise Fault(f"the gradient of the {player}'s loss {of} is not finite", at)
                if gradient is not None and gradient.any():
                    reached.add(name)
            if reached.issuperset(needed):
                break
        _check_equal_logits(inspection, player, make())
        if not attached:
            raise Fault(f"the {player}'s loss has no gradient: it is detached from the logits", at)
        if lacking := [name for name in needed if name not in reached]:
            raise Fault(f"the {player}'s loss has no gradient with respect to the logits of {lacking[0]} images", at)


def _check_equal_logits(inspection: Inspection, player: str, loss: Loss) -> None:
    """Checks that the gradient of a player's loss is finite where all logits are equal, as a square root's is not."""
    logits = [torch.zeros(16, requires_grad=True) for _ in range(2)]
    with LineTracer(inspection.file) as lines:
        value = getattr(loss, player)(*logits)
    if value.requires_grad and not all(map(is_finite, torch.autograd.grad(value, logits, allow_unused=True))):
        at = lines.not_finite or inspection.line_of(player, loss)
        raise Fault(f"the gradient of the {player}'s loss is not finite where all logits are equal", at)


def _check_gradient_value(inspection: Inspection, make: Callable[[], Loss]) -> str | None:
    """Checks the gradient of each player's loss with respect to the logits against finite differences."""
    notes: dict[str, str | None] = {}
    for player in PLAYERS:
        logits = [fixed_noise(7, seed=seed, dtype=torch.float64) for seed in (1, 2)]
        at = inspection.line_of(player, make())
        notes[player] = check_gradient(
            lambda player=player, logits=logits: getattr(make(), player)(*logits),  # type: ignore[misc]
            logits,
            f"the {player}'s loss",
            at,
            stopped=inspection.stops_gradient,
        )
    # Of a gradient that is stopped for one player only, what is said of that player.
    return next((note for note in notes.values() if note and "on purpose" in note), notes[PLAYERS[-1]])


def _check_randomness(inspection: Inspection, make: Callable[[], Loss]) -> None:
    """Checks that neither player's loss draws global random numbers."""
    for player in PLAYERS:
        loss = make()
        with LineTracer(inspection.file) as lines:
            whose = global_generators_used(
                partial(getattr(loss, player), fixed_noise(8, seed=1), fixed_noise(8, seed=2))
            )
        if whose:
            at = lines.random or inspection.line_of(player, loss)
            raise Fault(f"the {player}'s loss draws {whose} global random numbers", at)


def _check_all_use_real(
    inspection: Inspection, make: Callable[[], Loss], others: Sequence[Callable[[], Loss]]
) -> str | None:
    """Checks `generator_uses_real` of a loss and of others, those that a wrapper refuses left out."""
    note = _check_generator_uses_real(inspection, make)
    for other in others:
        with suppress(ComponentError):
            _check_generator_uses_real(inspection, other)
    return note


def _check_generator_uses_real(inspection: Inspection, make: Callable[[], Loss]) -> str | None:
    """Checks a loss's `generator_uses_real` against the values of its generator's loss for several real batches."""
    plain = fixed_noise(16, seed=1)
    others = (torch.zeros(16), plain + 3, plain - 3, 10 * plain, 0.1 * plain, -plain, plain.flip(0), 1e4 * plain)
    uses_real = generator_uses_real(make())
    changes = any(
        not torch.equal(copy.deepcopy(loss).generator(real, fake), copy.deepcopy(loss).generator(plain, fake))
        for loss in _in_several_states(make)
        for fake in (fixed_noise(16, seed=2), 5 * fixed_noise(16, seed=3))
        for real in others
    )
    if changes and not uses_real:
        raise Fault(
            "generator_uses_real is False, and the generator's loss changes with the real logits: leave it out, or "
            "set it to True",
            inspection.line_of("generator", make()),
        )
    if uses_real and not changes:
        return "it does not change with them: with generator_uses_real: ClassVar[bool] = False a step is faster"
    return None


def _check_label_targets(inspection: Inspection) -> None:
    """Checks a loss's label targets: others change the discriminator's loss and leave the generator's as it is."""
    at = inspection.line_of("with_targets")
    real, fake = fixed_noise(8, seed=1), fixed_noise(8, seed=2)
    plain, other = inspection.fresh(), inspection.fresh().with_targets(real=0.7, fake=0.2)
    if not isinstance(other, TargetedLoss):
        raise Fault(f"with_targets() returns {type(other).__name__}, which is not a loss with label targets", at)
    if torch.equal(plain.discriminator(real, fake), other.discriminator(real, fake)):
        raise Fault("with_targets(real=0.7, fake=0.2) leaves the discriminator's loss as it was", at)
    if not torch.equal(plain.generator(real, fake), other.generator(real, fake)):
        raise Fault("with_targets(real=0.7, fake=0.2) changes the generator's loss", at)
