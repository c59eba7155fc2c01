"""The check for NaN and infinity in weights, EMA, optimizer state and meters, taken between training steps."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from ganlab.training.loop import Training
from ganlab.training.state import ema_parts
from ganlab.utils.errors import Diverged
from ganlab.utils.state_tree import find_non_finite


@define
class FiniteCheck:
    """The finite check, at most once a step, of weights, EMA, optimizer state and meters.

    Buffers and the states of components are not checked: a mask may be infinite.
    """

    training: Training
    _checked: int = field(default=-1, init=False)

    def __call__(self, step: int) -> None:
        """The finite check: raises Diverged where weights, EMA, optimizer state or meters are NaN or infinite."""
        if self._checked == step:
            return
        game = self.training.game
        networks = {**game.networks, **ema_parts(self.training)}
        state: dict[str, Any] = {name: dict(network.named_parameters()) for name, network in networks.items()}
        state["optimizers"] = {name: player.optimizer.state_dict() for name, player in game.players.items()}
        state["meters"] = game.meters.sums
        if where := find_non_finite(state):
            raise Diverged(f"diverged: {where} is not finite after step {step:,}")
        self._checked = step
