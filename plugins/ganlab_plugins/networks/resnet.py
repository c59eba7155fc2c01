"""SNGAN's residual networks (Miyato et al. 2018, arXiv:1802.05957) for square images of 16, 32, 64, 128, … pixels.

Decisions:
- The same code for every size: the generator starts at 4x4 and doubles the side; the discriminator halves it to 8x8
  and has two more blocks there or, with doubling channels, to 4x4 and has one more, as in the paper's tables for 32x32
  and larger images.
- A block of the discriminator has its outputs' feature maps between its two convolutions; the authors' has its inputs'.
- Weights have Xavier's initialisation, with a gain of sqrt(2) on the blocks' main paths, as in the authors' code.
"""

from __future__ import annotations

import math

from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from ganlab import (
    ClassHead,
    ComponentError,
    Condition,
    ConditionalNormName,
    HeadName,
    ImageSpec,
    Judged,
    Layers,
    NetworkConfig,
    Register,
    SelfAttention2d,
    check_attention,
    check_tanh,
    hookimpl,
    norm_layer,
    spectrally_normed,
)

WIDEST = 16
"""The most feature maps of the generator, as a multiple of those at the images' side: 1,024 for 64 at 128x128."""


def _doublings(images: ImageSpec) -> int:
    """SNGAN ResNet: the number of doublings from a side of 4 to the images' side."""
    doublings = int(math.log2(images.height / 4)) if images.height >= 8 else 0
    if images.height != images.width or doublings < 1 or 4 * 2**doublings != images.height:
        raise ComponentError(
            f"resnet does not support images of {images.height}x{images.width}; it needs square ones whose side is 4 "
            "times a power of two, such as 16, 32, 64 or 128"
        )
    return doublings


def _conv(inputs: int, outputs: int, size: int, gain: float) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.xavier_uniform_(conv.weight, gain)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


class _UpBlock(nn.Module):
    """SNGAN's generator block: norm, ReLU, upsampling, convolution, norm, ReLU, convolution; 1x1 shortcut."""

    takes_condition = True

    def __init__(self, inputs: int, outputs: int, norm: ConditionalNormName, images: ImageSpec) -> None:
        super().__init__()

        self.before = Layers(norm_layer(norm, inputs, 2, images), nn.ReLU(inplace=norm != "none"))
        self.first = _conv(inputs, outputs, 3, math.sqrt(2))
        self.after = Layers(
            norm_layer(norm, outputs, 2, images), nn.ReLU(inplace=True), _conv(outputs, outputs, 3, math.sqrt(2))
        )
        self.beside = _conv(inputs, outputs, 1, 1.0)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        inner = interpolate(self.before(x, condition), scale_factor=2)
        main: Tensor = self.after(self.first(inner), condition)
        # A 1x1 convolution commutes with nearest-neighbour upsampling.
        return main + interpolate(self.beside(x), scale_factor=2)


class _DownBlock(nn.Module):
    """SNGAN's discriminator block: ReLU, convolution, ReLU, convolution, average pooling; 1x1 shortcut.

    The first block has no ReLU before its first convolution.
    """

    def __init__(self, inputs: int, outputs: int, halves: bool, first: bool = False) -> None:
        super().__init__()
        gain = math.sqrt(2)
        main = [_conv(inputs, outputs, 3, gain), nn.ReLU(inplace=True), _conv(outputs, outputs, 3, gain)]
        self.main = nn.Sequential(*([] if first else [nn.ReLU()]), *main)
        self.beside = _conv(inputs, outputs, 1, 1.0) if halves or inputs != outputs else nn.Identity()
        self.halves = halves

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.main(x) + self.beside(x)
        return avg_pool2d(total, 2) if self.halves else total


