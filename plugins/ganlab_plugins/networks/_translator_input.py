"""The input of generators that translate images: condition images at the size of the images, and latents as maps.

Decisions:
- A translator is a generator like any other: it is called with latents and conditions. Its conditions are images, and
  by default it has no latents (`latent_dim = 0`).
- Condition images of another size, as for super-resolution, are resized first. The factor is that of the data set, so
  that a trained translator takes images of other sizes too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ganlab import ComponentError, ImageSpec


class TranslatorInput(nn.Module):
    """A translator's first layer: from latents (N, latent_dim) and condition images to maps (N, channels, H, W)."""

    def __init__(self, name: str, latent_dim: int, images: ImageSpec) -> None:
        super().__init__()
        if images.condition_shape is None:
            raise ComponentError(f"{name} translates images: it needs images as conditions, and the data set has none")
        channels, height, width = images.condition_shape
        self.name = name
        self.scale = (images.height / height, images.width / width)
        self.channels = channels + latent_dim

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None or condition.ndim != 4:
            raise ComponentError(f"{self.name} translates images: it was called without images as conditions")
        maps = resized(condition, *(round(side * by) for side, by in zip(condition.shape[2:], self.scale, strict=True)))
        if z.shape[1]:
            maps = torch.cat([maps, z[:, :, None, None].to(maps.dtype).expand(-1, -1, *maps.shape[2:])], 1)
        return maps


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Condition images (N, C, height, width) of others: bicubic, antialiased where a side becomes smaller."""
    if images.shape[2:] == (height, width):
        return images
    smaller = height < images.shape[2] or width < images.shape[3]
    return interpolate(images, (height, width), mode="bicubic", antialias=smaller)
