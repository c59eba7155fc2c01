"""A trial of each player's first update, before the run folder exists: what fails in the first step fails here.

Decisions:
- The trial works on a deep copy of the game, and random states are restored: no bit of the run changes. What cannot be
  copied is not tried, and the first step will tell.
- It takes a few images, so that it costs little. A component that fails with few may need more, so it is tried again
  with a whole batch before it is refused.
- The step itself checks nothing. The trial puts checks around each component: what is returned, and what is changed in
  place, which torch reports in the backward pass, far from the line that did it.
"""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab.config.game_tables import game_fields
from ganlab.config.schema import Experiment
from ganlab.data.game_loader import first_rows
from ganlab.plugin.failures import CatchPluginErrors, attribute_to_plugin
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.registry import Registry
from ganlab.protocols import Batch, Move, Rules, Step, Turn
from ganlab.run.finite_hooks import replacing
from ganlab.training.component_names import component_names
from ganlab.training.game import Game
from ganlab.training.loop import Training
from ganlab.training.meters import Meters
from ganlab.training.probes import FEW, with_owner
from ganlab.training.step_components import penalty_names
from ganlab.utils import distributed
from ganlab.utils.determinism import deterministic
from ganlab.utils.errors import ComponentError, GanlabError, PluginFailed, UserError, one_line
from ganlab.utils.memory import is_out_of_memory
from ganlab.utils.rng import preserve_random_state

BEFORE = "before the first step"


def try_first_updates(training: Training, experiment: Experiment, registry: Registry) -> None:
    """Tries the first update of each move on copies; raises UserError or PluginFailed for what would fail in it."""
    game = training.game
    share = game.batch_size // distributed.world_size()
    names = component_names(experiment, registry, game)
    tables = _penalty_tables(experiment, registry, game)
    error: BaseException | None = None
    with preserve_random_state():
        for count in sorted({min(FEW, share), share}):
            checks = _Checks(names, tables)
            with CatchPluginErrors() as copied:
                trial, rules = _copies(training, checks)
            if copied.error is not None:
                return
            batch = first_rows(training.dataset, training.streams, count, game.device)
            with CatchPluginErrors() as caught, deterministic(experiment.train.deterministic):  # names the operation
                _try(trial, rules, batch, checks)
            error = caught.error
            if error is None or is_out_of_memory(error):  # the run tells what to do about its memory
                return
    if error is not None and not isinstance(error, GanlabError) and checks.failed:
        failure = attribute_to_plugin(error, registry, BEFORE)
        of_game = f"plugin {registry.component_of('game', experiment.game).origin} raised"
        # Code of no plugin, such as torch's, in a network that is made of its modules.
        if not isinstance(failure, PluginFailed) or str(failure).startswith(of_game):
            text = "".join(traceback.format_exception(error))
            failure = PluginFailed(f"{names[checks.failed]} raised {BEFORE}: {_in_words(error)}", text)
        raise failure from error
    if error is not None:
        raise error


def _penalty_tables(experiment: Experiment, registry: Registry, game: Game) -> dict[str, str]:
    """For messages of the trial, the table of each penalty in the experiment file, by its name in the log."""
    tables: dict[str, str] = {}
    for index, base in enumerate(penalty_names(experiment, registry)):
        for player in game.players.values():
            tables |= {
                name: f"penalty[{index}]" for name, _ in player.penalties if name in (base, f"{base}_{player.name}")
            }
    return tables


def _copies(training: Training, checks: _Checks) -> tuple[Game, Rules]:
    """Copies of the game and its rules for the trial, which share nothing with the training.

    The rules are built again, by the game's configuration with checks around its losses.
    """
    noise = training.game.noise
    memo = {} if noise is None else {id(noise): noise.clone_state()}
    game: Game
    config: Any
    game, config = copy.deepcopy((training.game, training.game_config), memo)
    losses = {
        f.alias: checks.around_loss(getattr(config, f.name))
        for f in game_fields(config)
        if f.metadata.get(COMPONENT) == "loss" and getattr(config, f.name) is not None
    }
    rules: Rules = attrs.evolve(config, **losses).build(training.data)
    return game, rules


