"""What makes a step cheaper without changing what it computes, and the probes that find where that is allowed.

Decisions:
- A plugin declares nothing: a probe finds what its code does. NaN in tells where NaN comes out.
- Each lever that moves the last bits, or draws other random numbers, is written down in run.json (`step_levers`).
"""

from __future__ import annotations

import torch
from torch import nn

from ganlab.nn.dropout import QuickDropout


def prepare(network: nn.Module, device: torch.device) -> None:
    """Lays a network with convolutions out channels last; on the CPU, makes its dropout quick."""
    if has_convolutions(network):
        network.to(memory_format=torch.channels_last)
    if device.type == "cpu":
        for parent in network.modules():
            for name, child in list(parent.named_children()):
                if type(child) is nn.Dropout:
                    setattr(parent, name, QuickDropout(child.p, child.inplace))


def has_convolutions(network: nn.Module) -> bool:
    """Whether the channels-last memory format is faster for the network: its 2-D convolutions are."""
    return any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in network.modules())
