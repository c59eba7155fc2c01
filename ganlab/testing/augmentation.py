"""ganlab.testing.augmentation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganlab.testing.inspection import (
    Fault,
    Inspection,
    Lines,
    check_scalar,
    compare_with_differences,
    difference,
    finite,
    noise,
)
from ganlab.testing.scheduled_options import look_at_options
from ganlab.testing.tiny_training import Shape, TinyGame, look_at_game
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.rng import seed_everything

SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32))


OBSERVED = 1000
"""Batches of 1,024 logits that an augmentation is shown."""


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
