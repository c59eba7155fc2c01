"""The conformance checks of a generator or discriminator: output shapes, weights, gradients, eval mode."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from ganlab.nn.initialise import initialise_network
from ganlab.nn.modes import eval_mode
from ganlab.protocols import all_logits, batch_independent
from ganlab.testing.built_network import BuiltNetwork
from ganlab.testing.check_result import Fault
from ganlab.testing.finite_differences import check_gradient
from ganlab.testing.fixed_inputs import (
    IMAGE_SHAPES,
    OTHER_FORMS,
    Shape,
    condition_in_words,
    fixed_noise,
    in_words,
    shape_text,
)
from ganlab.testing.global_randomness import global_generators_used
from ganlab.testing.inspection import Inspection
from ganlab.testing.line_tracer import LineTracer
from ganlab.testing.network_conditions import find_condition
from ganlab.testing.state_comparison import first_difference
from ganlab.testing.tensor_checks import float_tensors, is_finite
from ganlab.testing.tiny_game import GENERATES
from ganlab.testing.tiny_training import TinyTraining
from ganlab.testing.training_checks import run_training_checks
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.utils.errors import ComponentError, error_text, one_line
from ganlab.utils.rng import seed_everything

SHAPES: tuple[Shape, ...] = (*IMAGE_SHAPES, (3, 64, 64))
BATCH_SIZES = (2, 7)


POWER_ITERATIONS = 50
"""How often a network with spectral norm is called before its gradient is held against finite differences."""


def check_network(inspection: Inspection, tiny: TinyTraining) -> None:
    """Runs all conformance checks of a generator or discriminator."""
    run_check = inspection.run_check
    generates = inspection.kind == GENERATES
    wanted = "images of the requested shape" if generates else "logits of each image"
    shapes = ", ".join(map(shape_text, SHAPES))
    shaped = run_check(f"shape: finite, {wanted}, for {shapes}", lambda: _check_shapes(inspection, tiny))
    seeded = run_check(
        "weights: the same seed gives the same ones, and a state dict restores them",
        lambda: _check_weights(inspection, tiny),
        shaped,
    )
    reached = run_check(
        f"gradient: reaches every weight{'' if generates else ' and the images'}",
        lambda: _check_gradient_reaches(inspection, tiny),
        shaped,
    )
    run_check(
        "gradient: agrees with finite differences in float64",
        lambda: _check_gradient_value(inspection, tiny),
        reached,
    )
    # A discriminator may compare the images of a batch; samples and scores are a generator's.
    alone = ", and no result depends on the others in its batch" if generates else ""
    still = run_check(
        f"evaluation: in eval mode no random number is drawn{alone}",
        lambda: _check_eval_mode(inspection, tiny),
        shaped,
    )
    before = [shaped, seeded, reached, still]
    if not generates:
        before.append(
            run_check(
                "batch: each image's logit is its own where batch_independent is True",
                lambda: _check_batch_independent(inspection, tiny),
                shaped,
            )
        )
    if hasattr(inspection.instance, "initialise"):
        title = "initialise: changes weights and buffers in place, to finite values"
        before.append(run_check(title, lambda: _check_initialise(inspection, tiny), shaped))
    run_training_checks(inspection, tiny, *before)


def _check_shapes(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks that a network can be built for several shapes of images, and the shapes of its finite outputs.

    Also that it changes nothing in place that it is given.
    """
    refused: list[str] = []
    accepted: list[Shape] = []
    outside = 0.0
    for shape in (*SHAPES, *chain(*OTHER_FORMS)):
        if accepted and len(accepted[0]) != len(shape):
            break
        by = shape_text(shape)
        tiny.conditions[shape] = find_condition(inspection.fresh(), shape, inspection.kind == GENERATES)
        try:
            built = BuiltNetwork(inspection, tiny, shape)
        except ComponentError as error:
            refused.append(f"refuses {by}: {one_line(error, limit=200)}")
            continue
        except RuntimeError as error:
            at = inspection.line_that_raised(error) or inspection.line_of("build")
            raise Fault(
                f"cannot be built for images of {by}, nor refuses them by ComponentError: {error_text(error)}",
                at,
            ) from error
        accepted.append(shape)
        for count in BATCH_SIZES:
            try:
                with LineTracer(inspection.file) as lines, torch.no_grad():
                    everything = built.output_keeping_inputs(built.inputs(count))
            except RuntimeError as error:
                at = inspection.line_that_raised(error) or built.at
                raise Fault(f"fails for {count} images of {by}: {error_text(error)}", at) from error
            output = built.main_result(everything)
            expected = (count, *shape) if built.generates else (count,)
            if not built.generates and not isinstance(output, Tensor):
                raise Fault(_why_no_logits(everything), built.at)
            if not _has_shape(output, expected, built.generates):
                got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                what = "images" if built.generates else "logits"
                raise Fault(f"returns {what} of shape {got} for {count} images of {by}, expected {expected}", built.at)
            if not all(map(is_finite, float_tensors(everything))):
                raise Fault(f"returns NaN or infinity for {count} images of {by}", lines.not_finite or built.at)
            outside = max(outside, float((output.abs() > 1.001).float().mean()))
    if not accepted:
        raise ComponentError(refused[0])
    if tiny.shape not in accepted:
        tiny.shape = accepted[0]
    image, condition = len(tiny.shape) == 3, tiny.conditions[tiny.shape]
    if not image:
        refused = [f"it refuses images; this is of {in_words(accepted)}"]
    if condition is None:
        refused.append("it takes no condition")
    elif condition:
        of = "images" if image else "data"
        refused.append(f"its condition is {condition_in_words(condition)} {condition} for {of} {tiny.shape}")
    if inspection.kind == GENERATES and image and outside:
        refused.append(f"{outside:.0%} of the values are outside [-1, 1], to which images are clipped")
    return "; ".join(refused)


