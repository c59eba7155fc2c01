"""The optimisers, against their update rules written out, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from attrs import frozen

from ganlab_plugins.optimizers import SGD, Adam, RMSprop

GRADIENTS = [torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)]


def adam(w: torch.Tensor) -> torch.Tensor:
    m = v = torch.zeros(2, dtype=torch.float64)
    for t, g in enumerate(GRADIENTS, 1):
        m, v = 0.5 * m + 0.5 * g, 0.9 * v + 0.1 * g**2
        w = w - 0.1 * (m / (1 - 0.5**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
    return w


def sgd(w: torch.Tensor) -> torch.Tensor:
    velocity = torch.zeros(2, dtype=torch.float64)
    for g in GRADIENTS:
        velocity = 0.9 * velocity + g
        w = w - 0.1 * velocity
    return w


def rmsprop(w: torch.Tensor) -> torch.Tensor:
    v = torch.zeros(2, dtype=torch.float64)
    for g in GRADIENTS:
        v = 0.8 * v + 0.2 * g**2
        w = w - 0.1 * g / (v.sqrt() + 1e-8)
    return w


def clipped_rmsprop(w: torch.Tensor) -> torch.Tensor:
    v = torch.zeros(2, dtype=torch.float64)
    for g in GRADIENTS:
        v = 0.8 * v + 0.2 * g**2
        w = (w - 0.1 * g / (v.sqrt() + 1e-8)).clip(-0.7, 0.7)
    return w


@frozen
class Case:
    config: Adam | SGD | RMSprop
    rule: Callable[[torch.Tensor], torch.Tensor]


CASES = {
    "adam": Case(Adam(0.1, (0.5, 0.9)), adam),
    "sgd": Case(SGD(0.1, 0.9), sgd),
    "rmsprop": Case(RMSprop(0.1, 0.8), rmsprop),
    "rmsprop that clips": Case(RMSprop(0.1, 0.8, clip_weights=0.7), clipped_rmsprop),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_updates(case: Case) -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = case.config.build([weight])
    for gradient in GRADIENTS:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), case.rule(torch.tensor([1.0, 2.0], dtype=torch.float64)))


def test_betas_out_of_range() -> None:
    with pytest.raises(ValueError, match="betas"):
        Adam(betas=(0.5, 1.0))
