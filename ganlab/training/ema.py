"""EMA: the exponential moving average of the sampled networks' weights, which are sampled and scored with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def ema_decay(half_life: float, images: int) -> float:
    """Returns an EMA's decay per step of `images` images, with which old weights lose half their share per half-life.

    `half_life` is in images (Karras et al. 2020).
    """
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0


class EMA:
    """The exponential moving average of networks' weights; buffers are copied (Yazici et al. 2019, arXiv:1806.04498).

    Batch norm's running statistics are buffers: an average without them would be evaluated with the initial ones.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        averages: Mapping[str, nn.Module],
        decay: float,
        decay_changes: bool = False,
    ) -> None:
        """The EMA's copies of the networks, `averages`, hold the averages; `decay` is its decay per step.

        With `decay_changes` the decay is a tensor that `set_decay` fills between steps, captured ones too.
        """
        self.decay = decay
        self.networks = {name: network.requires_grad_(False).eval() for name, network in averages.items()}
        both = [(networks[name], average) for name, average in averages.items()]
        self._averages: list[Tensor] = [p for _, average in both for p in average.parameters()]
        self._weights: list[Tensor] = [p for network, _ in both for p in network.parameters()]
        self._averaged_buffers: list[Tensor] = [b for _, average in both for b in average.buffers()]
        self._buffers: list[Tensor] = [b for network, _ in both for b in network.buffers()]
        self._new_share = 1.0 - decay
        self._new_share_tensor = (
            torch.full((), self._new_share, device=self._weights[0].device) if decay_changes else None
        )

    @property
    def decay_changes(self) -> bool:
        return self._new_share_tensor is not None

    def set_decay(self, decay: float) -> None:
        """Sets the decay of the next steps of an EMA whose decay changes."""
        assert self._new_share_tensor is not None
        self._new_share_tensor.fill_(1.0 - decay)

    @torch.no_grad()
    def update(self) -> None:
        if self._new_share_tensor is not None:
            # `lerp` with a tensor as its weight would read the value back.
            change = torch._foreach_sub(self._weights, self._averages)
            torch._foreach_mul_(change, self._new_share_tensor)
            torch._foreach_add_(self._averages, change)
        else:
            torch._foreach_lerp_(self._averages, self._weights, self._new_share)
        if self._buffers:
            torch._foreach_copy_(self._averaged_buffers, self._buffers)