def _why_no_logits(output: Any) -> str:
    """What is wrong with the shape of a discriminator's output that has no tensor of logits."""
    try:
        all_logits(output)
    except ComponentError as error:
        return one_line(error)
    return "returns logits whose tensors are of different forms"


def _has_shape(output: Any, expected: tuple[int, ...], exactly: bool) -> bool:
    """Whether a network's output is a tensor of this shape; logits may be several of each image, as of its patches."""
    if not isinstance(output, Tensor) or exactly or output.ndim < 2:
        return isinstance(output, Tensor) and tuple(output.shape) == expected
    return output.shape[:1] == expected and output.shape[1:] != (1,)  # (N, 1) is a forgotten squeeze


def _check_weights(inspection: Inspection, tiny: TinyTraining) -> str:
    """Checks that a network built with the same seed has the same weights, and that its state dict is complete."""
    one, other = (BuiltNetwork(inspection, tiny, tiny.shape).network for _ in range(2))
    at = inspection.line_of("__init__", one)
    if where := first_difference(dict(one.state_dict()), dict(other.state_dict())):
        raise Fault(f"two networks built after torch.manual_seed(0) differ in {where}", at)
    built = BuiltNetwork(inspection, tiny, tiny.shape)
    with torch.no_grad():
        for parameter in built.network.parameters():
            parameter.add_(0.01)
        built(built.inputs(7))
        state = from_bytes(to_bytes(dict(built.network.state_dict())))
        other.load_state_dict(state)
        for network in (built.network, other):
            network.eval()
        inputs = built.inputs(7, seed=2)
        seed_everything(0)
        output = built.results(inputs)
        built.network = other
        seed_everything(0)
        if first_difference(output, built.results(inputs)) is not None:
            raise Fault(
                "after load_state_dict(state_dict()) of another it returns other results: a buffer is missing", at
            )
    return f"{sum(parameter.numel() for parameter in one.parameters()):,} weights for {'x'.join(map(str, tiny.shape))}"


