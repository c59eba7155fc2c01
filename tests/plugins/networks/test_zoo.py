"""SNGAN's and R3GAN's networks, the conditional GAN's wrappers, packs, and options of `dcgan` and `mlp`."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from ganlab import ComponentError, ImageSpec, Judged, NetworkConfig
from ganlab_plugins.networks.conditional import ConditionalDiscriminator, ConditionalGenerator
from ganlab_plugins.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from ganlab_plugins.networks.mlp import MLPDiscriminator, MLPGenerator
from ganlab_plugins.networks.packed import Packed
from ganlab_plugins.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from ganlab_plugins.networks.resnet import ResNetDiscriminator, ResNetGenerator

CIFAR = ImageSpec(3, 32, 32, classes=10)
LABELS = torch.tensor([1, 4, 4, 9])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_networks_for_32x32() -> None:
    """Weights of the paper's table 3, layer by layer: dense, residual blocks of 256 and of 128 maps, dense."""
    conv = lambda inputs, outputs, side: inputs * outputs * side**2 + outputs  # noqa: E731
    up = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * 2 * 256
    assert size(ResNetGenerator().build(CIFAR)) == 128 * 4096 + 4096 + 3 * up + 2 * 256 + conv(256, 3, 3)
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down = 2 * conv(128, 128, 3) + conv(128, 128, 1)
    assert size(ResNetDiscriminator(spectral_norm=False).build(CIFAR)) == first + down + 4 * conv(128, 128, 3) + 129


GENERATORS = [
    MLPGenerator(hidden=(8,), norm="layer"),
    DCGANGenerator(channels=4, norm="none"),
    DCGANGenerator(channels=8, norm="conditional_batch", attention=(8, 16)),
    ResNetGenerator(channels=4, norm="conditional_batch", attention=(8, 32)),
    ResNetGenerator(channels=2, doubling=True, norm="none"),
    R3GANGenerator(widths=(8, 8, 8, 4), group_width=4),
    ConditionalGenerator(network=DCGANGenerator(channels=4), label_dim=3),
]
DISCRIMINATORS = [
    MLPDiscriminator(hidden=(8,), norm="batch", spectral_norm=True, head="projection"),
    DCGANDiscriminator(channels=4, norm="none", spectral_norm=True, attention=(16,), head="class_logits"),
    DCGANDiscriminator(channels=4, norm="instance", minibatch_stddev=4, head="projection"),
    ResNetDiscriminator(channels=4, attention=(8, 16), head="projection"),
    ResNetDiscriminator(channels=2, doubling=True, head="class_logits"),
    R3GANDiscriminator(widths=(4, 8, 8, 8), group_width=4, head="projection"),
    ConditionalDiscriminator(network=ResNetDiscriminator(channels=4)),
    Packed(network=DCGANDiscriminator(channels=4)),
]


@pytest.mark.parametrize("config", GENERATORS, ids=lambda config: type(config).__name__)
def test_generators_make_images_and_learn(config: Any) -> None:
    network = config.build(CIFAR)
    z = torch.randn(4, network.latent_dim)
    made = network(z, LABELS)
    assert made.shape == (4, 3, 32, 32)
    assert made.abs().max() <= 1
    made.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("config", DISCRIMINATORS, ids=lambda config: type(config).__name__)
def test_discriminators_judge_and_learn(config: Any) -> None:
    network = config.build(CIFAR)
    said = network(torch.randn(4, 3, 32, 32), LABELS)
    logits, total = (
        (said.logits, said.logits.sum() + said.class_logits.sum()) if isinstance(said, Judged) else (said, said.sum())
    )
    assert logits.shape == (4,)
    if isinstance(said, Judged):
        assert said.class_logits.shape == (4, 10)
    total.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("config", [*GENERATORS[2:4], *GENERATORS[6:], *DISCRIMINATORS[:1], *DISCRIMINATORS[2:4]])
