"""The fully connected networks, against a count of parameters by hand and the layers of the vanilla recipe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganlab import ComponentError, ImageSpec
from ganlab_plugins.networks.dcgan import DCGANDiscriminator, DCGANEncoder
from ganlab_plugins.networks.mlp import MLPDiscriminator, MLPEncoder, MLPGenerator, MLPJoint


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


def test_encoders_make_codes_of_images() -> None:
    codes = ImageSpec.of((6,), "float32", condition_shape=(3, 16, 16))
    images = torch.randn(4, 3, 16, 16)
    noisy = MLPEncoder(hidden=(8,), latent_dim=2).build(codes)
    assert sum(p.numel() for p in noisy.parameters()) == (3 * 256 + 2 + 1) * 8 + 9 * 6
    assert noisy(torch.randn(4, 2), images).shape == (4, 6)
    assert not torch.equal(noisy(torch.zeros(4, 2), images), noisy(torch.ones(4, 2), images))
    convolutions = DCGANEncoder(channels=4).build(codes)
    assert convolutions(torch.zeros(4, 0), images).shape == (4, 6)
    judge = DCGANDiscriminator(channels=4).build(ImageSpec(3, 16, 16))
    own = sum(p.numel() for p in judge.parameters()) - 8 * 16  # without its logit
    assert sum(p.numel() for p in convolutions.parameters()) == own + (8 * 16 + 1) * 6
    assert MLPEncoder(hidden=(8,)).build(codes)(torch.zeros(4, 0), 100 * images).abs().max() > 1, "codes have no limit"
    made = MLPEncoder(hidden=(8,)).build(ImageSpec(1, 8, 8, None, (3, 16, 16)))(torch.zeros(4, 0), 100 * images)
    assert made.shape == (4, 1, 8, 8)
    assert made.abs().max() <= 1


def test_a_joint_discriminator_judges_images_with_codes() -> None:
    judge = MLPJoint(hidden=(8,)).build(ImageSpec.of((1, 4, 4), condition_shape=(3,), condition_dtype="float32"))
    images, codes = torch.randn(5, 1, 4, 4), torch.randn(5, 3)
    layers = [layer for layer in judge.modules() if isinstance(layer, nn.Linear)]
    hidden = nn.functional.leaky_relu(layers[0](torch.cat([images.flatten(1), codes], 1)), 0.2)
    torch.testing.assert_close(judge(images, codes), layers[1](hidden)[:, 0])


@pytest.mark.parametrize("config", [MLPEncoder(), MLPJoint(), DCGANEncoder()], ids=lambda config: type(config).__name__)
def test_networks_that_need_conditions_say_so(config: MLPEncoder | MLPJoint | DCGANEncoder) -> None:
    with pytest.raises(ComponentError, match="conditions, and the data set has none"):
        config.build(ImageSpec(1, 16, 16, 10))


def test_features_are_what_the_last_layer_is_given() -> None:
    images = torch.randn(4, 1, 16, 16)
    for config in (MLPDiscriminator(hidden=(8, 5)), DCGANDiscriminator(channels=4, norm="none")):
        judge = config.build(ImageSpec(1, 16, 16))
        logits, features = judge(images, None, True)
        assert features.shape == (4, *judge.feature_shape)
        assert torch.equal(logits, judge(images))
        assert torch.equal(logits, judge.layers[-1](features).flatten())
