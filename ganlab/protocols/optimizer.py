"""The protocol of an optimiser's configuration: what `[optimizer]` builds for each player."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn


@runtime_checkable
class OptimizerConfig(Protocol):
    """An optimizer's protocol, its configuration: its options in the experiment file, and `build`."""

    def build(self, parameters: Iterable[nn.Parameter], /) -> torch.optim.Optimizer:
        """An optimizer's protocol: returns the one of one player's parameters."""
        ...
