"""U-Net from condition images to images (Ronneberger et al. 2015, arXiv:1505.04597), as pix2pix has it.

Isola et al. 2017, arXiv:1611.07004, appendix 6.1.1.

Decisions:
- Any height and width of at least 2. Sides are halved, rounded down, until one is 1 or `depth` is reached. On the way
  up each map gets the size of the one that it is joined with, so that a trained network takes other sizes too.
- As published: convolutions of 4x4 with stride 2, leaky ReLU on the way down and ReLU on the way up, no norm after the
  first layer and in the innermost one, dropout in the three innermost layers on the way up, weights from N(0, 0.02).
"""

from __future__ import annotations

from typing import cast

import torch
from attrs import field, frozen
from attrs.validators import ge, le, lt, optional
from torch import Tensor, nn

from ganlab import ComponentError, ImageSpec, NetworkConfig, NormName, Register, check_tanh, hookimpl, norm_layer
from ganlab_plugins.networks._translator_input import TranslatorInput

WIDEST = 8
"""The innermost layers have so many times the channels of the first."""

WITH_DROPOUT = 3
"""How many layers on the way up have dropout."""


class _Down(nn.Sequential):
    def __init__(self, channels: int, width: int, norm: NormName, active: bool) -> None:
        layers = [nn.LeakyReLU(0.2)] if active else []
        super().__init__(*layers, nn.Conv2d(channels, width, 4, 2, 1, bias=norm == "none"), norm_layer(norm, width, 2))


class _Up(nn.Module):
    def __init__(self, channels: int, width: int, norm: NormName, dropout: float) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=norm == "none")
        self.rest = nn.Sequential(norm_layer(norm, width, 2), *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, maps: Tensor, like: Tensor) -> Tensor:
        size = cast("list[int]", like.shape[2:])
        enlarged: Tensor = self.rest(self.enlarge(maps.relu(), output_size=size))
        return enlarged


class _UNet(nn.Module):
    def __init__(self, config: UNet, images: ImageSpec) -> None:
        super().__init__()
        if not config.residual:
            check_tanh(images, "unet")
        self.latent_dim = config.latent_dim
        self.given = TranslatorInput("unet", config.latent_dim, images)
        deepest = min(images.height, images.width).bit_length() - 1
        if deepest < 1:
            raise ComponentError(
                f"unet needs images of at least 2x2 pixels; here they are {images.height}x{images.width}"
            )
        depth = config.depth or deepest
        if depth > deepest:
            raise ComponentError(
                f"unet: depth: images of {images.height}x{images.width} can be halved {deepest} times, not {depth}"
            )
        widths = [config.channels * min(2**level, WIDEST) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            is_bare = level in (0, depth - 1)
            channels = widths[level - 1] if level else self.given.channels
            self.down.append(_Down(channels, width, "none" if is_bare else config.norm, active=level > 0))
        for level in reversed(range(depth)):
            channels = widths[level] * (1 if level == depth - 1 else 2)
            dropout = config.dropout if level >= max(1, depth - WITH_DROPOUT) else 0.0
            to = widths[level - 1] if level else images.channels
            self.up.append(_Up(channels, to, config.norm if level else "none", dropout))
        self.residual = config.residual
        self.condition_channels = self.given.channels - config.latent_dim
        self.has_alpha = self.condition_channels == images.channels + 1
        if config.residual and not self.has_alpha and self.condition_channels not in (1, images.channels):
            raise ComponentError(
                f"unet: residual: conditions with {self.condition_channels} channels cannot be added to images with "
                f"{images.channels}"
            )
        self.apply(initialise)

    def forward(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        seen = [self.given(z, condition)]
        for down in self.down:
            seen.append(down(seen[-1]))
        maps = seen[-1]
        for level, up in enumerate(self.up):
            like = seen[-2 - level]
            maps = up(maps if level == 0 else torch.cat([maps, seen[-1 - level]], 1), like)
        if self.residual:
            given = seen[0][:, : self.condition_channels]
            if self.has_alpha:  # in [-1, 1], 1 where nothing is to be filled
                given, maps = given[:, :-1], maps * (1 - given[:, -1:]) / 2
            return cast("Tensor", maps + given)
        return cast("Tensor", maps.tanh())


def initialise(module: nn.Module) -> None:
    """Draws a module's weights as pix2pix and CycleGAN do: N(0, 0.02), gains of norms from N(1, 0.02), no biases."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


@frozen
class UNet:
    """U-Net: translates condition images into images, with connections between layers of equal size.

    channels: feature maps of the first layer; each further one has twice as many, up to 8 times.
    depth: how often the sides are halved; by default until the shorter one is 1.
    norm: of each layer except the outermost and the innermost.
    dropout: in the three innermost layers on the way up, in training: the noise of pix2pix.
    residual: what the network makes is added to the condition, without the tanh at its end: for images to restore. A
        condition with one channel is added to each. Where it has one channel more than the images, that is alpha:
        nothing is added where it is opaque, as for holes to be filled.
    latent_dim: size of a latent, which is joined to the input as constant maps; 0 for none.
    """

    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    depth: int | None = field(default=None, validator=optional([ge(1), le(16)]))
    norm: NormName = "batch"
    dropout: float = field(default=0.5, validator=[ge(0), lt(1)])
    residual: bool = False
    latent_dim: int = field(default=0, validator=[ge(0), le(2**20)])

    def build(self, images: ImageSpec) -> nn.Module:
        return _UNet(self, images)


@hookimpl
def register_generators(register: Register[NetworkConfig]) -> None:
    register("unet", UNet)
