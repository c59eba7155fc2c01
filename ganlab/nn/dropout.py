"""Quick dropout: `nn.Dropout` on the CPU with 16 random bits for each value instead of a double."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuickDropout(nn.Dropout):
    """Dropout that draws 16 random bits for each value, where torch's on the CPU draws a double: ten times as fast.

    A value is kept where its bits, as an integer, are below (1 - p) 2^16, rounded. Kept values are divided by exactly
    that probability, so that the mean is preserved.
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


def use_quick_dropout(network: nn.Module, device: torch.device) -> None:
    """Replaces a network's `nn.Dropout` layers by quick dropout where the device is the CPU; subclasses are kept."""
    if device.type == "cpu":
        for parent in network.modules():
            for name, child in list(parent.named_children()):
                if type(child) is nn.Dropout:
                    setattr(parent, name, QuickDropout(child.p, child.inplace))


def has_quick_dropout(network: nn.Module) -> bool:
    """Whether a network has quick dropout layers."""
    return any(isinstance(module, QuickDropout) for module in network.modules())
