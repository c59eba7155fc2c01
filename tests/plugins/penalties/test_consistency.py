"""Consistency regularisation, against a linear discriminator of which the difference is known."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab_plugins.penalties.consistency import Consistency
from penalty_steps import Flat, step_of


@frozen
class Raised:
    """Images that are brighter by `by`."""

    by: float

    def augment(self, images: Tensor) -> Tensor:
        return images + self.by


def test_of_a_linear_discriminator() -> None:
    layer = nn.Linear(8, 1).double()
    images = torch.randn(5, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = Consistency(augmentation=Raised(0.25), weight=3.0).penalty(step_of(Flat(layer), images, images))
    assert value.item() == pytest.approx(3 * (0.25 * layer.weight.sum().item()) ** 2)
    assert Consistency(augmentation=Raised(0.0)).penalty(step_of(Flat(layer), images, images)).item() == 0