def _try(game: Game, rules: Rules, batch: Batch, checks: _Checks) -> None:
    """Makes one update of each move in the trial, with checks around every component."""
    share = game.batch_size // distributed.world_size()
    count, accumulate = game.batch_size, game.accumulate
    if len(batch.images) < share:
        count, accumulate = len(batch.images) * distributed.world_size(), 1
    trial = checks.checked(game, rules, count, accumulate)
    for move in trial.rules.moves:
        with checks.explained(move.name):
            trial.make_update(move, batch, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Checks around the components
# ---------------------------------------------------------------------------------------------------------------------


@define
class _CheckedMeters(Meters):
    """The trial's meters: every term of the first update is added to them, and must be a scalar."""

    check: Callable[[str, Any], None] = field(kw_only=True)

    def add(self, name: str, value: Any) -> None:
        self.check(name, value)
        super().add(name, value)


@define
class _Checks:
    """The trial's checks around the components of a game.

    `names` are the components behind the parts, and `tables` the tables of penalties, by their names in the log.
    """

    names: Mapping[str, str]
    tables: Mapping[str, str]
    _inside: list[str] = field(factory=list)
    _watched: dict[str, Tensor] = field(factory=dict)
    _changes: list[tuple[str, str, Tensor, int]] = field(factory=list)
    _device: torch.device | None = None

    def checked(self, game: Game, rules: Rules, batch_size: int, accumulate: int) -> Game:
        """The trial's game, of a copy: with checks around its components, and batches of another size."""
        self._device = game.device
        for name, network in game.networks.items():
            for kind, tensors in (("parameter", network.named_parameters()), ("buffer", network.named_buffers())):
                self._watched |= {f"the {kind} {part!r} of the {name}": tensor for part, tensor in tensors}
            self._check_network(name, network)
        players = {
            name: attrs.evolve(
                player,
                penalties=[
                    (part, replacing(penalty, penalty=self._around(part, penalty.penalty)))
                    for part, penalty in player.penalties
                ],
            )
            for name, player in game.players.items()
        }
        return attrs.evolve(
            game,
            rules=attrs.evolve(
                rules, moves=[attrs.evolve(move, terms=self._checked_terms(move)) for move in rules.moves]
            ),
            players=players,
            augmentations=[
                replacing(part, augment=self._around(f"augmentation[{index}]", part.augment))
                for index, part in enumerate(game.augmentations)
            ],
            batch_size=batch_size,
            accumulate=accumulate,
            meters=_CheckedMeters(check=self._check_scalar),
        )

    def around_loss(self, loss: Any) -> Any:
        """A loss of the trial with checks around its methods."""
        return replacing(loss, **{name: self._around("loss", getattr(loss, name)) for name in KINDS["loss"].members})

    def _checked_terms(self, move: Move) -> Callable[[Turn], Any]:
        """The terms of a move in the trial, each of which must be a scalar."""

        def terms(turn: Turn) -> Any:
            found = move.terms(turn)
            parts = found if isinstance(found, Mapping) else {"": found}
            for name, term in parts.items():
                self._check_scalar(f"loss_{move.name}_{name}" if name else f"loss_{move.name}", term, move.name)
            return found

        return terms

    def _check_network(self, name: str, network: nn.Module) -> None:
        """Puts a check around the forward pass of a network in the trial."""
        entered: list[tuple[int, dict[str, tuple[Tensor, int]]]] = []

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            entered.append((len(self._inside), self._versions(inputs)))
            self._inside.append(name)

        def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            depth, versions = entered.pop()
            self._left(name, depth, versions)

        network.register_forward_pre_hook(enter)
        network.register_forward_hook(leave)

    def _around(self, part: str, compute: Callable[..., Any]) -> Callable[..., Any]:
        """A component's function in the trial: notes what it changes in place, and where an exception is raised."""

        def checked(*inputs: Any, **more: Any) -> Any:
            depth, versions = len(self._inside), self._versions(inputs)
            self._inside.append(part)
            result = compute(*inputs, **more)
            self._left(part, depth, versions)
            return result

        return checked

    def _versions(self, inputs: Sequence[Any]) -> dict[str, tuple[Tensor, int]]:
        """The tensors that a part of the trial may change in place, each with the count of its changes so far."""
        return {name: (t, t._version) for name, t in [*self._watched.items(), *_inputs(inputs)]}

    def _left(self, part: str, depth: int, versions: Mapping[str, tuple[Tensor, int]]) -> None:
        """Notes that a part of the trial has returned, and what it has changed in place."""
        del self._inside[depth:]
        for name, (tensor, version) in versions.items():
            if tensor._version != version:
                self._changes.append((part, name, tensor, tensor._version))

    def _check_scalar(self, name: str, value: Any, move: str = "") -> None:
        """Check of a term in the trial: raises UserError where it is not a scalar. `move` is the one that it is of."""
        is_term = bool(move) or name in self.tables
        if isinstance(value, Tensor) and value.shape == () and (value.is_floating_point() or not is_term):
            if self._device is None or value.device.type == self._device.type:
                return
            problem = f"on {value.device}, and the run is on {self._device}"
        else:
            got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            problem = f"{got}; expected a scalar of floats, such as the mean over a batch"
        part = name.removeprefix(f"loss_{move}").removeprefix("_")
        what = "the term" if is_term else f"the measure {name!r}"
        if move:
            what = f"the term {part!r} of the {move}'s loss" if part else f"the {move}'s loss"
        owner = self.names.get(f"loss_{move}" if move else name)
        table = (
            ("loss" if self.has_loss else "game") if move else self._table(name) if is_term else "loss or augmentation"
        )
        raise UserError(f"{table}: {what} is {problem}" + (f" ({owner})" if owner else ""))

    @property
    def has_loss(self) -> bool:
        """Whether the game of the trial has a loss."""
        return self.names["loss"] != self.names["game"]

    @contextmanager
    def explained(self, player: str) -> Iterator[None]:
        """Explains errors of the body, an update of the trial, that do not name their cause."""
        try:
            yield
        except ComponentError as error:
            lines = str(error).splitlines()
            if self.failed:
                raise UserError(*(f"{self._table(self.failed)}: {line}" for line in lines)) from error
            raise UserError(*(with_owner(line, self.names) for line in lines)) from error
        except RuntimeError as error:
            explanation = None if self.failed else self._explanation(error, player)
            if explanation is None:
                raise
            raise UserError(explanation) from error

    @property
    def failed(self) -> str:
        """The part of the trial in which an exception was raised."""
        return self._inside[-1] if self._inside else ""

    def _explanation(self, error: RuntimeError, player: str) -> str | None:
        if "does not require grad and does not have a grad_fn" in str(error):
            owner = self.names[f"loss_{player}"]
            table = "loss" if self.has_loss else "game"
            return f"{table}: the {player}'s loss has no gradient with respect to the {player}'s weights ({owner})"
        match = re.search(r"modified by an inplace operation: \[\S+ \[([\d, ]*)\]\].*? is at version (\d+)", str(error))
        if match is None:
            return None
        shape, version = [int(side) for side in match[1].split(",") if side.strip()], int(match[2])
        # The tensor that torch names may be a view, such as a transposed weight, and has the version of the whole.
        alike = [change for change in self._changes if [*change[2].shape] == shape and change[3] == version]
        for part, name, *_ in alike or [change for change in self._changes if change[3] == version]:
            return (
                f"{self._table(part)}: changes {name} in place, after the forward pass has used it, so that it has no "
                f"gradient; change a copy ({self.names[part]})"
            )
        return None

    def _table(self, part: str) -> str:
        """The table of a part that the trial has checked, in the experiment file."""
        return self.tables.get(part, part)


def _inputs(inputs: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors that a component is given in the trial, each with its name in a message."""
    for number, value in enumerate(inputs):
        if isinstance(value, Step):
            parts = {f.name: getattr(value, f.name) for f in attrs.fields(Step)}
            yield from ((f"its step's {name}", part) for name, part in parts.items() if isinstance(part, Tensor))
        elif isinstance(value, Tensor):
            yield f"its input {number + 1}", value


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
