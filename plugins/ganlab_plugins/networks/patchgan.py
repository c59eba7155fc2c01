"""PatchGAN: a discriminator that returns a map of logits, each of a patch of the image (Isola et al. 2017, pix2pix).

arXiv:1611.07004, appendix 6.1.2: C64-C128-C256-C512 with convolutions of 4x4, of which the last two have stride 1. With
three halvings each logit sees a patch of 70x70 pixels, with two 34x34 and with one 16x16.

Decisions:
- Where the data set has images as conditions, the discriminator is conditional: the condition is joined to the image as
  more channels. Class labels are not used.
"""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import (
    ComponentError,
    ImageSpec,
    NetworkConfig,
    NormName,
    Register,
    hookimpl,
    norm_layer,
    spectrally_normed,
)
from ganlab_plugins.networks._translator_input import resized
from ganlab_plugins.networks.unet import WIDEST, initialise


class _PatchGAN(nn.Module):
    def __init__(self, config: PatchGAN, images: ImageSpec) -> None:
        super().__init__()
        least = 3 * 2**config.halvings if config.halvings else 1
        if min(images.height, images.width) < least:
            raise ComponentError(
                f"patchgan needs images of at least {least}x{least} pixels with halvings = {config.halvings}; here "
                f"they are {images.height}x{images.width}"
            )
        if images.condition_shape and len(images.condition_shape) != 3:
            raise ComponentError(
                f"patchgan judges images and their condition images; here conditions are {images.condition_shape}"
            )
        self.condition_channels = images.condition_shape[0] if images.condition_shape else 0
        # Without halvings each pixel is judged by itself, by convolutions of 1x1 (appendix 6.1.2, "PixelGAN").
        side, padding = (4, 1) if config.halvings else (1, 0)
        channels = images.channels + self.condition_channels
        layers: list[nn.Module] = []
        for level in range(max(1, config.halvings) + 1):
            width = config.channels * min(2**level, WIDEST)
            stride = 2 if level < config.halvings else 1
            norm = config.norm if level else "none"
            layers += [nn.Conv2d(channels, width, side, stride, padding, bias=norm == "none")]
            layers += [norm_layer(norm, width, 2), nn.LeakyReLU(0.2)]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, side, 1, padding))
        self.batch_independent = config.norm != "batch"
        self.apply(initialise)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.condition_channels:
            if condition is None or condition.ndim != 4:
                raise ComponentError(
                    "patchgan judges images and their conditions: it was called without condition images"
                )
            images = torch.cat([images, resized(condition, *images.shape[2:]).to(images.dtype)], 1)
        logits: Tensor = self.layers(images)
        return logits


@frozen
class PatchGAN:
    """PatchGAN: logits of patches, as maps (N, 1, h, w).

    channels: feature maps of the first layer; each further one has twice as many, up to 8 times.
    halvings: layers with stride 2; a layer with stride 1 and the map of logits follow. 0 judges each pixel by itself.
    norm: of each layer except the first and the last.
    spectral_norm: divide each weight by an estimate of its spectral norm (SNGAN), usually with norm = "none".
    """

    channels: int = field(default=64, validator=[ge(1), le(2**16)])
    halvings: int = field(default=3, validator=[ge(0), le(16)])
    norm: NormName = "batch"
    spectral_norm: bool = False

    def build(self, images: ImageSpec) -> nn.Module:
        network = _PatchGAN(self, images)
        return spectrally_normed(network) if self.spectral_norm else network


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("patchgan", PatchGAN)
