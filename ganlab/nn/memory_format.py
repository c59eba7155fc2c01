"""The memory format of networks: channels last, in which 2-D convolutions are faster. It changes the last bits."""

from __future__ import annotations

import torch
from torch import nn


def use_channels_last(network: nn.Module) -> None:
    """Converts a network with 2-D convolutions to the channels-last memory format, in place."""
    if has_convolutions(network):
        network.to(memory_format=torch.channels_last)


def has_convolutions(network: nn.Module) -> bool:
    """Whether the channels-last memory format is faster for a network: whether it has 2-D convolutions."""
    return any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in network.modules())
