"""DCGAN, against the shapes and the initialisation that the paper (arXiv:1511.06434) gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ganlab import ComponentError, ImageSpec, NormName
from ganlab_plugins.networks.dcgan import DCGANDiscriminator, DCGANGenerator

SIZES = {16: 4, 28: 7, 32: 4, 64: 4, 128: 4}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_range(size: int, channels: int) -> None:
    images = ImageSpec(channels, size, size)
    generator = DCGANGenerator(channels=4).build(images)
    discriminator = DCGANDiscriminator(channels=4).build(images)
    made = generator(torch.randn(2, 100), None)
    assert made.shape == (2, channels, size, size)
    assert made.abs().max() <= 1
    assert discriminator(made, None).shape == (2,)
    assert discriminator.eval()(made[:1], None).shape == (1,)
    first = next(m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d))
    assert first(torch.zeros(1, 100, 1, 1)).shape[-1] == SIZES[size]


def test_the_papers_feature_maps_at_64_pixels() -> None:
    """Figure 1 of the paper has 1024-512-256-128 maps at 4 to 32 pixels: those of 128 channels."""
    generator = DCGANGenerator(channels=128).build(ImageSpec(3, 64, 64))
    layers = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.out_channels for m in layers] == [1024, 512, 256, 128, 3]
    discriminator = DCGANDiscriminator(channels=64).build(ImageSpec(3, 64, 64))
    layers_d = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in layers_d] == [64, 128, 256, 512, 1]


def test_initialisation() -> None:
    torch.manual_seed(0)
    images = ImageSpec(3, 64, 64)
    for network in (DCGANGenerator().build(images), DCGANDiscriminator().build(images)):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                count = module.weight.numel()
                assert module.bias is None
                assert abs(module.weight.detach().mean()) < 5 * 0.02 / count**0.5
                assert module.weight.detach().std() == pytest.approx(0.02, rel=5 / (2 * count) ** 0.5)
            elif isinstance(module, nn.BatchNorm2d):
                count = module.weight.numel()
                assert abs(module.weight.detach().mean() - 1) < 5 * 0.02 / count**0.5
                assert module.weight.detach().std() == pytest.approx(0.02, rel=5 / (2 * count) ** 0.5)
                assert not module.bias.any()


def test_batch_norm_where_the_paper_has_it() -> None:
    """Everywhere but at the generator's output and the discriminator's input."""
    images = ImageSpec(3, 32, 32)
    generator = [type(m).__name__ for m in DCGANGenerator().build(images).layers]
    assert generator == ["ConvTranspose2d", "BatchNorm2d", "ReLU"] * 3 + ["ConvTranspose2d", "Tanh"]
    discriminator = [type(m).__name__ for m in DCGANDiscriminator().build(images).layers]
    assert discriminator == ["Conv2d", "LeakyReLU"] + ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2 + ["Conv2d"]


def test_infogans_networks_for_mnist() -> None:
    """Table 1 of arXiv:1606.03657, fully connected layers of 1024 units, batch norm but at both ends."""
    images = ImageSpec(1, 28, 28)
    generator = DCGANGenerator(latent_dim=74, hidden=1024).build(images)
    sizes = [74 * 1024, 1024 * 7 * 7 * 128, 128 * 64 * 4 * 4, 64 * 4 * 4]
    norms = 2 * (1024 + 128 + 64)  # of the second layer by channel, where the authors' has a gain for each unit
    assert sum(p.numel() for p in generator.parameters()) == sum(sizes) + norms
    assert generator(torch.randn(2, 74)).shape == (2, 1, 28, 28)
    discriminator = DCGANDiscriminator(hidden=1024).build(images)
    sizes = [64 * 4 * 4, 64 * 128 * 4 * 4, 7 * 7 * 128 * 1024, 1024]
    assert sum(p.numel() for p in discriminator.parameters()) == sum(sizes) + 2 * (128 + 1024)
    logits, features = discriminator(torch.randn(2, 1, 28, 28), None, True)
    assert logits.shape == (2,)
    assert features.shape[1:] == discriminator.feature_shape == (1024, 1, 1)
    assert not DCGANDiscriminator(hidden=8).build(ImageSpec(1, 8, 8)).batch_independent


REFUSED = {
    (27, 27): "28x28 and 24x24",
    (4, 4): "8x8 and 8x14",
    (30, 30): "28x28 and 28x32",
    (36, 36): "32x32 and 32x40",
    (32, 60): "28x60 and 32x56",
    (2, 2): "8x8 and 8x14",
}


@pytest.mark.parametrize("shape", REFUSED)
def test_sizes_it_cannot_make_are_refused_with_the_nearest(shape: tuple[int, int]) -> None:
    for config in (DCGANGenerator(), DCGANDiscriminator()):
        with pytest.raises(ComponentError, match=f"{shape[0]}x{shape[1]}; .* nearest sizes are {REFUSED[shape]}"):
            config.build(ImageSpec(3, *shape))


@pytest.mark.parametrize("shape", [(32, 48), (48, 32), (16, 80), (28, 36)])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_other_proportions_than_squares(shape: tuple[int, int], norm: NormName) -> None:
    """Both mirror each other, and all outputs and weights matter."""
    images = ImageSpec(3, *shape)
    generator, discriminator = DCGANGenerator(channels=4, norm=norm), DCGANDiscriminator(channels=4, norm=norm)
    networks = nn.ModuleList([generator.build(images), discriminator.build(images)])
    made = networks[0](torch.randn(3, 100))
    assert made.shape == (3, 3, *shape)
    logits = networks[1](made)
    assert logits.shape == (3,)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in networks.parameters())
