"""DCGAN (Radford et al. 2016, arXiv:1511.06434) for square images of 16, 28, 32, 64, 128 and like sizes.

Decisions:
- One piece of code for every size: the side is halved while it is even, to a base of 4 to 7 pixels (4 for powers of
  two, 7 for 28). The generator starts at the base and doubles; the discriminator mirrors it. Channels double at each
  halving.
- As published: strided convolutions only, batch norm everywhere but at the generator's output and the discriminator's
  input, ReLU in the generator and leaky ReLU in the discriminator, weights from N(0, 0.02), batch norm from N(1, 0.02).
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import ComponentError, ImageSpec, NetworkConfig, Register, hookimpl


def _base_and_doublings(images: ImageSpec) -> tuple[int, int]:
    """The side of the smallest feature map, 4 to 7, and how often it doubles to the images' side."""
    side, doublings = images.height, 0
    while side % 2 == 0 and side >= 8:
        side, doublings = side // 2, doublings + 1
    if images.height != images.width or not 4 <= side <= 7 or doublings < 1:
        raise ComponentError(
            f"dcgan has no layers for images of {images.height}x{images.width}; it takes square ones whose side is 4, "
            "5, 6 or 7 doubled some times, such as 16, 28, 32, 64 or 128"
        )
    return side, doublings


class _DCGANGenerator(nn.Module):
    def __init__(self, latent_dim: int, channels: int, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        base, doublings = _base_and_doublings(images)
        width = channels * 2 ** (doublings - 1)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, width, base, bias=False), *_normed_relu(width)]
        for _ in range(doublings - 1):
            layers += [nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False), *_normed_relu(width // 2)]
            width //= 2
        layers += [nn.ConvTranspose2d(width, images.channels, 4, 2, 1, bias=False), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class _DCGANDiscriminator(nn.Module):
    def __init__(self, channels: int, slope: float, images: ImageSpec) -> None:
        super().__init__()
        base, doublings = _base_and_doublings(images)
        width = channels
        layers: list[nn.Module] = [nn.Conv2d(images.channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(slope, True)]
        for _ in range(doublings - 1):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width)]
            layers += [nn.LeakyReLU(slope, inplace=True)]
            width *= 2
        layers += [nn.Conv2d(width, 1, base, bias=False)]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        logits: Tensor = self.layers(images).flatten()
        return logits


def _normed_relu(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


@frozen
class DCGANGenerator:
    """The DCGAN generator.

    latent_dim: numbers in a latent.
    channels: feature maps before the last layer; each layer towards the latent has twice as many.
    """

    latent_dim: int = field(default=100, validator=[ge(1), le(2**20)])
    channels: int = field(default=64, validator=[ge(1), le(2**16)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _DCGANGenerator(self.latent_dim, self.channels, images)


@frozen
class DCGANDiscriminator:
    """The DCGAN discriminator.

    channels: feature maps after the first layer; each further layer has twice as many.
    slope: the leaky ReLU's slope below zero.
    """

    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    slope: float = field(default=0.2, validator=[ge(0), le(100)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _DCGANDiscriminator(self.channels, self.slope, images)


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("dcgan", DCGANGenerator)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("dcgan", DCGANDiscriminator)
