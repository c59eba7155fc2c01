"""ganlab.nn.dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def has_quick_dropout(network: nn.Module) -> bool:
    return any(isinstance(module, QuickDropout) for module in network.modules())


class QuickDropout(nn.Dropout):
    """Dropout that draws 16 random bits for a value, where torch's on the CPU draws a double: ten times as fast.

    A value is kept where its bits, as a whole number, lie below (1 - p) 2^16, rounded; what is kept is divided by
    exactly the probability that this gives, so that the mean is kept too.
    """

    def forward(self, input: Tensor) -> Tensor:
        kept = round((1 - self.p) * 2**16)
        if not self.training or kept in (0, 2**16):
            return super().forward(input)
        count = input.numel()
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        below = bits[:count].view(input.shape) < kept - 2**15
        scale = below.to(input.dtype).mul_(2**16 / kept)
        return input.mul_(scale) if self.inplace else input * scale
