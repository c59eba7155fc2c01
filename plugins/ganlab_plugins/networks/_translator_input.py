"""The input of generators that translate images: condition images at the size of the images, and latents as maps.

Decisions:
- A translator is a generator like any other: it is called with latents and conditions. Its conditions are images, and
  by default it has no latents (`latent_dim = 0`).
- Latents are constant maps, or maps that a linear layer makes of them, which differ from place to place: instance norm
  takes away what is constant.
- Condition images of another size, as for super-resolution, are resized first. The factor is that of the data set, so
  that a trained translator takes images of other sizes too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ganlab import ComponentError, ImageSpec


class TranslatorInput(nn.Module):
    """A translator's first layer: from latents (N, latent_dim) and condition images to maps (N, channels, H, W).

    With `latent_maps` a linear layer makes so many maps of the latents, and images have the size of the training's.
    """

    def __init__(self, name: str, latent_dim: int, images: ImageSpec, latent_maps: int = 0) -> None:
        super().__init__()
        if images.condition_shape is None or len(images.condition_shape) != 3:
            raise ComponentError(f"{name} translates images: it needs images as conditions, and the data set has none")
        channels, height, width = images.condition_shape
        self.name = name
        self.scale = (images.height / height, images.width / width)
        self.channels = channels + (latent_maps or latent_dim)
        self.of_latents = (
            nn.Sequential(
                nn.Linear(latent_dim, latent_maps * images.height * images.width),
                nn.Unflatten(1, (latent_maps, images.height, images.width)),
            )
            if latent_maps
            else None
        )

    def forward(self, z: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None or condition.ndim != 4:
            raise ComponentError(f"{self.name} translates images: it was called without images as conditions")
        maps = resized(condition, *(round(side * by) for side, by in zip(condition.shape[2:], self.scale, strict=True)))
        if not z.shape[1]:
            return maps
        latents = z[:, :, None, None].expand(-1, -1, *maps.shape[2:]) if self.of_latents is None else self.of_latents(z)
        if latents.shape[2:] != maps.shape[2:]:
            raise ComponentError(
                f"{self.name} with latent_maps makes images of {tuple(latents.shape[2:])} alone; these are "
                f"{tuple(maps.shape[2:])}"
            )
        return torch.cat([maps, latents.to(maps.dtype)], 1)


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Condition images (N, C, height, width) of others: bicubic, antialiased where a side becomes smaller."""
    if images.shape[2:] == (height, width):
        return images
    smaller = height < images.shape[2] or width < images.shape[3]
    return interpolate(images, (height, width), mode="bicubic", antialias=smaller)
