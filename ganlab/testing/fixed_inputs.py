"""The fixed inputs that the conformance checks give to components: image shapes, channels, noise."""

from __future__ import annotations

import torch
from torch import Tensor

Shape = tuple[int, int, int]

IMAGE_SHAPES: tuple[Shape, ...] = ((1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32))
"""Shapes of images, (C, H, W)."""

ConditionShape = tuple[int, ...] | None

CHANNELS = (1, 3)

CLASSES = 4
"""How many classes the fixed labels are of."""


def shape_text(shape: Shape) -> str:
    """The shape of fixed input images as the results of checks show it: "3x8x8"."""
    return "x".join(map(str, shape))


def fixed_noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns standard normal noise as a fixed input of checks: the same each time, and from no global generator.

    Without a shape it is a 0-dim tensor.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def condition_shapes(shape: Shape) -> list[ConditionShape]:
    """Returns the forms of a condition, of one image of `shape`, in the order in which fixed inputs try them.

    () is a class label; then come images (C, H, W): of the same shape, with other channels, with smaller sides. None is
    no condition at all.
    """
    channels, height, width = shape
    others = [(count, height, width) for count in CHANNELS if count != channels]
    smaller = [(channels, height // by, width // by) for by in (2, 4)]
    return [(), shape, *others, *smaller, None]


def fixed_condition(shape: ConditionShape, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor | None:
    """Returns the condition of `count` images as a fixed input: the first ones are the same for every count."""
    if shape is None:
        return None
    if not shape:
        return torch.arange(count) % CLASSES
    return torch.tanh(fixed_noise(max(count, 16), *shape, seed=8, dtype=dtype))[:count]
