"""Consistency regularisation, against a linear discriminator of which the difference is known."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab_plugins.augmentations.ada import Ada
from ganlab_plugins.penalties.consistency import Consistency
from penalty_steps import Flat, step_of


@frozen
class Raised:
    """Images that are brighter by `by`."""

    by: float

    def augment(self, images: Tensor) -> Tensor:
        return images + self.by


def test_an_augmentation_that_would_adapt_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^augmentation\.adaptive: must be false here"):
        Consistency(augmentation=Ada())
    Consistency(augmentation=Ada(adaptive=False, p=0.5))


def test_of_a_linear_discriminator() -> None:
    layer = nn.Linear(8, 1).double()
    images = torch.randn(5, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    value = Consistency(augmentation=Raised(0.25), weight=3.0).penalty(step_of(Flat(layer), images, images))
    assert value.item() == pytest.approx(3 * (0.25 * layer.weight.sum().item()) ** 2)
    assert Consistency(augmentation=Raised(0.0)).penalty(step_of(Flat(layer), images, images)).item() == 0
