"""The L2 penalty, against NumPy's norm of all parameters as one vector, and its gradient's closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ganlab import Step
from ganlab_plugins.penalties.l2_generator import L2Generator


def step_with(generator: nn.Module) -> Step:
    nothing = torch.zeros(1)
    return Step(
        "generator",
        {"generator": generator, "discriminator": nn.Identity()},
        real=nothing,
        fake=nothing,
        real_logits=None,
        fake_logits=nothing,
        condition=None,
        images_seen=torch.zeros(()),
    )


@pytest.mark.parametrize("squared", [False, True])
def test_the_norm_of_all_parameters(squared: bool) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)).double()
    penalty = L2Generator(weight=0.25, squared=squared)
    value = penalty.penalty(step_with(generator))
    vector = np.concatenate([p.detach().numpy().ravel() for p in generator.parameters()])
    norm = np.linalg.norm(vector)
    assert value.item() == pytest.approx(0.25 * (norm**2 if squared else norm), rel=1e-12)
    value.backward()
    gradient = np.concatenate([p.grad.numpy().ravel() for p in generator.parameters()])  # type: ignore[union-attr]
    np.testing.assert_allclose(gradient, 0.25 * (2 * vector if squared else vector / norm), rtol=1e-10)


def test_it_belongs_to_the_generator() -> None:
    assert L2Generator().player == "generator"
    assert L2Generator(every=4).every == 4
