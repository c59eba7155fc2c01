"""Temporary modes of a network: frozen parameters, and eval mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen_parameters(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Freezes parameters of networks, which require gradients, in the body; afterwards they require them again."""
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
