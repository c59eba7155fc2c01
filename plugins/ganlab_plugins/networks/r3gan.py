"""R3GAN's residual networks without normalisation layers (Huang et al. 2024, arXiv:2501.05441).

They are meant for the loss `relativistic` with the penalties `r1` and `r2`.

Decisions:
- A block is a 1x1, a grouped 3x3 and a 1x1 convolution with leaky ReLUs between them, an inverted bottleneck. As in
  Fixup, the last convolution is initialised to 0, and the others are scaled down by the number of blocks, in place of
  normalisation.
- Resampling is bilinear, with a 1x1 convolution where the width changes. The generator starts with a learned map, 4x4
  for 32x32 and 4x6 for 32x48, whose channels are weighted by a linear function of the latent; the discriminator ends
  with the reverse.
- The generator ends in tanh, since images are in [-1, 1]; the authors' has nothing after its last convolution.
- Widths and depth are options: the paper's for CIFAR-10 are far larger than the defaults, which suit two CPU cores.
"""

from __future__ import annotations

import math

import torch
from attrs import field, frozen
from attrs.validators import and_, deep_iterable, ge, le, min_len
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ganlab import (
    ClassHead,
    ComponentError,
    Condition,
    HeadName,
    ImageSpec,
    Judged,
    NetworkConfig,
    Register,
    check_tanh,
    hookimpl,
)
from ganlab_plugins.networks._halved_sizes import SMALLEST, nearest_sizes, smallest_map

SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))
"""The gain of the leaky ReLU (He et al. 2015, arXiv:1502.01852)."""


def _conv(inputs: int, outputs: int, size: int, gain: float, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)
    nn.init.normal_(conv.weight, 0.0, gain / math.sqrt(inputs / groups * size**2))
    return conv


