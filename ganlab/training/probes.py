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
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from attrs import define, evolve, field
from torch import Tensor, nn

from ganlab.data.game_loader import first_rows
from ganlab.evaluation.game_outputs import check_outputs
from ganlab.evaluation.game_samplers import check_sampled_images
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.plugin.component_errors import collect_component_errors
from ganlab.plugin.failures import CatchPluginErrors
from ganlab.protocols import Batch, Dataset, DataSpec, GameConfig, Move, Step, map_condition
from ganlab.training.game import Game
from ganlab.training.meters import Meters
from ganlab.training.step_components import StepComponents
from ganlab.training.update import optimizer_tensors, step_unless_stopped
from ganlab.utils import distributed
from ganlab.utils.capturable import expect_eager_steps
from ganlab.utils.errors import ComponentError, UserError

FEW = 4
"""How many images the trial of a game takes at first."""


class TaggedCondition(Tensor):
    """A condition in the trial of a game: what a move makes of it, such as the condition twice, is tagged too."""


def _tagged(batch: Batch) -> Batch:
    """A batch for the trial of a game, with conditions that are tagged."""
    return evolve(batch, condition=map_condition(lambda part: part.as_subclass(TaggedCondition), batch.condition))


def note_condition(network: nn.Module, note: Callable[[], None]) -> None:
    """Probe of a network in a trial: calls `note` where it uses a `TaggedCondition` among its inputs.

    It counts as used even where the output does not depend on it.
    """

    class Noting(Tensor):
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            note()
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))

    def given(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(_retagged(value, Noting) for value in inputs)

    network.register_forward_pre_hook(given)


def _retagged(value: Any, kind: type[Tensor]) -> Any:
    """A network's input as it is; but a condition that is tagged, or each of several, as a tensor of this kind."""
    if isinstance(value, Mapping):
        return map_condition(lambda part: _retagged(part, kind), value)
    return value.as_subclass(kind) if isinstance(value, TaggedCondition) else value


def can_undo_updates(build: Callable[[nn.Module], torch.optim.Optimizer], network: nn.Module) -> bool:
    """Probe of an optimiser: whether the updates of one that `build` makes can be undone, as `stop_*_under` does.

    A copy of the network with stopped updates, the first one among them, must end with the same bits as one without.
    This finds optimisers that count their updates in Python, or whose state does not begin with zeros.
    """
    results = []
    for stops in ((True, False, True, True, False), (False, False)):
        trial = copy.deepcopy(network)
        optimizer = build(trial)
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
    """A trial of a game, on copies of everything: each move's terms of one batch and the penalties, without an update.

    `names` are the components behind networks and penalties, for messages, and `tables` the tables of penalties, both
    by name. `conditional` says, after the moves, whether any network uses the conditions of the data set, and `error`
    is the first that a move raised.
    """

    updates: ClassVar[bool] = False
    """Whether it makes updates too, for which optimisers are copied."""

    names: Mapping[str, str]
    tables: Mapping[str, str]
    conditional: bool = field(default=False, init=False)
    error: BaseException | None = field(default=None, init=False)
    game: Game = field(init=False)

    def prepare(self, game: Game, config: GameConfig, data: DataSpec, batch_size: int, accumulate: int) -> None:
        """Makes the trial's copies of a game, which `config` has built for these data."""
        # The rules are built again: functions among them may hold what a copy would share.
        memo: dict[int, Any] = {}
        if not self.updates:
            memo |= {id(player.optimizer): player.optimizer for player in game.players.values()}
        memo[id(game.rules)] = self.with_losses(copy.deepcopy(config, memo)).build(data)
        copied = evolve(copy.deepcopy(game, memo), batch_size=batch_size, accumulate=accumulate, meters=Meters())
        for player in copied.players.values():
            expect_eager_steps(player.optimizer)
        self.game = self.with_checks(copied)
        for network in self.game.networks.values():
            note_condition(network, self._note_condition)

    def with_losses(self, config: Any) -> Any:
        """The configuration of the trial's game, of a copy; a trial that checks losses changes them here."""
        return config

    def with_checks(self, game: Game) -> Game:
        """The trial's game, of a copy; a trial that checks components changes them here."""
        return game

    def _note_condition(self) -> None:
        self.conditional = True

    def try_moves(self, batch: Batch, problems: list[str]) -> None:
        """Tries each move of the game on a batch; adds to `problems` what is refused of networks and by penalties."""
        for move in self.game.rules.moves:
            refused: list[str] = []
            with CatchPluginErrors() as caught:
                self.try_move(move, batch, refused)
            if isinstance(caught.error, ComponentError):
                lines = str(caught.error).splitlines()
                networks = [line for line in lines if line.partition(": ")[0] in self.game.networks]
                refused += [with_owner(line, self.names) for line in networks]
            problems += [line for line in refused if line not in problems]
            self.error = self.error or caught.error

    def try_move(self, move: Move, batch: Batch, refused: list[str]) -> None:
        """Tries a move of the game and the penalties of its players, each by itself."""
        with self.game.frozen_in(move):
            turn = self.game.turn(move, batch.parts(self.game.accumulate)[0])
            move.terms(turn)
            for name in move.players:
                penalties = self.game.players[name].penalties
                if penalties and name not in turn.shown:
                    refused.append(f"penalty: the game shows the penalties of {name!r} nothing")
                    continue
                for part, penalty in penalties:
                    self.try_penalty(part, penalty.penalty, turn.shown[name], refused)

    def try_penalty(self, part: str, penalty: Callable[[Step], Tensor], step: Step, refused: list[str]) -> Any:
        """Tries a penalty of the game; adds what it refuses to `refused`, and returns it, or None."""
        step = evolve(step, condition=map_condition(lambda part: part.as_subclass(Tensor), step.condition))
        try:
            return penalty(step)
        except ComponentError as error:
            refused += [f"{self.tables[part]}: {line}" for line in str(error).splitlines()]
            return None

    def take_back(self) -> None:
        """Takes back what updates of the trial have made of its networks' weights; here there are none."""

    def raise_error(self) -> None:
        """Raises what the trial says of `error`, after the last try; here nothing, and the first step will tell."""


def try_game(
    make_trial: Callable[[], GameTrial],
    game: Game,
    components: StepComponents,
    data: DataSpec,
    datasets: tuple[Dataset, Mapping[str, Dataset]],
    problems: list[str],
) -> bool:
    """The probe of a game: each augmentation, move and penalty once, and a few samples, on copies of everything.

    Returns whether any network uses the conditions of the data set.
    """
    world, share = distributed.world_size(), game.batch_size // distributed.world_size()
    few = min(FEW, share // game.accumulate)
    # What fails with a few images may need a whole batch, and what fails then may not take conditions that are tagged.
    tries = dict.fromkeys([(few, 1, True), (share, game.accumulate, True)])
    if datasets[0].condition is not None:
        tries[share, game.accumulate, False] = None
    for count, accumulate, tagged in tries:
        batch, trial = first_rows(*datasets, count, game.device), make_trial()
        found: list[str] = []
        with CatchPluginErrors() as copied:
            trial.prepare(game, components.game, data, count * world, accumulate)
        if copied.error is not None:  # what cannot be copied is not tried; the first step will tell
            return batch.condition is not None
        try_augmentations(components, batch.images, game.device, found)
        trial.try_moves(_tagged(batch) if tagged else batch, found)
        if not found and trial.error is None:
            break
    conditional = trial.conditional or (not tagged and batch.condition is not None)
    problems += found
    if found:
        return conditional
    if trial.error is not None:
        trial.raise_error()
        return conditional
    trial.take_back()
    networks = trial.game.networks
    try:
        for name, sampler in game.rules.all_samplers.items():
            condition = (
                {"dataset": batch, **batch.streams}[sampler.source].images if sampler.source else batch.condition
            )
            given = condition if conditional or sampler.source else None
            like = data.streams[sampler.makes] if sampler.makes else data.images
            check_sampled_images(NetworkSampler(sampler, networks), name, like, game.device, given)
        check_outputs(game.rules, networks, batch, data.images)
    except UserError as error:
        raise type(error)(*(with_owner(line, trial.names) for line in error.problems)) from error
    return conditional


def with_owner(line: str, names: Mapping[str, str]) -> str:
    """A refusal in the trial of a game, with the component behind the network that it begins with, if any."""
    part, colon, _ = line.partition(": ")
    return f"{line} ({names[part]})" if colon and part in names else line if colon else f"game: {line}"


def try_augmentations(components: StepComponents, images: Tensor, device: torch.device, problems: list[str]) -> None:
    """Probes augmentations: calls each once, and adds those that refuse the data set's images to `problems`."""
    for index, augmentation in enumerate(components.experiment.augmentation):
        with collect_component_errors(problems, f"augmentation[{index}]", device):
            copy.deepcopy(augmentation).augment(images)
