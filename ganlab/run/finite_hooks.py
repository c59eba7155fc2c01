"""Hooks that check every part of a training step for NaN and infinity, to find what made a training diverge.

They are put around the loss, the penalties, the augmentations and the phases, and into the networks as torch's own
hooks; the game knows nothing of them. `torch.autograd.detect_anomaly` is not used: it misses infinity, and names an
operation, where a message needs the component through which the gradient passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab.data.batch import Batch
from ganlab.nn.discriminator_output import logits
from ganlab.training.loop import Training
from ganlab.training.state_tree import find_non_finite
from ganlab.training.train_step import Phase
from ganlab.training.update import Player
from ganlab.utils.errors import GanlabError


class NotFinite(GanlabError):
    """Raised by the finite hooks: a value in a repeated training step is NaN or infinite."""


def add_finite_checks(training: Training, names: Mapping[str, str]) -> Training:
    """Adds the finite hooks: the training with eager steps of which every part raises NotFinite for NaN and infinity.

    `names` are the components behind the parts, for messages, as `component_names` returns them.
    """
    game = training.game
    trace = BackwardTrace()
    checks = {player.name: TermCheck(player, names, trace) for player in game.players}
    trace.add_hooks(game.discriminator.network)
    for player, makes in ((game.generator, "images"), (game.discriminator, "logits")):
        _check_output(player.network, f"what the {player.name} makes, {makes}, is", names[player.name])
    game.augmentations = [
        replacing(part, augment=_checked_augment(part, f"augmentation[{index}]", names, trace))
        for index, part in enumerate(game.augmentations)
    ]
    loss = game.loss
    game.loss = replacing(
        loss,
        discriminator=checks["discriminator"].wrap("loss_discriminator", loss.discriminator),
        generator=checks["generator"].wrap("loss_generator", loss.generator),
    )
    game.generator, game.discriminator = (
        attrs.evolve(
            player,
            penalties=[
                (name, replacing(part, penalty=checks[player.name].wrap(name, part.penalty)))
                for name, part in player.penalties
            ],
        )
        for player in game.players
    )
    step = training.train_step
    phases = [_checked_phase(phase, checks[phase.name], names[f"{phase.name}.optimizer"]) for phase in step.phases]
    return attrs.evolve(training, capture=None, train_step=attrs.evolve(step, phases=phases))


# ---------------------------------------------------------------------------------------------------------------------
# The forward pass
# ---------------------------------------------------------------------------------------------------------------------


class Replacing:
    """A component with finite hooks: some methods are replaced by checked ones; all else is the component's own."""

    def __init__(self, component: Any, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._component = component
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._component, name)


def replacing(component: Any, **methods: Callable[..., Any]) -> Any:
    """Puts hooks around a component: some methods are replaced, all else is the component's own."""
    return Replacing(component, methods)


def _check_output(network: nn.Module, what: str, owner: str) -> None:
    """Adds a finite hook that checks what a network returns in a repeated step."""

    def check(module: nn.Module, inputs: object, output: object) -> None:
        made = output if isinstance(output, Tensor) else logits(output)
        _refuse(find_non_finite({"output": made}), f"{what} not finite", owner)

    network.register_forward_hook(check)


def _checked_augment(
    augmentation: Any, name: str, names: Mapping[str, str], trace: BackwardTrace
) -> Callable[[Tensor], Tensor]:
    """The finite hook of an augmentation: its `augment`, which checks the images it returns in a repeated step."""

    def augment(images: Tensor) -> Tensor:
        trace.note(name, images)
        augmented: Tensor = augmentation.augment(images)
        what = "what an augmentation makes of images is not finite"
        _refuse(not augmented.isfinite().all(), what, names[name])
        return augmented

    return augment


def _refuse(wrong: object, what: str, owner: str) -> None:
    if wrong:
        raise NotFinite(f"{what} ({owner})")


