"""Conversion of pixel values between uint8 [0, 255] and float32 [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Converts pixels from uint8 [0, 255] to float32 [-1, 1]; TypeError for another type, whose range is unknown."""
    if images.dtype != torch.uint8:
        raise TypeError(f"to_float converts pixels of type uint8, 0 to 255; got {images.dtype} {tuple(images.shape)}")
    return images.float().div_(127.5).sub_(1.0)


def condition_as_input(condition: Tensor) -> Tensor:
    """Converts pixels of condition images to float32 [-1, 1], as a network's input; labels int64 (n,) are unchanged."""
    return condition if condition.ndim == 1 else to_float(condition)


def to_uint8(images: Tensor) -> Tensor:
    """Converts pixels from float [-1, 1] to uint8 [0, 255], rounded to the nearest level and clipped.

    Raises TypeError for whole numbers.
    """
    if not images.is_floating_point():
        raise TypeError(f"to_uint8 converts float pixels in [-1, 1]; got {images.dtype} {tuple(images.shape)}")
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
