"""The conformance checks of an augmentation: shapes, gradients, independent images, its state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganlab.testing.check_result import Fault, summarize_refusals
from ganlab.testing.finite_differences import check_gradient
from ganlab.testing.fixed_inputs import IMAGE_SHAPES, Shape, fixed_noise, shape_text
from ganlab.testing.global_randomness import global_generators_used
from ganlab.testing.inspection import Inspection
from ganlab.testing.line_tracer import LineTracer
from ganlab.testing.scheduled_options import check_scheduled_options
from ganlab.testing.state_comparison import first_difference
from ganlab.testing.tensor_checks import check_kept, check_scalar, describe_value, is_finite, tensor_versions
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.rng import seed_everything

OBSERVED_BATCHES = 1000
"""Batches of 1,024 logits that an augmentation observes."""


def check_augmentation(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of an augmentation."""
    run_check = inspection.run_check
    shaped = run_check(
        f"shape: returns finite images of the input's shape, for {', '.join(map(shape_text, IMAGE_SHAPES))} "
        "in batches of 1, 2 and 7",
        lambda: _check_shapes(inspection, tiny),
    )
    kept = run_check("images: the input is not changed in place", lambda: _check_input_kept(inspection, tiny), shaped)
    alone = run_check(
        "each image by itself: none depends on the others in its batch",
        lambda: _check_images_independent(inspection, tiny),
        shaped,
    )
    reached = run_check("gradient: reaches the images", lambda: _check_gradient_reaches(inspection, tiny), shaped)
    run_check(
        "gradient: agrees with finite differences in float64",
        lambda: _check_gradient_value(inspection, tiny),
        reached,
    )
    sound = [shaped, kept, alone, reached]
    if hasattr(inspection.instance, "observe") or hasattr(inspection.instance, "measures"):
        sound += [
            run_check(
                "observe, measures: what it learns from logits is in its state, its measures are scalars",
                lambda: _check_observed_state(inspection, tiny),
                shaped,
            )
        ]
    check_scheduled_options(inspection, tiny, run_training_checks(inspection, tiny, *sound, stateful=True))


def _images(shape: Shape, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tanh(fixed_noise(count, *shape, seed=5, dtype=dtype))


def _check_shapes(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks that an augmentation returns finite images of its input's shape and dtype, for several shapes."""
    at = inspection.line_of("augment")
    refused, accepted = [], []
    for shape in IMAGE_SHAPES:
        for count in (1, 2, 7):
            images = _images(shape, count)
            try:
                with LineTracer(inspection.file) as lines:
                    output = inspection.fresh().augment(images)
            except ComponentError as error:
                refused.append(f"refuses {count} images of {shape_text(shape)}: {one_line(error, limit=200)}")
                continue
            if not isinstance(output, Tensor) or output.shape != images.shape or output.dtype != images.dtype:
                raise Fault(f"returns {describe_value(output)} for images float32 {tuple(images.shape)}", at)
            if not is_finite(output):
                raise Fault(
                    f"returns NaN or infinity for {count} images of {shape_text(shape)}", lines.not_finite or at
                )
            accepted.append(shape)
    if accepted and tiny.shape not in accepted:
        tiny.shape = accepted[0]
    return summarize_refusals(refused, 3 * len(IMAGE_SHAPES))


def _check_input_kept(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that an augmentation does not change its input in place."""
    inputs = {"its input images": _images(tiny.shape, 7)}
    before = tensor_versions(inputs)
    inspection.fresh().augment(*inputs.values())
    check_kept(inputs, before, inspection.line_of("augment"))


def _check_images_independent(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that an augmentation treats each image by itself: NaN in one image must not reach another.

    Nor must other values; and where it draws no random numbers, an image's place in the batch must not matter.
    """
    at, plain = inspection.line_of("augment"), _images(tiny.shape, 6)
    images = plain.clone()
    images[3:] = torch.nan
    seed_everything(0)
    if not is_finite(inspection.fresh().augment(images)[:3]):
        raise Fault("an image depends on the others in its batch: NaN in three of six reaches the rest", at)
    found: list[Tensor] = []
    draws = global_generators_used(lambda: found.append(inspection.fresh().augment(plain.clone())))
    seed_everything(0)
    others = inspection.fresh().augment(torch.cat([plain[:3], -plain[3:]]))
    if not torch.allclose(found[0][:3], others[:3], rtol=1e-3, atol=1e-4):
        raise Fault("an image depends on the others in its batch: it changes with the rest", at)
    if not draws:
        flipped = inspection.fresh().augment(plain.flip(0)).flip(0)
        if not torch.allclose(found[0], flipped, rtol=1e-3, atol=1e-4):
            raise Fault("an image depends on its place in the batch: in another order it is another", at)


def _check_gradient_reaches(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that the gradient through an augmentation reaches the images, finite and not 0."""
    at = inspection.line_of("augment")
    images = _images(tiny.shape, 7).requires_grad_()
    seed_everything(0)
    output = inspection.fresh().augment(images * 1)
    if not output.requires_grad:
        raise Fault("has no gradient: its output is detached from the images", at)
    weights = fixed_noise(*output.shape, seed=6)
    (gradient,) = torch.autograd.grad((output * weights).sum(), images, allow_unused=True)
    if gradient is None or not gradient.any():
        raise Fault("has no gradient: it is 0 for every pixel, so that nothing is learned through it", at)
    if not is_finite(gradient):
        raise Fault("its gradient is not finite", at)


def _check_gradient_value(inspection: Inspection, tiny: TinyTraining) -> str | None:
    """Checks the gradient of an augmentation with respect to the images against finite differences."""
    images = _images(tiny.shape, 4, torch.float64)
    weights = fixed_noise(*images.shape, seed=6, dtype=torch.float64)

    def value() -> Tensor:
        output: Tensor = inspection.fresh().augment(images * 1)
        return (output * weights).sum()

    at = inspection.line_of("augment")
    return check_gradient(value, [images], "its output", at, stopped=inspection.stops_gradient)


def _check_observed_state(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that what an augmentation learns from observed logits is in its state_dict(), its measures scalars."""
    trained, restored = inspection.fresh(), inspection.fresh()
    at = inspection.line_of("observe")
    if hasattr(trained, "observe"):
        logits = fixed_noise(1024, seed=7).abs()  # enough for the slowest to learn that all images look real
        for _ in range(OBSERVED_BATCHES):
            trained.observe(logits)
        if not torch.equal(logits, fixed_noise(1024, seed=7).abs()):
            raise Fault("changes the logits in place", at)
    if hasattr(trained, "state_dict"):
        restored.load_state_dict(from_bytes(to_bytes(trained.state_dict())))
    results: list[Any] = []
    for part in (trained, restored):
        seed_everything(0)
        measures = part.measures() if hasattr(part, "measures") else {}
        for name, value in measures.items():
            if not isinstance(name, str):
                raise Fault(f"measures {name!r}, expected a name", inspection.line_of("measures"))
            check_scalar(value, inspection.line_of("measures"))
        results.append({"images": part.augment(_images(tiny.shape, 7)), **measures})
    if where := first_difference(results[0], results[1]):
        raise Fault(
            f"with its state a fresh one differs in {where} after {OBSERVED_BATCHES:,} batches of observed logits: "
            "return what is learned from them from state_dict() and restore it in load_state_dict()",
            at,
        )
