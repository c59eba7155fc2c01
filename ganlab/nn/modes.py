"""Temporary modes of a network: frozen parameters, and eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen_parameters(network: nn.Module) -> Iterator[None]:
    """Freezes a network's parameters in the body: they require no gradient; afterwards `requires_grad` is restored."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Puts a network in eval mode, without gradients; afterwards each module's training mode is restored."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