def test_the_class_matters_once_there_is_something_to_learn(config: NetworkConfig) -> None:
    network = config.build(CIFAR).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    latent_dim: Any = getattr(network, "latent_dim", None)
    given = torch.randn(1, latent_dim) if latent_dim else torch.randn(1, 3, 32, 32)
    one, other = (network(given, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(one, other)


def test_the_conditional_generators_latent_is_that_of_its_network() -> None:
    network = ConditionalGenerator(network=MLPGenerator(latent_dim=20, hidden=(8,)), label_dim=5).build(CIFAR)
    assert network.latent_dim == 20
    assert network.network.latent_dim == 25
    with pytest.raises(ComponentError, match="needs class labels"):
        ConditionalGenerator().build(attrs.evolve(CIFAR, classes=None))


def test_a_pack_is_judged_by_its_images_in_the_channels() -> None:
    class Sums(nn.Module):
        def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
            weights = torch.tensor([1.0, 10.0])[:, None, None]
            return (images * weights).sum((1, 2, 3))

    class Config:
        def build(self, images: ImageSpec) -> nn.Module:
            assert images.channels == 2
            return Sums()

    network = Packed(network=Config(), size=2).build(ImageSpec(1, 1, 1))
    images = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[:, None, None, None]
    assert network(images[:4], None).tolist() == [21, 21, 43, 43]
    assert network(images, None).tolist() == [21, 21, 43, 43, 15], "the last pack is filled from the front"


def test_r3gan_of_other_proportions_than_squares() -> None:
    images = ImageSpec(3, 16, 24)
    generator = R3GANGenerator(widths=(8, 8, 4), group_width=4).build(images)
    discriminator = R3GANDiscriminator(widths=(4, 8, 8), group_width=4).build(images)
    made = generator(torch.randn(2, 64))
    assert made.shape == (2, 3, 16, 24)
    discriminator(made).square().sum().backward()
    assert all(parameter.grad is not None for parameter in [*generator.parameters(), *discriminator.parameters()])
    for config in (R3GANGenerator(), R3GANDiscriminator()):
        with pytest.raises(ComponentError, match="not of 16x24; 3 stages make this size; the nearest sizes are 32x32"):
            config.build(images)


def test_a_residual_block_of_r3gan_is_nothing_at_first() -> None:
    """So an image passes the untrained networks by the resampling and the 1x1 convolutions alone."""
    network: Any = R3GANDiscriminator(widths=(8, 8), group_width=4).build(ImageSpec(3, 8, 8))
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(network.layers[1](x), x)
    assert not torch.equal(network.layers[2](x), x)


def test_r3gan_judges_in_bfloat16_what_it_judges_in_float32() -> None:
    """Within the 8 bits of its numbers, after weights that are not zero at first."""
    network = R3GANDiscriminator(widths=(8, 8, 8), group_width=4).build(ImageSpec(3, 16, 16))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        images = torch.randn(16, 3, 16, 16)
        exact = network(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = network(images)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("config", "images", "told"),
    [
        (ResNetGenerator(), ImageSpec(1, 28, 28), "16, 32, 64 or 128"),
        (ResNetDiscriminator(attention=(4,)), CIFAR, r"no maps of side 4; there are: \[16, 8\]"),
        (DCGANGenerator(attention=(32,)), CIFAR, r"no maps of side 32; there are: \[8, 16\]"),
        (
            R3GANGenerator(widths=(8, 8)),
            CIFAR,
            "2 stages from 4x4 to 7x7 on the shorter side are for images whose shorter side is 8 to 14, not of 32x32",
        ),
        (R3GANGenerator(group_width=7), CIFAR, "group_width: 7 does not divide 256 inner channels"),
        (MLPDiscriminator(head="projection"), ImageSpec(1, 8, 8), 'head = "projection" needs class labels'),
        (
            DCGANGenerator(hidden=8, norm="instance"),
            CIFAR,
            'norm = "instance" normalises over positions, of which .* one',
        ),
        (DCGANDiscriminator(hidden=8, norm="instance"), CIFAR, 'norm = "instance" .*; set hidden = 0, or another norm'),
    ],
    ids=str,
)
def test_refusals(config: NetworkConfig, images: ImageSpec, told: str) -> None:
    with pytest.raises(ComponentError, match=told):
        config.build(images)


@pytest.mark.parametrize("network", [MLPDiscriminator(head="projection"), ConditionalDiscriminator()])
def test_a_pack_has_no_class(network: Any) -> None:
    with pytest.raises(ComponentError, match="class"):
        Packed(network).build(CIFAR)