class _Block(nn.Module):
    def __init__(self, width: int, config: R3GANGenerator | R3GANDiscriminator, blocks: int) -> None:
        super().__init__()
        inner = config.expansion * width
        if inner % config.group_width:
            raise ComponentError(f"group_width: {config.group_width} does not divide {inner} inner channels")
        gain = GAIN * blocks**-0.25  # Fixup's L^(-1 / (2m - 2)) for m = 3 layers in a block
        self.widen = _conv(width, inner, 1, gain)
        self.grouped = _conv(inner, inner, 3, gain, groups=inner // config.group_width)
        self.narrow = _conv(inner, width, 1, 0.0)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(inner, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.leaky_relu(self.widen(x) + self.biases[0], SLOPE)
        inner = nn.functional.leaky_relu(self.grouped(inner) + self.biases[1], SLOPE)
        total: Tensor = x + self.narrow(inner)
        return total


class _Resampled(nn.Module):
    def __init__(self, inputs: int, outputs: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.conv = _conv(inputs, outputs, 1, 1.0) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.factor > 1 else self._resampled(x)
        x = self.conv(x)
        return self._resampled(x) if self.factor > 1 else x

    def _resampled(self, x: Tensor) -> Tensor:
        if self.factor > 1:
            return interpolate(x, scale_factor=self.factor, mode="bilinear")
        # Antialiased, so that downsampling uses all pixels and not every second one; on the CPU in float32 alone.
        return interpolate(x.float(), scale_factor=self.factor, mode="bilinear", antialias=True).to(x.dtype)


class _R3GANGenerator(nn.Module):
    def __init__(self, config: R3GANGenerator, images: ImageSpec) -> None:
        super().__init__()
        smallest = _smallest_map(images, len(config.widths))
        check_tanh(images, "r3gan")
        self.latent_dim = config.latent_dim
        widths, blocks = config.widths, config.blocks * len(config.widths)
        self.basis = nn.Parameter(torch.randn(widths[0], *smallest))
        self.first = nn.Linear(config.latent_dim, widths[0], bias=False)
        nn.init.normal_(self.first.weight, 0.0, 1 / math.sqrt(config.latent_dim))
        layers: list[nn.Module] = []
        for number, width in enumerate(widths):
            if number:
                layers.append(_Resampled(widths[number - 1], width, 2.0))
            layers += [_Block(width, config, blocks) for _ in range(config.blocks)]
        self.layers = nn.Sequential(*layers, _conv(widths[-1], images.channels, 1, 1.0))

    def forward(self, z: Tensor, condition: Condition = None) -> Tensor:
        images: Tensor = self.layers(self.first(z)[:, :, None, None] * self.basis)
        return torch.tanh(images)


class _R3GANDiscriminator(nn.Module):
    def __init__(self, config: R3GANDiscriminator, images: ImageSpec) -> None:
        super().__init__()
        smallest = _smallest_map(images, len(config.widths))
        widths, blocks = config.widths, config.blocks * len(config.widths)
        layers: list[nn.Module] = [_conv(images.channels, widths[0], 1, 1.0)]
        for number, width in enumerate(widths):
            if number:
                layers.append(_Resampled(widths[number - 1], width, 0.5))
            layers += [_Block(width, config, blocks) for _ in range(config.blocks)]
        self.layers = nn.Sequential(*layers)
        self.basis = nn.Conv2d(widths[-1], widths[-1], smallest, groups=widths[-1], bias=False)
        nn.init.normal_(self.basis.weight, 0.0, 1 / math.sqrt(math.prod(smallest)))
        self.last = nn.Linear(widths[-1], 1, bias=False)
        nn.init.normal_(self.last.weight, 0.0, 1 / math.sqrt(widths[-1]))
        self.head = ClassHead(config.head, widths[-1], images)
        self.batch_independent = config.head != "class_logits"

    def forward(self, images: Tensor, condition: Condition = None) -> Tensor | Judged:
        features = self.basis(self.layers(images)).flatten(1)
        judged: Tensor | Judged = self.head(features, self.last(features).squeeze(1), condition)
        return judged


def _smallest_map(images: ImageSpec, stages: int) -> tuple[int, int]:
    """R3GAN: height and width of the first stage's map, whose shorter side is 4 to 7; ComponentError for none."""
    found = smallest_map(images.height, images.width)
    if found is not None and found[2] == stages - 1:
        return found[:2]
    if stages == 1 and min(images.height, images.width) in SMALLEST:
        return images.height, images.width
    needed = f"; {found[2] + 1} stages make this size" if found is not None else ""
    near = f"; the nearest sizes are {nearest_sizes(images.height, images.width, stages - 1)}" if stages > 1 else ""
    raise ComponentError(
        f"widths: {stages} stages from 4x4 to 7x7 on the shorter side are for images whose shorter side is "
        f"{4 * 2 ** (stages - 1)} to {7 * 2 ** (stages - 1)}, not of {images.height}x{images.width}{needed}{near}"
    )


def _widths(*default: int) -> tuple[int, ...]:
    checked: tuple[int, ...] = field(default=default, validator=[min_len(1), deep_iterable(and_(ge(1), le(2**16)))])
    return checked


@frozen
class R3GANGenerator:
    """R3GAN's generator.

    latent_dim: size of the latent.
    widths: feature maps of each stage; the first stage's are 4 to 7 on the shorter side, and each further one doubles
        the sides, so four are for 32x32 or 32x48.
    blocks: residual blocks in a stage.
    expansion: ratio of a block's inner to its outer channels.
    group_width: channels in a group of the 3x3 convolutions.
    """

    latent_dim: int = field(default=64, validator=[ge(1), le(2**20)])
    widths: tuple[int, ...] = _widths(128, 128, 128, 64)
    blocks: int = field(default=1, validator=[ge(1), le(1000)])
    expansion: int = field(default=2, validator=[ge(1), le(64)])
    group_width: int = field(default=16, validator=[ge(1), le(2**16)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _R3GANGenerator(self, images)


@frozen
class R3GANDiscriminator:
    """R3GAN's discriminator.

    widths: feature maps of each stage, from the images' sides down to 4 to 7 on the shorter side, so four are for 32x32
        or 32x48.
    blocks: residual blocks in a stage.
    expansion: ratio of a block's inner to its outer channels.
    group_width: channels in a group of the 3x3 convolutions.
    head: how class labels are used: "plain" not at all; "projection" adds an inner product with a class embedding to
        the logit; "class_logits" adds class logits, for AC-GAN.
    """

    widths: tuple[int, ...] = _widths(64, 128, 128, 128)
    blocks: int = field(default=1, validator=[ge(1), le(1000)])
    expansion: int = field(default=2, validator=[ge(1), le(64)])
    group_width: int = field(default=16, validator=[ge(1), le(2**16)])
    head: HeadName = "plain"

    def build(self, images: ImageSpec) -> nn.Module:
        return _R3GANDiscriminator(self, images)


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("r3gan", R3GANGenerator)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("r3gan", R3GANDiscriminator)
