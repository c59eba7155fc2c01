"""Orthogonal regularisation, against NumPy's Gram matrices, and an orthogonal layer, which costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ganlab_plugins.penalties.orthogonal import Orthogonal
from penalty_steps import step_of


class Judge(nn.Module):
    def forward(self, images: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return images.flatten(1).sum(1)


def value_of(generator: nn.Module, penalty: Orthogonal) -> float:
    images = torch.zeros(2, 1, 2, 2)
    return penalty.penalty(step_of(Judge(), images, images, generator, player="generator")).item()


@pytest.mark.parametrize("diagonal", [False, True])
def test_against_numpy(diagonal: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(5, 3), nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(3, 2, 4)]
    network = nn.Sequential(*layers, nn.Embedding(4, 3), nn.BatchNorm2d(2)).double()
    expected = 0.0
    for layer, outputs_at in zip(layers, (0, 0, 1), strict=True):
        rows = np.moveaxis(layer.weight.detach().numpy(), outputs_at, 0)
        rows = rows.reshape(len(rows), -1)
        gram = rows @ rows.T
        wanted = np.eye(len(gram)) if diagonal else np.diag(np.diag(gram))
        expected += np.linalg.norm(gram - wanted) ** 2
    assert value_of(network, Orthogonal(weight=0.5, diagonal=diagonal)) == pytest.approx(0.5 * expected)


def test_an_orthogonal_layer_costs_nothing() -> None:
    layer = nn.Linear(6, 4).double()
    nn.init.orthogonal_(layer.weight)
    assert value_of(layer, Orthogonal(weight=1.0, diagonal=True)) == pytest.approx(0, abs=1e-12)
    nn.init.orthogonal_(layer.weight, gain=3)
    assert value_of(layer, Orthogonal(weight=1.0)) == pytest.approx(0, abs=1e-12)
    assert value_of(layer, Orthogonal(weight=1.0, diagonal=True)) == pytest.approx(4 * (9 - 1) ** 2)
