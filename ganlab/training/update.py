"""One update of one player: the gradient of its loss and penalties, what is done to it, and the optimiser's step.

Decisions:
- A batch may pass in parts, so that it needs the memory of one: their gradients are added up, each divided by how many
  there are, which leaves a mean over the batch what it was.
- The gradient is complete before it is clipped: parts, penalties and the shares of all processes are in it.
- An update is stopped without asking the device whether it is: the optimiser makes its step, and everything that it
  changed is put back where the mask says so. What it keeps of a parameter it may make in its first step; what was not
  there before is put back to zeros. Whether a stopped update really leaves no trace, build finds with a probe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from ganlab.protocols import Penalty, Step
from ganlab.utils import distributed


@frozen
class Player:
    """A network, its optimiser, and the penalties of its loss, each with the name it is logged under.

    `clip_norm` is the most that the norm of its gradient may be. An update whose loss is under `stop_under` is stopped.
    """

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    penalties: Sequence[tuple[str, Penalty]] = ()
    clip_norm: float | None = None
    stop_under: float | None = None

    @property
    def loss_name(self) -> str:
        return f"loss_{self.name}"

    def due(self, updates: int) -> tuple[str, ...]:
        """The names of the penalties that count in the update after so many."""
        return tuple(name for name, penalty in self.penalties if updates % penalty.every == 0)


@define
class Update:
    """The player's update after `updates` others, of a batch in so many `parts`; `report` is told each term by name."""

    player: Player
    updates: int
    parts: int
    report: Callable[[str, Tensor], None]
    _loss: Tensor | None = field(default=None, init=False)
    _begun: bool = field(default=False, init=False)

    def add(self, loss: Tensor, step: Step) -> None:
        """Adds the gradient of a part's loss, and of the penalties that are due, which are shown `step`."""
        player = self.player
        self.report(player.loss_name, loss)
        if player.stop_under is not None:
            share = loss.detach() / self.parts
            self._loss = share if self._loss is None else self._loss + share
        total = loss
        due = player.due(self.updates)
        for name, penalty in player.penalties:
            if name in due:
                term = penalty.penalty(step)
                self.report(name, term)
                weight = penalty.every / distributed.world_size()
                total = total + (term if weight == 1 else weight * term)
        if not self._begun:
            player.optimizer.zero_grad(set_to_none=True)
            self._begun = True
        (total if self.parts == 1 else total / self.parts).backward()

    def finish(self) -> None:
        """The optimiser's step, once all parts have been added."""
        player = self.player
        distributed.all_reduce_gradients(player.network.parameters())
        if player.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(player.network.parameters(), player.clip_norm)
            self.report(f"grad_norm_{player.name}", norm)
        if player.stop_under is None or self._loss is None:
            player.optimizer.step()
        else:
            # Every process has the loss of the whole batch; that all stop together must not hang on its last bit.
            stopped = distributed.all_reduce_mean(self._loss) < player.stop_under
            self.report(f"stopped_{player.name}", stopped.float())
            step_unless(stopped, player.optimizer)


@torch.no_grad()
def step_unless(stopped: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The optimiser's step, which changes nothing where `stopped`, a 0-dim tensor of bool, is true."""
    before = {key: tensor.clone() for key, tensor in _changeable(optimizer).items()}
    optimizer.step()
    for key, tensor in _changeable(optimizer).items():
        here = stopped.to(tensor.device)  # a counter may be on the CPU
        if key in before:
            tensor.copy_(torch.where(here, before[key], tensor))
        else:
            tensor.masked_fill_(here, 0)


def _changeable(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], Tensor]:
    """The parameters, and the tensors that the optimiser keeps of each."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found: dict[tuple[int, str], Tensor] = {}
    for number, parameter in enumerate(parameters):
        found[number, ""] = parameter
        kept: dict[str, Any] = optimizer.state.get(parameter, {})
        found |= {(number, name): value for name, value in kept.items() if isinstance(value, Tensor)}
    return found