def _check_gradient_reaches(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that a finite gradient reaches every weight of a network, and a discriminator's images.

    Weights may be reached by anything that it returns: a head of class logits is trained by a penalty alone.
    """
    built = BuiltNetwork(inspection, tiny, tiny.shape)
    fault = _gradient_fault(built)
    if fault is not None:
        # A layer that begins at 0 lets no gradient through at first.
        with torch.no_grad():
            for number, weight in enumerate(built.network.parameters()):
                weight.add_(fixed_noise(*weight.shape, seed=20 + number, dtype=weight.dtype), alpha=0.1)
        fault = _gradient_fault(built)
    if fault is not None:
        raise Fault(fault, built.at)


def _gradient_fault(built: BuiltNetwork) -> str | None:
    """Returns what is wrong with a network's gradient by its weights and, of a discriminator, its images, or None."""
    inputs = built.inputs(7).requires_grad_()
    output = built.output(inputs * 1)
    main = built.main_result(output)
    if not main.requires_grad:
        return "its output has no gradient: it is detached"
    (by_inputs,) = torch.autograd.grad(
        (main * fixed_noise(*main.shape, seed=6)).sum(), inputs, retain_graph=True, allow_unused=True
    )
    parts = [part for part in float_tensors(output) if part.requires_grad]
    terms = [(part * fixed_noise(*part.shape, seed=6 + number)).sum() for number, part in enumerate(parts)]
    named = [(name, weight) for name, weight in built.network.named_parameters() if weight.requires_grad]
    found = torch.autograd.grad(terms, [weight for _, weight in named], allow_unused=True) if named else ()
    gradients = {name: gradient for (name, _), gradient in zip(named, found, strict=True)}
    if lacking := [name for name, gradient in gradients.items() if gradient is None]:
        return f"no gradient reaches {', '.join(lacking[:3])}{', …' * (len(lacking) > 3)}"
    if odd := [name for name, gradient in gradients.items() if not is_finite(gradient)]:
        return f"the gradient with respect to {odd[0]} is not finite"
    if named and not any(bool(gradient.any()) for gradient in found if gradient is not None):
        return "the gradient is 0 for every weight"
    if not built.generates and (by_inputs is None or not by_inputs.any()):
        return "no gradient reaches the images, so that no network that makes images could learn from it"
    return None


def _check_gradient_value(inspection: Inspection, tiny: TinyTraining) -> str | None:
    """Checks a network's gradient with respect to weights and inputs against finite differences."""
    built = BuiltNetwork(inspection, tiny, tiny.shape, torch.float64)
    inputs = built.inputs(4)
    if any(parametrize.is_parametrized(module) for module in built.network.modules()):
        # Until the power iteration of spectral norm has converged, its estimate depends on the weights beyond what the
        # gradient has.
        with torch.no_grad():
            for _ in range(POWER_ITERATIONS):
                built.output(inputs)
    plain = copy.deepcopy(built.network)
    leaves = [*(p for p in built.network.parameters() if p.requires_grad), inputs]
    buffers = dict(plain.named_buffers())

    def value() -> Tensor:
        with torch.no_grad():  # batch norm's running statistics change with each call
            for name, buffer in built.network.named_buffers():
                buffer.copy_(buffers[name])
        results = enumerate(built.results(inputs * 1))
        terms = [(part * fixed_noise(*part.shape, seed=6 + number, dtype=part.dtype)).sum() for number, part in results]
        return torch.stack(terms).sum()

    return check_gradient(value, leaves, "its output", built.at, stopped=inspection.stops_gradient)


def _check_batch_independent(inspection: Inspection, tiny: TinyTraining) -> str | None:
    """Checks a discriminator's `batch_independent`: compares logits with other images in the batch."""
    built = BuiltNetwork(inspection, tiny, tiny.shape)
    declared = batch_independent(built.network)

    def first_half(images: Tensor, count: int) -> Tensor | None:
        network = copy.deepcopy(built.network).train()
        seed_everything(0)
        with torch.no_grad():
            output = network(images, built.condition(len(images)))
        return output[:count] if isinstance(output, Tensor) else None

    independent = True
    for count in (2, 3, 4, 6):  # of three, packs of two would have images of both halves
        images = built.inputs(2 * count)
        logits = first_half(images, count)
        if logits is None:
            if declared:
                raise Fault("batch_independent is True, and the output is not a tensor of bare logits", built.at)
            return None
        others = [-images, built.inputs(2 * count, seed=2), torch.ones_like(images)]
        if declared:
            others.append(torch.full_like(images, torch.nan))
        for other in others:
            changed = first_half(torch.cat([images[:count], other[count:]]), count)
            independent &= changed is not None and torch.allclose(logits, changed, rtol=1e-4, atol=1e-6)
    if declared and not independent:
        raise Fault(
            "batch_independent is True, and in training mode the logits of one half of a batch change with the other "
            "half: leave it out, or set it to False",
            built.at,
        )
    if independent and not declared:
        return "no logit changes with other images: with self.batch_independent = True a step is faster"
    return None


def _check_initialise(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that a network's configuration initialises it such that a checkpoint holds what was done."""
    built = BuiltNetwork(inspection, tiny, tiny.shape)
    at = inspection.line_of("initialise")
    try:
        initialise_network(inspection.fresh(), built.network)
    except ComponentError as error:
        raise Fault(f"cannot initialise a network that it has built: {one_line(error)}", at) from None
    if bad := next((name for name, value in built.network.state_dict().items() if not is_finite(value)), None):
        raise Fault(f"{bad!r} is not finite after initialise", at)


def _check_eval_mode(inspection: Inspection, tiny: TinyTraining) -> None:
    """Checks that a network in eval mode draws no random numbers, and a generator treats each latent by itself.

    Neither an image nor, where `batch_independent` is True, a logit may depend on its place in the batch.
    """
    built = BuiltNetwork(inspection, tiny, tiny.shape)
    inputs = built.inputs(8)
    with eval_mode(built.network), LineTracer(inspection.file) as lines:
        whose = global_generators_used(lambda: built(inputs))
        if whose:
            raise Fault(
                f"draws {whose} global random numbers in eval mode, so that sampling would change the run",
                lines.random or built.at,
            )
        alone = built.generates or batch_independent(built.network)
        if not alone:
            return
        all_, moved = built(inputs), built.in_another_order(inputs)
        one = built(inputs[:1]) if built.generates else all_[:1]
    if not torch.allclose(one, all_[:1], rtol=1e-3, atol=1e-4):
        raise Fault("in eval mode an output depends on the others in its batch", built.at)
    if not torch.allclose(all_, moved, rtol=1e-3, atol=1e-4):
        what = "an output" if built.generates else "batch_independent is True, and a logit"
        raise Fault(f"in eval mode {what} depends on its place in the batch", built.at)
