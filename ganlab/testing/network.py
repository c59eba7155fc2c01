"""What a generator, a discriminator and an optimiser are checked for."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ganlab.nn.modes import evaluating
from ganlab.protocols import ImageSpec
from ganlab.testing.inspection import (
    Fault,
    Inspection,
    Lines,
    compare_with_differences,
    difference,
    draws,
    finite,
    noise,
    raised,
)
from ganlab.testing.tiny_components import CLASSES
from ganlab.testing.tiny_training import Shape, TinyGame, look_at_game
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.rng import seed_everything

SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64))
BATCHES = (2, 7)


class _Subject:
    """A network built for a shape of images, with inputs for it."""

    def __init__(self, inspection: Inspection, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        self.generates = inspection.kind == "generator"
        self.shape, self.dtype = shape, dtype
        seed_everything(0)
        self.network: nn.Module = inspection.fresh().build(ImageSpec(*shape, classes=CLASSES))
        if not isinstance(self.network, nn.Module):
            at = inspection.line_of("build")
            raise Fault(f"build gives {type(self.network).__name__}, wanted a torch.nn.Module", at)
        self.at = inspection.line_of("forward", self.network)
        latent_dim: Any = getattr(self.network, "latent_dim", None)
        if self.generates and type(latent_dim) is not int:
            at = inspection.line_of("__init__", self.network)
            raise Fault(f"{type(self.network).__name__} has no whole number latent_dim, but {latent_dim!r}", at)
        self.given_shape = (latent_dim,) if self.generates else shape
        self.network.to(dtype)

    def given(self, count: int, seed: int = 1) -> Tensor:
        """Latents or images."""
        given = noise(count, *self.given_shape, seed=seed, dtype=self.dtype)
        return given if self.generates else torch.tanh(given)

    def __call__(self, given: Tensor) -> Tensor:
        output = self.network(given, torch.arange(len(given)) % CLASSES)
        if self.generates:
            made: Tensor = output
            return made
        # In the precision that it has: the core takes float32.
        return output if isinstance(output, Tensor) else getattr(output, "logits", output)


def check_network(inspection: Inspection, game: TinyGame) -> None:
    look = inspection.look
    generates = inspection.kind == "generator"
    wanted = "images of the shape asked for" if generates else "one logit an image"
    shapes = ", ".join("x".join(map(str, shape)) for shape in SHAPES)
    shaped = look(f"shape: finite, {wanted}, for {shapes}", lambda: _shapes(inspection, game))
    seeded = look(
        "weights: equal seeds give equal ones, and a state dict brings them back",
        lambda: _weights(inspection, game),
        shaped,
    )
    reached = look(
        f"gradient: reaches every weight{'' if generates else ' and the images'}",
        lambda: _has_gradient(inspection, game),
        shaped,
    )
    look(
        "gradient: is right, by differences in float64",
        lambda: _gradient_is_right(inspection, game),
        reached,
    )
    # A discriminator may compare the images of a batch; samples and scores are a generator's.
    alone = ", and no result depends on others of its batch" if generates else ""
    still = look(
        f"evaluation: in eval mode no random number is drawn{alone}",
        lambda: _evaluates(inspection, game),
        shaped,
    )
    look_at_game(inspection, game, shaped, seeded, reached, still)


def _shapes(inspection: Inspection, game: TinyGame) -> str:
    refused, taken, outside = [], [], 0.0
    for shape in SHAPES:
        by = "x".join(map(str, shape))
        try:
            subject = _Subject(inspection, shape)
        except ComponentError as error:
            refused.append(f"refuses {by}: {one_line(error, limit=200)}")
            continue
        except RuntimeError as error:
            at = inspection.line_that_raised(error) or inspection.line_of("build")
            raise Fault(f"cannot be built for images of {by}, nor refuses them: {raised(error)}", at) from error
        taken.append(shape)
        for count in BATCHES:
            try:
                with Lines(inspection.file) as lines, torch.no_grad():
                    made = subject(subject.given(count))
            except RuntimeError as error:
                at = inspection.line_that_raised(error) or subject.at
                raise Fault(f"fails for {count} images of {by}: {raised(error)}", at) from error
            wanted = (count, *shape) if subject.generates else (count,)
            if not isinstance(made, Tensor) or tuple(made.shape) != wanted:
                got = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
                what = "images" if subject.generates else "logits"
                raise Fault(f"gives {what} of shape {got} for {count} images of {by}, wanted {wanted}", subject.at)
            if not finite(made):
                raise Fault(f"gives NaN or infinity for {count} images of {by}", lines.not_finite or subject.at)
            outside = max(outside, float((made.abs() > 1.001).float().mean()))
    if not taken:
        raise ComponentError(refused[0])
    if game.shape not in taken:
        game.shape = taken[0]
    if inspection.kind == "generator" and outside:
        refused.append(f"{outside:.0%} of the values lie outside [-1, 1], which images are clipped to")
    return "; ".join(refused)


def _weights(inspection: Inspection, game: TinyGame) -> str:
    one, other = (_Subject(inspection, game.shape).network for _ in range(2))
    at = inspection.line_of("__init__", one)
    if where := difference(dict(one.state_dict()), dict(other.state_dict())):
        raise Fault(f"two networks built after torch.manual_seed(0) differ in {where}", at)
    subject = _Subject(inspection, game.shape)
    with torch.no_grad():
        for parameter in subject.network.parameters():
            parameter.add_(0.01)
        subject(subject.given(7))
        state = from_bytes(to_bytes(dict(subject.network.state_dict())))
        other.load_state_dict(state)
        for network in (subject.network, other):
            network.eval()
        given = subject.given(7, seed=2)
        seed_everything(0)
        made = subject(given)
        subject.network = other
        seed_everything(0)
        if difference(made, subject(given)) is not None:
            raise Fault(
                "after load_state_dict(state_dict()) of another it gives other results: a buffer is missing", at
            )
    return f"{sum(parameter.numel() for parameter in one.parameters()):,} weights for {'x'.join(map(str, game.shape))}"


def _has_gradient(inspection: Inspection, game: TinyGame) -> None:
    subject = _Subject(inspection, game.shape)
    given = subject.given(7).requires_grad_()
    made = subject(given * 1)
    if not made.requires_grad:
        raise Fault("what it gives has no gradient: it is detached", subject.at)
    (made * noise(*made.shape, seed=6)).sum().backward()
    named = [(name, weight) for name, weight in subject.network.named_parameters() if weight.requires_grad]
    if lacking := [name for name, weight in named if weight.grad is None]:
        raise Fault(f"no gradient reaches {', '.join(lacking[:3])}{', …' * (len(lacking) > 3)}", subject.at)
    if odd := [name for name, weight in named if weight.grad is not None and not finite(weight.grad)]:
        raise Fault(f"the gradient at {odd[0]} is not finite", subject.at)
    if named and not any(bool(weight.grad.any()) for _, weight in named if weight.grad is not None):
        raise Fault("the gradient is 0 at every weight", subject.at)
    if not subject.generates and (given.grad is None or not given.grad.any()):
        raise Fault("no gradient reaches the images, so that no generator could learn from it", subject.at)


def _gradient_is_right(inspection: Inspection, game: TinyGame) -> str | None:
    subject = _Subject(inspection, game.shape, torch.float64)
    given = subject.given(4)
    plain = copy.deepcopy(subject.network)
    leaves = [*(p for p in subject.network.parameters() if p.requires_grad), given]
    buffers = dict(plain.named_buffers())

    def value() -> Tensor:
        with torch.no_grad():  # batch norm's running statistics change with each call
            for name, buffer in subject.network.named_buffers():
                buffer.copy_(buffers[name])
        made = subject(given * 1)
        return (made * noise(*made.shape, seed=6, dtype=torch.float64)).sum()

    return compare_with_differences(value, leaves, "what it gives", subject.at)


def _evaluates(inspection: Inspection, game: TinyGame) -> None:
    subject = _Subject(inspection, game.shape)
    given = subject.given(7)
    with evaluating(subject.network), Lines(inspection.file) as lines:
        whose = draws(lambda: subject(given))
        if whose:
            raise Fault(
                f"draws {whose} global random numbers in eval mode, so that looking at a run would change it",
                lines.random or subject.at,
            )
        one, all_ = subject(given[:1]), subject(given)[:1]
    if subject.generates and not torch.allclose(one, all_, rtol=1e-3, atol=1e-4):
        raise Fault("in eval mode what it gives for one depends on the others of its batch", subject.at)


# ---------------------------------------------------------------------------------------------------------------------
# Optimisers
# ---------------------------------------------------------------------------------------------------------------------
