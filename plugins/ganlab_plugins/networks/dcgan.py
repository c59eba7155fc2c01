"""DCGAN networks (Radford et al. 2016, arXiv:1511.06434) for images of 16, 28, 32, 64, 128 and similar sizes.

Decisions:
- The same code for every size: the sides are halved to a base whose shorter side has 4 to 7 pixels (4 for powers of
  two, 7 for 28; 4x6 for 32x48). The generator starts at the base and doubles the sides; the discriminator mirrors it.
  The number of channels doubles when the sides are halved.
- As published: strided convolutions only, batch norm except at the generator's output and the discriminator's input,
  ReLU in the generator and leaky ReLU in the discriminator, weights from N(0, 0.02), batch norm gains from N(1, 0.02).
- `dcgan_encoder` is a generator whose input is its condition, images of these sizes: the discriminator's layers, with
  codes, or other data, in the place of the logit.
- Options for later variants: other norms, spectral norm (close to SNGAN's CNN), self-attention (SAGAN), class labels.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le
from torch import Tensor, nn

from ganlab import (
    ClassHead,
    ComponentError,
    Condition,
    ConditionalNormName,
    HeadName,
    ImageSpec,
    Judged,
    Layers,
    MinibatchStdDev,
    NetworkConfig,
    NormName,
    Register,
    SelfAttention2d,
    check_attention,
    check_tanh,
    hookimpl,
    norm_layer,
    spectrally_normed,
)
from ganlab_plugins.networks._halved_sizes import nearest_sizes, smallest_map


def _base_and_doublings(images: ImageSpec) -> tuple[tuple[int, int], int]:
    """DCGAN: height and width of the smallest feature map, and the number of doublings to the images."""
    found = smallest_map(images.height, images.width)
    if found is None:
        raise ComponentError(
            f"dcgan does not support images of {images.height}x{images.width}; it halves both sides until the shorter "
            f"is 4, 5, 6 or 7; the nearest sizes are {nearest_sizes(images.height, images.width)}"
        )
    height, width, doublings = found
    return (height, width), doublings


def _inner_sides(images: ImageSpec) -> list[int]:
    """DCGAN: the heights of the feature maps between the base and the images."""
    (height, _), doublings = _base_and_doublings(images)
    return [height * 2**number for number in range(1, doublings)]


def _check_hidden(config: DCGANGenerator | DCGANDiscriminator) -> None:
    """DCGAN: refuses instance norm of the layer of `hidden`, whose maps have one position."""
    if config.hidden and config.norm == "instance":
        raise ComponentError(
            'dcgan: norm = "instance" normalises over positions, of which the maps of `hidden` have one; set '
            "hidden = 0, or another norm"
        )


class _DCGANGenerator(nn.Module):
    def __init__(self, config: DCGANGenerator, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        base, doublings = _base_and_doublings(images)
        check_tanh(images, "dcgan")
        _check_hidden(config)
        side = base[0]
        width = config.channels * 2 ** (doublings - 1)
        bias = config.norm == "none"

        def normed_relu() -> list[nn.Module]:
            return [norm_layer(config.norm, width, 2, images), nn.ReLU(inplace=True)]

        layers: list[nn.Module] = []
        if config.hidden:
            norm = norm_layer(config.norm, config.hidden, 2, images)
            layers += [nn.ConvTranspose2d(self.latent_dim, config.hidden, 1, bias=bias), norm, nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(config.hidden or self.latent_dim, width, base, bias=bias), *normed_relu()]
        for _ in range(doublings - 1):
            width, side = width // 2, 2 * side
            layers += [nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=bias), *normed_relu()]
            if side in config.attention:
                layers.append(SelfAttention2d(width))
        layers += [nn.ConvTranspose2d(width, images.channels, 4, 2, 1, bias=bias), nn.Tanh()]
        self.layers = Layers(*layers)
        self.apply(_initialise)

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        images: Tensor = self.layers(z[:, :, None, None], condition)
        return images


class _DCGANDiscriminator(nn.Module):
    def __init__(self, config: DCGANDiscriminator, images: ImageSpec) -> None:
        super().__init__()
        _check_hidden(config)
        base, doublings = _base_and_doublings(images)
        width, side, slope = config.channels, images.height // 2, config.slope
        bias = config.norm == "none"
        layers: list[nn.Module] = [nn.Conv2d(images.channels, width, 4, 2, 1, bias=bias), nn.LeakyReLU(slope, True)]
        for _ in range(doublings - 1):
            if side in config.attention:
                layers.append(SelfAttention2d(width))
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=bias), norm_layer(config.norm, 2 * width, 2)]
            layers += [nn.LeakyReLU(slope, inplace=True)]
            width, side = 2 * width, side // 2
        if config.minibatch_stddev:
            layers.append(MinibatchStdDev(config.minibatch_stddev))
            width += 1
        if config.hidden:
            layers += [nn.Conv2d(width, config.hidden, base, bias=bias), norm_layer(config.norm, config.hidden, 2)]
            layers += [nn.LeakyReLU(slope, inplace=True)]
            width, base = config.hidden, (1, 1)
        layers += [nn.Conv2d(width, 1, base, bias=bias)]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)
        self.head = ClassHead(config.head, width, images)
        self.feature_shape = (width, *base)
        # A group of one image has no deviation from others.
        self.batch_independent = (
            (config.norm != "batch" or (doublings == 1 and not config.hidden))  # the first layer has no norm
            and config.minibatch_stddev <= 1
            and config.head != "class_logits"
        )

    def forward(self, images: Tensor, condition: Condition = None, with_features: bool = False) -> Any:
        maps = self.layers[:-1](images)
        judged: Tensor | Judged = self.head(maps.sum((2, 3)), self.layers[-1](maps).flatten(), condition)
        return (judged, maps) if with_features else judged


class _DCGANEncoder(nn.Module):
    def __init__(self, config: DCGANEncoder, images: ImageSpec) -> None:
        super().__init__()
        given = images.condition_shape or ()
        if len(given) != 3:
            raise ComponentError("dcgan_encoder: its input is images as conditions, and the data set has none")
        base, doublings = _base_and_doublings(ImageSpec(*given))
        self.latent_dim = 0
        self.shape = images.shape
        width, bias = config.channels, config.norm == "none"
        layers: list[nn.Module] = [nn.Conv2d(given[0], width, 4, 2, 1, bias=bias), nn.LeakyReLU(config.slope, True)]
        for _ in range(doublings - 1):
            layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=bias), norm_layer(config.norm, 2 * width, 2)]
            layers += [nn.LeakyReLU(config.slope, inplace=True)]
            width *= 2
        layers += [nn.Conv2d(width, images.size, base), nn.Identity() if images.dtype == "float32" else nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        if not isinstance(condition, Tensor) or condition.ndim != 4:
            raise ComponentError("dcgan_encoder: was called without images as conditions")
        made: Tensor = self.layers(condition).flatten(1).unflatten(1, self.shape)
        return made


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d) and module.affine:  # conditional batch norm has its gains in an embedding
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


@frozen
class DCGANGenerator:
    """The DCGAN generator.

    latent_dim: size of the latent.
    channels: feature maps before the last layer; each earlier layer has twice as many as the next.
    norm: of each layer except the last. "conditional_batch" is batch norm with a gain and a bias for each class.
    attention: heights of the feature maps after which self-attention is inserted, such as [32].
    hidden: units of a fully connected layer before the convolutions, as InfoGAN has it; 0 for none, as published.
    """

    latent_dim: int = field(default=100, validator=[ge(1), le(2**20)])
    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    norm: ConditionalNormName = "batch"
    attention: tuple[int, ...] = field(default=(), validator=deep_iterable(and_(ge(1), le(2**16))))
    hidden: int = field(default=0, validator=[ge(0), le(2**16)])

    def build(self, images: ImageSpec) -> nn.Module:
        check_attention(self.attention, _inner_sides(images))
        return _DCGANGenerator(self, images)


@frozen
class DCGANDiscriminator:
    """The DCGAN discriminator.

    channels: feature maps after the first layer; each further layer has twice as many.
    slope: the leaky ReLU's slope below zero.
    norm: of each layer except the first and the last.
    spectral_norm: divide each weight by an estimate of its spectral norm (SNGAN), usually with norm = "none".
    attention: heights of the feature maps after which self-attention is inserted, such as [16].
    minibatch_stddev: group size of the minibatch standard deviation, a feature map before the last layer; 0 for none.
    head: how class labels are used: "plain" not at all; "projection" adds an inner product with a class embedding to
        the logit; "class_logits" adds class logits, for AC-GAN.
    hidden: units of a fully connected layer after the convolutions, as InfoGAN has it; 0 for none, as published.
    """

    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    norm: NormName = "batch"
    spectral_norm: bool = False
    attention: tuple[int, ...] = field(default=(), validator=deep_iterable(and_(ge(1), le(2**16))))
    minibatch_stddev: int = field(default=0, validator=[ge(0), le(2**16)])
    head: HeadName = "plain"
    hidden: int = field(default=0, validator=[ge(0), le(2**16)])

    def build(self, images: ImageSpec) -> nn.Module:
        check_attention(self.attention, _inner_sides(images))
        network = _DCGANDiscriminator(self, images)
        return spectrally_normed(network) if self.spectral_norm else network


@frozen
class DCGANEncoder:
    """An encoder with the layers of DCGAN's discriminator: makes codes, or other data, of condition images.

    channels: feature maps after the first layer; each further layer has twice as many.
    slope: the leaky ReLU's slope below zero.
    norm: of each layer except the first and the last.
    """

    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    slope: float = field(default=0.2, validator=[ge(0), le(100)])
    norm: NormName = "batch"

    def build(self, images: ImageSpec) -> nn.Module:
        return _DCGANEncoder(self, images)


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("dcgan", DCGANGenerator)
    register("dcgan_encoder", DCGANEncoder)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("dcgan", DCGANDiscriminator)
