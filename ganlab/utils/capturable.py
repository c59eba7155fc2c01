"""Optimisers that can be captured in CUDA graphs: they count their updates on the device."""

from __future__ import annotations

import torch


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Prepares an optimiser for CUDA graphs: on CUDA it counts updates on the device, to be capturable."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    expect_eager_steps(optimizer)


def expect_eager_steps(optimizer: torch.optim.Optimizer) -> None:
    """Keeps torch from warning that a capturable optimiser's steps are not captured, as the first ones never are.

    A copy of an optimiser forgets it.
    """
    vars(optimizer)["_warned_capturable_if_run_uncaptured"] = True
