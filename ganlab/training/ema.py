"""ganlab.training.ema."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def decay_of(half_life: float, images: int) -> float:
    """The decay of a step of so many images by which old weights lose half their share in `half_life` images."""
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0


class EMA:
    """The exponential moving average of a network's weights; buffers are copied (Yazici et al. 2019, arXiv:1806.04498).

    Batch norm's running statistics are buffers: an average without them would be evaluated with the initial ones.
    """

    def __init__(self, network: nn.Module, average: nn.Module, decay: float, moves: bool = False) -> None:
        """`decay` is that of a step; where it `moves`, `fill` sets it between steps, captured ones too."""
        self.decay = decay
        self.network = average.requires_grad_(False).eval()
        self._averages: list[Tensor] = list(average.parameters())
        self._weights: list[Tensor] = list(network.parameters())
        self._averaged_buffers: list[Tensor] = list(average.buffers())
        self._buffers: list[Tensor] = list(network.buffers())
        self._share = 1.0 - decay
        self._moving_share = torch.full((), self._share, device=self._weights[0].device) if moves else None

    @property
    def moves(self) -> bool:
        return self._moving_share is not None

    def fill(self, decay: float) -> None:
        """Sets the decay of the steps to come, of an average whose decay moves."""
        assert self._moving_share is not None
        self._moving_share.fill_(1.0 - decay)

    @torch.no_grad()
    def update(self) -> None:
        if self._moving_share is not None:
            # A lerp would read its weight back.
            change = torch._foreach_sub(self._weights, self._averages)
            torch._foreach_mul_(change, self._moving_share)
            torch._foreach_add_(self._averages, change)
        else:
            torch._foreach_lerp_(self._averages, self._weights, self._share)
        if self._buffers:
            torch._foreach_copy_(self._averaged_buffers, self._buffers)