# ---------------------------------------------------------------------------------------------------------------------
# Loss terms, their gradients, and updates
# ---------------------------------------------------------------------------------------------------------------------


@define
class BackwardTrace:
    """Finite hooks on the backward pass of a loss term: is the gradient finite where it leaves each component?"""

    left: list[tuple[str, bool]] = field(factory=list)

    def note(self, name: str, tensor: Tensor) -> None:
        """Adds a finite hook: notes whether the gradient with respect to a component's input, or a term, is finite."""
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self.left.append((name, find_non_finite([gradient]) is None)))

    def add_hooks(self, discriminator: nn.Module) -> None:
        """Adds finite hooks that note the gradient where it enters and leaves the discriminator."""
        discriminator.register_forward_pre_hook(lambda module, inputs: self.note("discriminator", inputs[0]))
        discriminator.register_forward_hook(lambda module, inputs, output: self.note("", logits(output)))

    def first_not_finite(self, player: str) -> str:
        """By the finite hooks, the component that made a gradient NaN or infinite; empty for the term itself."""
        if not self.left:
            return ""
        return next((name for name, finite in self.left if not finite), player)


@define
class TermCheck:
    """The finite hooks of one player's loss terms, in repeated steps: check each one's value, and its gradient alone.

    Where updates may be stopped, a gradient that is not finite is only a `suspect` until the update shows its effect.
    """

    player: Player
    names: Mapping[str, str]
    trace: BackwardTrace
    largest: dict[str, float] = field(factory=dict)
    suspect: NotFinite | None = None

    def wrap(self, name: str, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A loss term's function, with its check."""
        return lambda *inputs: self.check(name, compute(*inputs))

    def check(self, name: str, term: Tensor) -> Tensor:
        """Finite hook of a loss term: raises NotFinite where it, or its gradient by the weights, is not finite."""
        _refuse(not term.isfinite().all(), f"{name} is {term.detach().float().mean():g}", self.names[name])
        if term.requires_grad:
            self.trace.left.clear()
            weights = [p for p in self.player.network.parameters() if p.requires_grad]
            found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            gradients = [gradient for gradient in found if gradient is not None]
            if find_non_finite(gradients):
                part = self.trace.first_not_finite(self.player.name)
                through = f", from its way back through the {part} on" if part else ""
                error = NotFinite(f"the gradient of {name} is not finite{through} ({self.names[part or name]})")
                if self.player.stop_under is None:
                    raise error
                self.suspect = self.suspect or error
            self.largest[name] = max((float(g.abs().max()) for g in gradients if g.numel()), default=0.0)
        return term

    def check_update(self, optimizer: str) -> None:
        """Finite hook after an update: raises NotFinite where weights or optimizer state are no longer finite."""
        player = self.player
        where = find_non_finite({"": dict(player.network.named_parameters())}) or find_non_finite(
            _optimizer_state(player)
        )
        if where and self.suspect is not None:
            raise self.suspect
        largest = self._largest_gradient()
        _refuse(where, f"an update of the {player.name} left {where} not finite, after {largest}", optimizer)
        self.largest.clear()
        self.suspect = None

    def _largest_gradient(self) -> str:
        """The loss term of the largest gradient."""
        sizes = self.largest
        name = max(sizes, key=sizes.__getitem__, default="")
        return f"a gradient of {name} of up to {sizes[name]:.3g} ({self.names[name]})" if name else "no gradient"


def _checked_phase(phase: Phase, check: TermCheck, optimizer: str) -> Phase:
    """The phase with a finite hook after each update, and not within: a stopped update is undone at its end."""

    def update(real: Batch, updates: int) -> None:
        phase.update(real, updates)
        check.check_update(optimizer)

    return attrs.evolve(phase, update=update)


def _optimizer_state(player: Player) -> dict[str, Any]:
    """The optimizer's state by parameter name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in player.network.named_parameters()}
    return {names[parameter]: kept for parameter, kept in player.optimizer.state.items()}
