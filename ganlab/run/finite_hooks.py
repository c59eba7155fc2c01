"""Hooks that check every part of a training step for NaN and infinity, to find what made a training diverge.

They are put around the loss, the penalties, the augmentations and the phases, and into the networks as torch's own
hooks; the game knows nothing of them. `torch.autograd.detect_anomaly` is not used: it misses infinity, and names an
operation, where a message needs the component through which the gradient passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab.protocols import Batch, Move, Turn
from ganlab.training.loop import Training
from ganlab.training.train_step import Phase, build_phases
from ganlab.training.update import Player
from ganlab.utils.errors import GanlabError
from ganlab.utils.state_tree import find_non_finite


class NotFinite(GanlabError):
    """Raised by the finite hooks: a value in a repeated training step is NaN or infinite."""


def add_finite_checks(training: Training, names: Mapping[str, str]) -> Training:
    """Adds the finite hooks: the training with eager steps of which every part raises NotFinite for NaN and infinity.

    `names` are the components behind the parts, for messages, as `component_names` returns them.
    """
    game = training.game
    trace = BackwardTrace()
    rules, checks = game.rules, {}
    for name, network in game.networks.items():
        trace.add_hooks(name, network)
        _check_output(network, f"what the {name} returns is", names[name])
    augmentations = [
        replacing(part, augment=_checked_augment(part, f"augmentation[{index}]", names, trace))
        for index, part in enumerate(game.augmentations)
    ]
    for move in rules.moves:
        checks[move.name] = TermCheck(move, [game.players[name] for name in move.players], names, trace)
    of_player = {name: checks[move.name] for move in rules.moves for name in move.players}
    players = {
        player.name: attrs.evolve(
            player,
            penalties=[
                (name, replacing(part, penalty=of_player[player.name].wrap(name, part.penalty)))
                for name, part in player.penalties
            ],
        )
        for player in game.players.values()
    }
    moves = [attrs.evolve(move, terms=_checked_terms(move, checks[move.name])) for move in rules.moves]
    checked = attrs.evolve(game, rules=attrs.evolve(rules, moves=moves), players=players, augmentations=augmentations)
    phases = [_checked_phase(phase, checks[phase.name]) for phase in build_phases(checked)]
    step = attrs.evolve(training.train_step, game=checked, phases=phases)
    return attrs.evolve(training, capture=None, game=checked, train_step=step)


def _checked_terms(move: Move, check: TermCheck) -> Callable[[Turn], Any]:
    """The terms of a move with their finite checks."""

    def terms(turn: Turn) -> Any:
        found = move.terms(turn)
        if isinstance(found, Mapping):
            return {name: check.check(f"loss_{move.name}", term, name) for name, term in found.items()}
        return check.check(f"loss_{move.name}", found)

    return terms


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
        _refuse(find_non_finite(_tensors(output), "output"), f"{what} not finite", owner)

    network.register_forward_hook(check)


def _tensors(output: Any) -> list[Tensor]:
    """The tensors in what a network returned, for its finite hook."""
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output
    if not isinstance(output, Mapping | list | tuple):
        parts = [getattr(output, "logits", None)]
    return [tensor for part in parts if part is not None for tensor in _tensors(part)]


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

    left: list[tuple[str, bool, int]] = field(factory=list)

    def note(self, name: str, tensor: Tensor) -> None:
        """Adds a finite hook: notes whether the gradient with respect to a component's input, or a term, is finite."""
        if tensor.requires_grad:
            which = id(tensor)
            tensor.register_hook(lambda gradient: self.left.append((name, find_non_finite([gradient]) is None, which)))

    def add_hooks(self, name: str, network: nn.Module) -> None:
        """Adds finite hooks that note the gradient where it enters and leaves a network."""

        def note_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            for value in inputs:
                if isinstance(value, Tensor):
                    self.note(name, value)

        def note_outputs(module: nn.Module, inputs: object, output: object) -> None:
            for tensor in _tensors(output):
                self.note("", tensor)

        network.register_forward_pre_hook(note_inputs)
        network.register_forward_hook(note_outputs)

    def first_not_finite(self, player: str) -> str:
        """By the finite hooks, the component that made a gradient NaN or infinite; empty for the term itself."""
        if not self.left:
            return ""
        bad = [(name, tensor) for name, finite, tensor in self.left if not finite]
        if not bad:
            return player
        # What one network returns may be what the next is given: then that one made it so.
        return next((name for name, tensor in bad if tensor == bad[0][1] and name), "")


@define
class TermCheck:
    """The finite hooks of one move's loss terms, in repeated steps: check each one's value, and its gradient alone.

    Where updates may be stopped, a gradient that is not finite is only a `suspect` until the update shows its effect.
    """

    move: Move
    players: Sequence[Player]
    names: Mapping[str, str]
    trace: BackwardTrace
    largest: dict[str, float] = field(factory=dict)
    suspect: NotFinite | None = None

    def wrap(self, name: str, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A loss term's function, with its check."""
        return lambda *inputs: self.check(name, compute(*inputs))

    def check(self, owner: str, term: Tensor, part: str = "") -> Tensor:
        """Finite hook of a loss term: raises NotFinite where it, or its gradient by the weights, is not finite.

        `owner` is the key of its component in `names`, and `part` the term's own name where there are several.
        """
        name = f"{owner}_{part}" if part else owner
        _refuse(not term.isfinite().all(), f"{name} is {term.detach().float().mean():g}", self.names[owner])
        if term.requires_grad:
            self.trace.left.clear()
            weights = [p for player in self.players for p in player.network.parameters() if p.requires_grad]
            found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
            gradients = [gradient for gradient in found if gradient is not None]
            if find_non_finite(gradients):
                through = self.trace.first_not_finite(self.players[0].name)
                way = f", from its way back through the {through} on" if through else ""
                error = NotFinite(f"the gradient of {name} is not finite{way} ({self.names[through or owner]})")
                if self.move.stop_under is None:
                    raise error
                self.suspect = self.suspect or error
            self.largest[name] = max((float(g.abs().max()) for g in gradients if g.numel()), default=0.0)
        return term

    def check_update(self) -> None:
        """Finite hook after an update: raises NotFinite where weights or optimizer state are no longer finite."""
        for player in self.players:
            where = find_non_finite({"": dict(player.network.named_parameters())}) or find_non_finite(
                _optimizer_state(player)
            )
            if where and self.suspect is not None:
                raise self.suspect
            if where:
                left = f"an update of the {player.name} left {where} not finite, after {self._largest_gradient()}"
                raise NotFinite(f"{left} ({self.names[f'{player.name}.optimizer']})")
        self.largest.clear()
        self.suspect = None

    def _largest_gradient(self) -> str:
        """The loss term of the largest gradient."""
        sizes = self.largest
        name = max(sizes, key=sizes.__getitem__, default="")
        owner = name if name in self.names else f"loss_{self.move.name}"
        return f"a gradient of {name} of up to {sizes[name]:.3g} ({self.names[owner]})" if name else "no gradient"


def _checked_phase(phase: Phase, check: TermCheck) -> Phase:
    """The phase with a finite hook after each update, and not within: a stopped update is undone at its end."""

    def update(real: Batch, updates: int) -> None:
        phase.update(real, updates)
        check.check_update()

    return attrs.evolve(phase, update=update)


def _optimizer_state(player: Player) -> dict[str, Any]:
    """The optimizer's state by parameter name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in player.network.named_parameters()}
    return {names[parameter]: kept for parameter, kept in player.optimizer.state.items()}
