"""Probes: small trials that find, before the run folder exists, what networks, penalties and optimisers do.

Decisions:
- A probe works on copies: no state, statistic or weight of the training changes. The random numbers that it draws do
  not matter, since the random stream of the training begins afterwards.
- What a component can declare in one line is declared (`generator_uses_real`, `batch_independent`). A probe finds what
  depends on a combination of components: whether a penalty fits the networks and the data, whether a network uses the
  conditions of a data set, whether the updates of an optimiser can be undone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import define, evolve, field
from torch import Tensor, nn

from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.nn.modes import eval_mode
from ganlab.plugin.component_errors import collect_component_errors
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.protocols import Batch, DataSpec, GameConfig, ImageSpec, Move, Penalty, Turn, map_condition
from ganlab.training.game import Game
from ganlab.training.step_components import StepComponents
from ganlab.training.update import optimizer_tensors, step_unless_stopped
from ganlab.utils import distributed
from ganlab.utils.errors import ComponentError, UserError

FEW = 4
"""How many images the trial of a game takes at first."""


class _ConditionUsed(Exception):
    """Raised by the condition probe's tensor when a network uses it."""


class _ProbeTensor(Tensor):
    """The condition probe's tensor: it raises on any operation."""

    @classmethod
    def __torch_function__(cls, *_: object, **__: object) -> Any:
        raise _ConditionUsed


class TaggedCondition(Tensor):
    """A condition in the trial of a game: what a move makes of it, such as the condition twice, is tagged too."""


def uses_condition(network: nn.Module, inputs: Sequence[Any]) -> bool:
    """Probe of a network: whether it uses the conditions among its inputs, even if its output does not depend on them.

    A condition is a `TaggedCondition`. A network that cannot be copied or called is taken to use it.
    """
    with CatchPluginErrors() as caught, torch.no_grad():
        copy.deepcopy(network)(*(_retagged(value, _ProbeTensor) for value in inputs))
    return caught.error is not None


def _retagged(value: Any, kind: type[Tensor]) -> Any:
    """The probe's input as it is; but a condition that is tagged, or each of several, as a tensor of this kind."""
    if isinstance(value, Mapping):
        return map_condition(lambda part: _retagged(part, kind), value)
    return value.as_subclass(kind) if isinstance(value, TaggedCondition) else value


def can_undo_updates(build: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], network: nn.Module) -> bool:
    """Probe of an optimiser: whether the updates of one that `build` makes can be undone, as `stop_*_under` does.

    A copy of the network with stopped updates, the first one among them, must end with the same bits as one without.
    This finds optimisers that count their updates in Python, or whose state does not begin with zeros.
    """
    results = []
    for stops in ((True, False, True, True, False), (False, False)):
        trial = copy.deepcopy(network)
        optimizer = build(trial.parameters())
        for stop in stops:
            for parameter in trial.parameters():
                parameter.grad = torch.full_like(parameter, 0.5 if stop else 0.25)
            device = next(trial.parameters()).device
            step_unless_stopped(torch.full((), stop, device=device), optimizer)
        results.append(optimizer_tensors(optimizer))
    one, other = results
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@define
class GameTrial:
    """A trial of a game, on copies of everything: each move's terms of one batch, without an update.

    `conditional` says, after the moves, whether any network uses the conditions of the data set, and `complete` whether
    all moves could be tried.
    """

    game: Game
    batch: Batch
    complete: bool = field(default=True, init=False)
    conditional: bool = field(default=False, init=False)

    @classmethod
    def of(cls, game: Game, config: GameConfig, data: DataSpec, batch: Batch) -> GameTrial:
        """Prepares the trial of a game, which `config` has built for these data; `batch` is a part of a real batch."""
        copied = Game(
            rules=copy.deepcopy(config).build(data),
            networks={name: copy.deepcopy(network) for name, network in game.networks.items()},
            players=game.players,
            augmentations=[copy.deepcopy(part) for part in game.augmentations],
            batch_size=len(batch.images) * distributed.world_size(),
            device=game.device,
            autocast=game.autocast,
        )
        condition = map_condition(lambda part: part.as_subclass(TaggedCondition), batch.condition)
        return cls(copied, evolve(batch, condition=condition))

    def try_moves(self, penalties: Sequence[Penalty], names: Mapping[str, str], problems: list[str]) -> None:
        """Tries each move of the game and the penalties of its players; adds what they refuse to `problems`.

        `names` are the components behind networks, for messages. What is refused of a network is reported; other errors
        only make the trial incomplete, and the trial of first updates, which follows, reports them.
        """
        # A function, which a copy of a network shares; a method would be copied with the whole trial.
        for network in self.game.networks.values():
            network.register_forward_pre_hook(lambda network, inputs: self._note_condition(network, inputs))  # noqa: PLW0108
        for move in self.game.rules.moves:
            with CatchPluginErrors() as caught, self.game.frozen_in(move):
                turn = self.game.turn(move, self.batch)
                move.terms(turn)
                problems += self._try_penalties(move, turn, penalties)
            if isinstance(caught.error, ComponentError):
                lines = str(caught.error).splitlines()
                found = [with_owner(line, names) for line in lines if line.partition(": ")[0] in self.game.networks]
                problems += [line for line in found if line not in problems]
            self.complete &= caught.error is None

    def _note_condition(self, network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.conditional and any(isinstance(value, TaggedCondition | Mapping) for value in inputs):
            self.conditional = uses_condition(network, inputs)
        return tuple(_retagged(value, Tensor) for value in inputs)

    def _try_penalties(self, move: Move, turn: Turn, penalties: Sequence[Penalty]) -> Iterator[str]:
        """In a game's trial, calls each penalty of the move's players once; yields what they refuse."""
        for name in move.players:
            used = [penalty for _, penalty in self.game.players[name].penalties]
            if used and name not in turn.shown:
                yield f"penalty: the game shows the penalties of {name!r} nothing"
                continue
            for index, penalty in enumerate(penalties):
                if any(penalty is one for one in used):
                    step = turn.shown[name]
                    step = evolve(step, condition=map_condition(lambda part: part.as_subclass(Tensor), step.condition))
                    with CatchPluginErrors() as caught:
                        copy.deepcopy(penalty).penalty(step)
                    if isinstance(caught.error, ComponentError):
                        yield from (f"penalty[{index}]: {line}" for line in str(caught.error).splitlines())


def with_owner(line: str, names: Mapping[str, str]) -> str:
    """A refusal in the trial of a game, with the component behind the network that it begins with, if any."""
    part, colon, _ = line.partition(": ")
    return f"{line} ({names[part]})" if colon and part in names else line if colon else f"game: {line}"


def try_augmentations(components: StepComponents, images: Tensor, device: torch.device, problems: list[str]) -> None:
    """Probes augmentations: calls each once, and adds those that refuse the data set's images to `problems`."""
    for index, augmentation in enumerate(components.experiment.augmentation):
        with collect_component_errors(problems, f"augmentation[{index}]", device):
            copy.deepcopy(augmentation).augment(images)


def check_sampled_images(
    sampler: NetworkSampler, name: str, images: ImageSpec, device: torch.device, condition: Any
) -> None:
    """Probe of a sampler: UserError unless its images have the shape of those of the data set that it says."""
    with eval_mode(sampler):
        z = draw_latents(sampler, 2, torch.Generator().manual_seed(0)).to(device)
        made = sampler(z, map_condition(lambda part: part[:2], condition))
    wanted = (2, *images.shape)
    shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
    if shape != wanted:
        of = f"the sampler {name!r} " if name else ""
        raise UserError(f"game: {of}samples images of shape {shape}; the data set's are {wanted}")
