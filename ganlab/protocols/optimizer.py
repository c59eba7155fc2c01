"""ganlab.protocols.optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn


@runtime_checkable
class OptimizerConfig(Protocol):
    """The options of an optimiser."""

    def build(self, parameters: Iterable[nn.Parameter], /) -> torch.optim.Optimizer:
        """Makes the optimiser of one player."""
        ...
