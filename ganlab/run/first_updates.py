"""A trial of each player's first update, before the run folder exists: what fails in the first step fails here.

Decisions:
- It is the trial that `build` makes of any game, with more checks: it works on copies of everything, and the random
  stream of the training begins afterwards, so that no bit of the run changes.
- It takes a few images, so that it costs little. A component that fails with few may need more, so it is tried again
  with a whole batch before it is refused.
- The step itself checks nothing. The trial puts checks around each component: what is returned, and what is changed in
  place, which torch reports in the backward pass, far from the line that did it.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, NoReturn

import attrs
import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab.config.game_tables import game_fields
from ganlab.config.schema import Experiment
from ganlab.plugin.failures import attribute_to_plugin
from ganlab.plugin.fields import COMPONENT
from ganlab.plugin.kinds import KINDS
from ganlab.plugin.registry import Registry
from ganlab.protocols import Batch, DataSpec, GameConfig, Move, Penalty, Step, Turn
from ganlab.protocols.rules_check import LOGGED
from ganlab.run.finite_hooks import replacing
from ganlab.run.log_names import LogNames
from ganlab.training.checkpoint import check_state
from ganlab.training.game import Game
from ganlab.training.meters import Meters
from ganlab.training.probes import GameTrial, with_owner
from ganlab.utils.determinism import deterministic
from ganlab.utils.errors import (
    ComponentError,
    GanlabError,
    InvalidRules,
    PluginFailed,
    UserError,
    error_text,
    is_lost_process,
    one_line,
)
from ganlab.utils.memory import is_out_of_memory

BEFORE = "before the first step"

NAME_OF_TERM = "a text of letters, digits, '_', '-' and '.'"


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
class FirstUpdates(GameTrial):
    """The trial of a run's game: the first update of each move, with checks around every component.

    `registry` names the plugin of an error. The operations of the trial are deterministic where the experiment is.
    """

    updates: ClassVar[bool] = True

    experiment: Experiment = field(kw_only=True)
    registry: Registry = field(kw_only=True)
    _inside: list[str] = field(factory=list, init=False)
    _watched: dict[str, Tensor] = field(factory=dict, init=False)
    _changes: list[tuple[str, str, Tensor, int]] = field(factory=list, init=False)
    _refused: list[str] = field(factory=list, init=False)
    _failed: str = field(default="", init=False)
    _move: str = field(default="", init=False)
    _moved: bool = field(default=False, init=False)
    _original: Mapping[str, nn.Module] = field(factory=dict, init=False)
    _log_names: LogNames = field(init=False)

    def prepare(self, game: Game, config: GameConfig, data: DataSpec, batch_size: int, accumulate: int) -> None:
        """Makes the trial's copies of a game."""
        self._original = game.networks
        super().prepare(game, config, data, batch_size, accumulate)

    def with_losses(self, config: Any) -> Any:
        """The configuration of the trial's game with checks around its losses."""
        losses = {
            f.alias: self._around_loss(getattr(config, f.name))
            for f in game_fields(config)
            if f.metadata.get(COMPONENT) == "loss" and getattr(config, f.name) is not None
        }
        return attrs.evolve(config, **losses)

    def with_checks(self, game: Game) -> Game:
        """The trial's game with checks around its components."""
        self._log_names = LogNames.of(self.experiment, game)
        for name, network in game.networks.items():
            for kind, tensors in (("parameter", network.named_parameters()), ("buffer", network.named_buffers())):
                self._watched |= {f"the {kind} {part!r} of the {name}": tensor for part, tensor in tensors}
            self._check_network(name, network)
        players = {
            name: attrs.evolve(
                player, penalties=[(part, self._around_penalty(part, penalty)) for part, penalty in player.penalties]
            )
            for name, player in game.players.items()
        }
        moves = [attrs.evolve(move, terms=self._checked_terms(move)) for move in game.rules.moves]
        return attrs.evolve(
            game,
            rules=attrs.evolve(game.rules, moves=moves),
            players=players,
            augmentations=[
                replacing(part, augment=self._around(f"augmentation[{index}]", part.augment))
                for index, part in enumerate(game.augmentations)
            ],
            meters=_CheckedMeters(check=self._check_scalar),
        )

    def try_move(self, move: Move, batch: Batch, refused: list[str]) -> None:
        """Makes an update of a move in the trial."""
        del self._inside[:]
        self._refused = refused
        try:
            with deterministic(self.experiment.train.deterministic), self._explained(move.name):  # names the operation
                self.game.make_update(move, batch, 0)
            self._moved = True
            self._check_states()
            self._check_averaged_buffers()
        finally:
            if self.error is None:  # the first that a move raises is told, and where it was raised
                self._failed, self._move = self.failed, move.name

    def _check_states(self) -> None:
        """Refuses what a component of the trial keeps and no checkpoint would give back, before a run relies on it."""
        game = self.game
        parts: list[tuple[str, Any]] = [*game.networks.items()]
        parts += [(self._owner(path), part) for path, part in game.stateful.items()]
        parts += [("game", part) for part in game.rules.state.values()]
        parts += [(f"{player.name}.optimizer", player.optimizer) for player in game.players.values()]
        for name, part in parts:
            if not hasattr(part, "state_dict"):
                continue
            state, problem = part.state_dict(), ""
            try:
                check_state(state)
            except TypeError as error:
                problem = f"its state_dict() cannot be saved: {one_line(error)}"
            if not callable(getattr(part, "load_state_dict", None)):
                problem = "it has state_dict() and no load_state_dict(state)"
            if problem:
                raise UserError(f"{self._table(name)}: {problem} ({self.names[name]})")

    def _check_averaged_buffers(self) -> None:
        """Refuses a buffer that a network has replaced in the trial: the running average would keep the first one."""
        train = self.experiment.train
        for name in self.game.rules.sampled if train.ema or train.ema_half_life else ():
            for part, buffer in self.game.networks[name].named_buffers():
                if self._watched.get(f"the buffer {part!r} of the {name}") is not buffer:
                    raise UserError(
                        f"{name}: replaces its buffer {part!r}, of which a running average (train.ema) would keep the "
                        f"first values; change it in place, as by copy_() ({self.names[name]})"
                    )

    def _owner(self, path: str) -> str:
        """The part of the trial that is, or holds, a component of this name in a checkpoint, such as "penalty.0"."""
        kind, index, *_ = [*path.split("."), ""]
        table = f"{kind}[{index}]"
        part = next((part for part, of in self.tables.items() if of == table), table)
        return part if part in self.names else "loss"

    def take_back(self) -> None:
        """Gives the trial's networks their first weights again."""
        for name, network in self.game.networks.items():
            network.load_state_dict(self._original[name].state_dict())

    def raise_error(self) -> None:
        """Raises UserError or PluginFailed for what would fail in the first update."""
        error = self.error
        if error is None or is_out_of_memory(error):  # the run tells what to do about its memory
            return
        if not isinstance(error, GanlabError) and self._failed and not is_lost_process(error):
            failure = attribute_to_plugin(error, self.registry, BEFORE)
            of_game = f"plugin {self.registry.component_of('game', self.experiment.game).origin} raised"
            # Code of no plugin, such as torch's, in a network that is made of its modules.
            if not isinstance(failure, PluginFailed) or str(failure).startswith(of_game):
                text = "".join(traceback.format_exception(error))
                where = f", in the network {self._failed!r}, in the move {self._move!r}"
                where = where if self._failed in self.game.networks else ""
                failure = PluginFailed(f"{self.names[self._failed]} raised {BEFORE}: {error_text(error)}{where}", text)
            raise failure from error
        if isinstance(error, ComponentError):
            table, lines = self._table(self._failed), str(error).splitlines()
            named = [f"{table}: {line}" if self._failed else self._of_game(line) for line in lines]
            *_, last = traceback.walk_tb(error.__traceback__)
            by_core = self.registry.origin_of(last[0].f_code.co_filename) is None
            raise (InvalidRules if by_core and not self._failed else UserError)(*named) from error
        raise error

    def _of_game(self, line: str) -> str:
        """A refusal of a move in the trial, in one line that says whose it is."""
        if line.partition(": ")[0] in self.names:
            return with_owner(line, self.names)
        return f"game: {line} (in the move {self._move!r} of the {self.names['game']})"

    def _around_loss(self, loss: Any) -> Any:
        """A loss of the trial with checks around its methods."""
        return replacing(loss, **{name: self._around("loss", getattr(loss, name)) for name in KINDS["loss"].members})

    def _around_penalty(self, part: str, penalty: Penalty) -> Any:
        """A penalty in the trial: what it refuses is noted, so that what others refuse is found too."""
        checked = self._around(part, penalty.penalty)

        def tried(step: Step) -> Any:
            depth, known = len(self._inside), len(self._refused)
            value = self.try_penalty(part, checked, step, self._refused)
            if len(self._refused) == known:
                return value
            del self._inside[depth:]
            return torch.zeros((), device=step.fake.device)

        return replacing(penalty, penalty=tried)

    def _checked_terms(self, move: Move) -> Callable[[Turn], Any]:
        """The terms of a move in the trial, each of which must be a scalar with a name of its own in the log."""

        def terms(turn: Turn) -> Any:
            turn.log = partial(self._log, turn.log)
            found = move.terms(turn)
            parts = found if isinstance(found, Mapping) else {"": found}
            if self._moved and not all(_is_finite(term) for term in parts.values()):
                # Is it the terms, or what an earlier move's step has made of the weights?
                self.take_back()
                found = move.terms(turn)
                parts = found if isinstance(found, Mapping) else {"": found}
            for name, term in parts.items():
                if isinstance(found, Mapping):
                    if not (isinstance(name, str) and LOGGED.fullmatch(name)):
                        shown = one_line(repr(name), 60)
                        self._refuse(f"a term of the move {move.name!r} is named {shown}; expected {NAME_OF_TERM}")
                    self._log_names.claim(f"loss_{move.name}_{name}", f"the term {name!r} of the move {move.name!r}")
                self._check_scalar(f"loss_{move.name}_{name}" if name else f"loss_{move.name}", term, move.name)
            return found

        return terms

    def _log(self, log: Callable[[str, Tensor], None], name: str, value: Tensor) -> None:
        """What a game logs itself in the trial (`Turn.log`): it must not be something else's in the log."""
        if not isinstance(name, str):
            self._refuse(f"turn.log logs a value as {one_line(repr(name), 60)}; expected a text")
        self._log_names.claim(name, "a value of turn.log")
        log(name, value)

    def _refuse(self, text: str) -> NoReturn:
        raise InvalidRules(f"game: {text} ({self.names['game']})")

    def _check_network(self, name: str, network: nn.Module) -> None:
        """Puts a check around the forward pass of a network in the trial."""
        entered: list[tuple[int, dict[str, tuple[Tensor, int]]]] = []

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            # The game's mistake, which would otherwise be raised in the network and look like its own.
            for given in inputs:
                if isinstance(given, Tensor) and given.device.type != self.game.device.type:
                    where = f"on {given.device}, and the run is on {self.game.device}"
                    raise RuntimeError(f"the network {name!r} is given a tensor {where}")
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
        """Check of a term in the trial: raises UserError unless it is a finite scalar. `move` is the one it is of."""
        is_term = bool(move) or name in self.tables
        if isinstance(value, Tensor) and value.shape == () and (value.is_floating_point() or not is_term):
            if value.device.type != self.game.device.type:
                problem = f"on {value.device}, and the run is on {self.game.device}"
            elif _is_finite(value) or (not move and (self._moved or not is_term)):
                return
            else:
                problem = f"{float(value.detach())} in the first update; expected a finite number"
        else:
            got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            problem = f"{got}; expected a scalar of floats, such as the mean over a batch"
        part = name.removeprefix(f"loss_{move}").removeprefix("_")
        what = "the term" if is_term else f"the measure {name!r}"
        if move:
            what = f"the term {part!r} of the {move}'s loss" if part else f"the {move}'s loss"
        owner = self.names.get(f"loss_{move}" if move else name)
        table = "game"
        if self.has_loss or self.experiment.augmentation:
            table = "loss" if move and self.has_loss else "game" if move else "game, loss or augmentation"
        table = self._table(name) if is_term and not move else table
        owner = self.names["game"] if table == "game" else owner
        refusal = InvalidRules if table == "game" else UserError
        raise refusal(f"{table}: {what} is {problem}" + (f" ({owner})" if owner else ""))

    @property
    def has_loss(self) -> bool:
        """Whether the game of the trial has a loss."""
        return self.names["loss"] != self.names["game"]

    @contextmanager
    def _explained(self, player: str) -> Iterator[None]:
        """Explains errors of the body, an update of the trial, that do not name their cause."""
        try:
            yield
        except RuntimeError as error:
            explanation = None if self.failed else self._explanation(error, player)
            if explanation is None:
                raise
            raise (InvalidRules if explanation.startswith("game: ") else UserError)(explanation) from error

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
            if isinstance(value.condition, Mapping):
                yield from ((f"its step's condition {name!r}", part) for name, part in value.condition.items())
        elif isinstance(value, Tensor):
            yield f"its input {number + 1}", value
        elif isinstance(value, Mapping):  # of several conditions
            parts = {name: part for name, part in value.items() if isinstance(part, Tensor)}
            yield from ((f"its input {number + 1} {name!r}", part) for name, part in parts.items())


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(value.detach().isfinite().all())
