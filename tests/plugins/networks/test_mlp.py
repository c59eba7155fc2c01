"""The fully connected networks, against a count of parameters by hand and the layers of the vanilla recipe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganlab import ImageSpec
from ganlab_plugins.networks.mlp import MLPDiscriminator, MLPGenerator


def test_the_vanilla_recipe() -> None:
    generator = MLPGenerator().build(ImageSpec(1, 28, 28))
    discriminator = MLPDiscriminator(dropout=0.3).build(ImageSpec(1, 28, 28))
    assert sum(p.numel() for p in generator.parameters()) == (
        101 * 256 + 257 * 512 + 513 * 1024 + 1025 * 784  # a bias for each layer
    )
    assert sum(p.numel() for p in discriminator.parameters()) == 785 * 1024 + 1025 * 512 + 513 * 256 + 257
    slopes = [m.negative_slope for net in (generator, discriminator) for m in net.modules() if type(m) is nn.LeakyReLU]
    assert slopes == [0.2] * 6
    assert [m.p for m in discriminator.modules() if isinstance(m, nn.Dropout)] == [0.3] * 3
    assert [type(m) for m in generator.modules()][-1] is nn.Tanh


@pytest.mark.parametrize("images", [ImageSpec(1, 8, 8), ImageSpec(3, 32, 32), ImageSpec(3, 7, 5)])
def test_shapes_and_range(images: ImageSpec) -> None:
    generator, discriminator = MLPGenerator().build(images), MLPDiscriminator().build(images)
    made = generator(10 * torch.randn(3, 100), None)
    assert made.shape == (3, images.channels, images.height, images.width)
    assert made.abs().max() <= 1
    assert discriminator(made, None).shape == (3,)
    assert discriminator(made[:1], None).shape == (1,), "a batch of one keeps its dimension"


def test_the_discriminator_gives_logits_not_probabilities() -> None:
    discriminator = MLPDiscriminator().build(ImageSpec(1, 8, 8))
    logits = discriminator(100 * torch.randn(200, 1, 8, 8), None)
    assert logits.min() < 0 or logits.max() > 1
