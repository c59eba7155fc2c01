"""One update of a move's players: gradient of loss and penalties, accumulation, all-reduce, clipping, optimiser step.

Decisions:
- With gradient accumulation a batch passes in parts, so that it needs the memory of one part. Their gradients are
  added, each divided by the number of parts, so that a mean over the batch stays the same.
- The gradient is complete before it is clipped: all parts, penalties and processes are in it.
- A stopped update (`stop_*_under`) never asks the device whether it is stopped: the optimiser makes its step, and then
  all that it changed is restored where the mask is true. State that the optimiser creates in its first step is reset to
  zeros. Whether an optimiser's updates can be undone so is found by a probe (`probes.can_undo_updates`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from ganlab.protocols import Penalty, Step
from ganlab.utils import distributed
from ganlab.utils.errors import ComponentError


@frozen
class Player:
    """A player as its update needs it: a network, its optimiser, and the loss's penalties by their names in the log.

    `table` is the table of the experiment file that its optimiser may be in. `clip_norm` is the maximum norm of the
    gradient.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    table: str = ""
    penalties: Sequence[tuple[str, Penalty]] = ()
    clip_norm: float | None = None

    def due_penalties(self, updates: int) -> list[tuple[str, Penalty]]:
        """The penalties that are due, with their names."""
        return [(name, penalty) for name, penalty in self.penalties if updates % penalty.every == 0]


@define
class Update:
    """One update of a move's players, after `updates` earlier ones, of a batch in `parts`.

    `report` receives each term of the loss. An update whose loss is under `stop_under` is stopped.
    """

    move: str
    players: Sequence[Player]
    updates: int
    parts: int
    report: Callable[[str, Tensor], None]
    stop_under: float | None = None
    _loss: Tensor | None = field(default=None, init=False)
    _gradients_zeroed: bool = field(default=False, init=False)

    def add(self, loss: Tensor, steps: Mapping[str, Step]) -> None:
        """Adds to the update one part's gradient: of its loss and of the penalties that are due.

        `steps` is what the penalties are given, by the player's name.
        """
        self.report(f"loss_{self.move}", loss)
        if self.stop_under is not None:
            share = loss.detach() / self.parts
            self._loss = share if self._loss is None else self._loss + share
        total = loss
        for player in self.players:
            for name, penalty in player.due_penalties(self.updates):
                if player.name not in steps:
                    raise ComponentError(f"penalty: the game shows the penalties of {player.name!r} nothing")
                term = penalty.penalty(steps[player.name])
                self.report(name, term)
                total = total + (term if penalty.every == 1 else penalty.every * term)
        if not self._gradients_zeroed:
            for player in self.players:
                player.optimizer.zero_grad(set_to_none=True)
            self._gradients_zeroed = True
        (total if self.parts == 1 else total / self.parts).backward()

    def finish(self) -> None:
        """Finishes an update after its last part: averages and clips the gradients, steps the players' optimisers."""
        for player in self.players:
            distributed.all_reduce_mean_gradients(player.network.parameters())
            if player.clip_norm is not None:
                norm = nn.utils.clip_grad_norm_(player.network.parameters(), player.clip_norm)
                self.report(f"grad_norm_{player.name}", norm)
        stopped = None
        if self.stop_under is not None and self._loss is not None:
            # Every process has the loss of the whole batch, but perhaps with other last bits: all must decide the same.
            stopped = distributed.all_reduce_mean(self._loss) < self.stop_under
            self.report(f"stopped_{self.move}", stopped.float())
        for player in self.players:
            if stopped is None:
                player.optimizer.step()
            else:
                step_unless_stopped(stopped, player.optimizer)


@torch.no_grad()
def step_unless_stopped(stopped: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The end of an update: the optimiser's step, undone where `stopped`, a 0-dim bool tensor, is true."""
    before = {key: tensor.clone() for key, tensor in optimizer_tensors(optimizer).items()}
    optimizer.step()
    for key, tensor in optimizer_tensors(optimizer).items():
        mask = stopped.to(tensor.device)  # an optimiser's step counter may be on the CPU
        if key in before:
            tensor.copy_(torch.where(mask, before[key], tensor))
        else:
            tensor.masked_fill_(mask, 0)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], Tensor]:
    """What an update changes in its optimiser: parameters and state, by parameter index and state's name."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found: dict[tuple[int, str], Tensor] = {}
    for index, parameter in enumerate(parameters):
        found[index, ""] = parameter
        state: dict[str, Any] = optimizer.state.get(parameter, {})
        found |= {(index, name): value for name, value in state.items() if isinstance(value, Tensor)}
    return found
