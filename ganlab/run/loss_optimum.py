"""A probe of a loss: how far D(real) and D(fake) lie apart where the discriminator satisfies it, for an alarm."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ganlab.plugin.failures import CatchPluginErrors
from ganlab.protocols import Loss
from ganlab.utils.rng import preserve_random_state

CPU = torch.device("cpu")

REACH = 8.0
"""The largest logit that the probe gives a loss: a sigmoid of 0.9997."""


def optimal_gap(loss: Loss, device: torch.device = CPU) -> float | None:
    """The gap D(real) - D(fake) of a discriminator at the loss's optimum, from -1 to 1.

    `device` is the run's, where the options are that a schedule moves.

    None where the loss has no minimum or a minimum without a gap, and where the loss raises: what a third-party loss
    raises here, it raises in the step too, where it is reported.
    """
    with CatchPluginErrors(), preserve_random_state():
        # A copy is called, since a loss may count or keep what it is given.
        return _gap(copy.deepcopy(loss).discriminator, device)
    return None


def _gap(loss: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> float | None:
    """The gap at a loss's optimum, its minimum for constant logits, by a search on a grid."""
    values: dict[tuple[float, float], float] = {}

    def loss_at(real: float, fake: float) -> float:
        if (real, fake) not in values:
            values[real, fake] = float(loss(*(torch.full((4,), logit, device=device) for logit in (real, fake))))
        return values[real, fake]

    # Every pair of constant logits on a grid, then on two finer ones around the least.
    start, best = loss_at(0.0, 0.0), (0.0, 0.0)
    for step, around in ((1.0, REACH), (1 / 4, 1.0), (1 / 16, 1 / 4)):
        offsets = [step * index for index in range(-round(around / step), round(around / step) + 1)]
        tried = [[min(REACH, max(-REACH, at + offset)) for offset in offsets] for at in best]
        for real in tried[0]:
            for fake in tried[1]:
                loss_at(real, fake)
        least = min((value for value in values.values() if math.isfinite(value)), default=math.nan)
        tied = [pair for pair, value in values.items() if value <= least + 1e-6 * abs(start - least)]
        if not tied:
            return None
        # A hinge loss is satisfied by all logits beyond its margin; it asks for the smallest.
        best = min(tied, key=lambda pair: math.hypot(*pair))
    real, fake = best
    farther = loss_at(*(2 * logit if abs(logit) == REACH else logit for logit in best))
    if not start - farther <= 1.01 * (start - loss_at(real, fake)):
        return None  # it goes on falling: there is no minimum
    gap = _sigmoid(real) - _sigmoid(fake)
    return gap if abs(gap) >= 0.1 else None


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
