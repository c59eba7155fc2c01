"""The fixed inputs that the conformance checks give to components: image shapes, channels, noise."""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int, int, int]

IMAGE_SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32))
"""Shapes of images, (C, H, W)."""

CHANNELS = (1, 3)

PLAYERS = ("discriminator", "generator")
"""The players, in the order in which they are checked."""


def shape_text(shape: Shape) -> str:
    """The shape of fixed input images as the results of checks show it: "3x8x8"."""
    return "x".join(map(str, shape))


def fixed_noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns standard normal noise as a fixed input of checks: the same each time, and from no global generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