class _ResNetGenerator(nn.Module):
    def __init__(self, config: ResNetGenerator, images: ImageSpec) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        doublings = _doublings(images)
        check_tanh(images, "resnet")
        # From the block at 4x4 to the block at the images' side.
        factors = [min(2**number, WIDEST) if config.doubling else 1 for number in range(doublings, -1, -1)]
        widths = [config.channels * factor for factor in factors]
        self.first = nn.Linear(config.latent_dim, widths[0] * 16)
        nn.init.xavier_uniform_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        layers: list[nn.Module] = []
        for number in range(doublings):
            layers.append(_UpBlock(widths[number], widths[number + 1], config.norm, images))
            if 8 * 2**number in config.attention:
                layers.append(SelfAttention2d(widths[number + 1]))
        last = "batch" if config.norm == "conditional_batch" else config.norm
        layers += [norm_layer(last, widths[-1], 2), nn.ReLU(inplace=last != "none")]
        layers += [_conv(widths[-1], images.channels, 3, 1.0), nn.Tanh()]
        self.layers = Layers(*layers)

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        images: Tensor = self.layers(self.first(z).unflatten(1, (-1, 4, 4)), condition)
        return images


class _ResNetDiscriminator(nn.Module):
    def __init__(self, config: ResNetDiscriminator, images: ImageSpec) -> None:
        super().__init__()
        doublings = _doublings(images)
        halvings = doublings if config.doubling else max(1, doublings - 1)
        inputs, side = images.channels, images.height
        layers: list[nn.Module] = []
        for number in range(halvings):
            outputs = config.channels * (2**number if config.doubling else 1)
            layers.append(_DownBlock(inputs, outputs, halves=True, first=number == 0))
            inputs, side = outputs, side // 2
            if side in config.attention:
                layers.append(SelfAttention2d(outputs))
        for _ in range(1 if config.doubling else 2):
            layers.append(_DownBlock(inputs, inputs, halves=False))
        self.layers = nn.Sequential(*layers, nn.ReLU())
        self.last = nn.Linear(inputs, 1)
        nn.init.xavier_uniform_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.head = ClassHead(config.head, inputs, images)
        self.batch_independent = config.head != "class_logits"

    def forward(self, images: Tensor, condition: Condition = None) -> Tensor | Judged:
        features = self.layers(images).sum((2, 3))
        judged: Tensor | Judged = self.head(features, self.last(features).squeeze(1), condition)
        return judged


@frozen
class ResNetGenerator:
    """SNGAN's residual generator.

    latent_dim: size of the latent.
    channels: feature maps at the images' side.
    doubling: double the feature maps each time the side is halved, up to 16 times, as in the paper for images larger
        than 32x32 (with channels = 64); otherwise their number is constant, as for 32x32 (with 256).
    norm: of each layer. "conditional_batch" is batch norm with a gain and a bias for each class.
    attention: sides of the feature maps after which self-attention is inserted, such as [32] (SAGAN).
    """

    latent_dim: int = field(default=128, validator=[ge(1), le(2**20)])
    channels: int = field(default=256, validator=[ge(1), le(2**16)])
    doubling: bool = False
    norm: ConditionalNormName = "batch"
    attention: tuple[int, ...] = field(default=(), validator=deep_iterable(and_(ge(1), le(2**16))))

    def build(self, images: ImageSpec) -> nn.Module:
        check_attention(self.attention, [8 * 2**number for number in range(_doublings(images))])
        return _ResNetGenerator(self, images)


@frozen
class ResNetDiscriminator:
    """SNGAN's residual discriminator, with spectral normalisation only.

    channels: feature maps at the images' side.
    doubling: double the feature maps each time the side is halved (for images larger than 32x32, with channels = 64);
        otherwise their number is constant (for 32x32, with 128).
    spectral_norm: divide each weight by an estimate of its spectral norm.
    attention: sides of the feature maps after which self-attention is inserted, such as [32] (SAGAN).
    head: how class labels are used: "plain" not at all; "projection" adds an inner product with a class embedding to
        the logit; "class_logits" adds class logits, for AC-GAN.
    """

    channels: int = field(default=128, validator=[ge(1), le(2**16)])
    doubling: bool = False
    spectral_norm: bool = True
    attention: tuple[int, ...] = field(default=(), validator=deep_iterable(and_(ge(1), le(2**16))))
    head: HeadName = "plain"

    def build(self, images: ImageSpec) -> nn.Module:
        halvings = _doublings(images) if self.doubling else max(1, _doublings(images) - 1)
        check_attention(self.attention, [images.height // 2**number for number in range(1, halvings + 1)])
        network = _ResNetDiscriminator(self, images)
        return spectrally_normed(network) if self.spectral_norm else network


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("resnet", ResNetGenerator)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("resnet", ResNetDiscriminator)
