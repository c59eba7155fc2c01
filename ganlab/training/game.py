"""The game in training: its networks and players, and the updates of its moves.

Decisions:
- A game is built once, before step 0, from plain objects; nothing here knows pluggy, names of components or files.
- A move returns the terms of its loss; the core does all else that an update needs. So every game has accumulation,
  penalties, clipping, stopped updates, processes and captured steps.
- In a move all parameters are frozen but those of its players, so no gradient of the others is computed.
- On many processes gradients are averaged. A loss of logits that are gathered from all of them is that of the whole
  batch, whatever the loss is.
- Nothing is read back from the device: scalars are summed in tensors that are read once a tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from attrs import define, field
from torch import Tensor, nn

from ganlab.nn.modes import frozen_parameters
from ganlab.protocols import Augmentation, Batch, Move, Rules, Turn
from ganlab.protocols.turn import StateUpdate
from ganlab.training.meters import Meters
from ganlab.training.update import Player, Update
from ganlab.utils.errors import ComponentError
from ganlab.utils.named import Named
from ganlab.utils.part_states import PartStates


@define
class Game:
    """A game as it is trained: its rules, its networks by name, and the players, the networks that are trained.

    `batch_size` is that of all processes together; it passes in `accumulate` parts.
    `noise` is the random generator of what moves draw, None for torch's default one. `stateful` are the components of
    the step with a state of their own, by their names in a checkpoint.
    """

    rules: Rules
    networks: Mapping[str, nn.Module]
    players: Mapping[str, Player]
    augmentations: Sequence[Augmentation]
    batch_size: int
    device: torch.device
    accumulate: int = 1
    autocast: torch.dtype | None = None
    noise: torch.Generator | None = None
    stateful: Mapping[str, Any] = field(factory=dict)
    meters: Meters = field(factory=Meters)
    images_seen: Tensor = field(init=False)
    _kept: list[dict[str, Any]] = field(init=False)
    _frozen: dict[str, list[nn.Parameter]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.images_seen = torch.zeros((), dtype=torch.int64, device=self.device)
        self.start_step()
        self._frozen = {move.name: list(self._parameters_to_freeze(move)) for move in self.rules.moves}

    def _parameters_to_freeze(self, move: Move) -> Iterator[nn.Parameter]:
        """The game's trainable parameters that a move freezes: those of no player of it."""
        kept = {p for name in (*move.players, *move.unfrozen) for p in self.networks[name].parameters()}
        for network in self.networks.values():
            yield from (p for p in network.parameters() if p.requires_grad and p not in kept)

    def frozen_in(self, move: Move) -> AbstractContextManager[None]:
        """Freezes the game's parameters that a move does not train, in the body."""
        return frozen_parameters(self._frozen[move.name])

    def start_step(self) -> None:
        """Begins a step of the game: its moves share nothing with those of the step before."""
        self._kept = [Named("value in turn.kept", {}) for _ in range(self.accumulate)]

    def make_update(self, move: Move, batch: Batch, updates: int) -> None:
        """Makes one update of a move of the game on a batch; `updates` counts its earlier ones."""
        parts = batch.parts(self.accumulate)
        players = [self.players[name] for name in move.players]
        update = Update(move.name, players, updates, len(parts), self.meters.add, move.stop_under)
        draws: list[Sequence[Tensor]] = []
        own: list[StateUpdate] = []
        states = None
        if len(parts) > 1:
            # Augmentations add up what they observe of each part.
            states = PartStates([one for name, one in self.stateful.items() if not name.startswith("augmentation.")])
        with self.frozen_in(move):
            for index, part in enumerate(parts):
                turn = self.turn(move, part, index, draws, own)
                with nullcontext() if states is None else states.part():
                    update.add(self.sum_terms(move, move.terms(turn)), turn.shown)
            update.finish()
        for change in own:
            change.make()
        if states is not None:
            states.finish(len(parts))

    def turn(
        self,
        move: Move,
        part: Batch,
        index: int = 0,
        draws: list[Sequence[Tensor]] | None = None,
        state_updates: list[StateUpdate] | None = None,
    ) -> Turn:
        """A turn of a move of the game, for one part of a batch; `draws` is what earlier parts have drawn."""
        return Turn(
            move=move.name,
            networks=self.networks,
            batch=part,
            images_seen=self.images_seen,
            kept=self._kept[index],
            log=self.meters.add,
            augmentations=self.augmentations,
            autocast=self.autocast,
            noise=self.noise,
            batch_size=self.batch_size,
            part=index,
            parts=self.accumulate,
            draws=[] if draws is None else draws,
            state_updates=[] if state_updates is None else state_updates,
        )

    def sum_terms(self, move: Move, terms: Any) -> Tensor:
        """The loss of a move of the game, the sum of its terms; each is logged where there are several."""
        if not isinstance(terms, Mapping):
            _check_scalar(f"the loss of the move {move.name!r}", terms)
            return terms  # type: ignore[no-any-return]
        total: Tensor | None = None
        for name, term in terms.items():
            _check_scalar(f"the term {name!r} of the move {move.name!r}", term)
            self.meters.add(f"loss_{move.name}_{name}", term)
            total = term if total is None else total + term
        if total is None:
            raise ComponentError(f"the move {move.name!r} has no terms")
        return total


def _check_scalar(what: str, term: Any) -> None:
    if not isinstance(term, Tensor) or term.ndim:
        is_ = f"a tensor of shape {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
        raise ComponentError(f"{what} is {is_}; expected a scalar tensor")
