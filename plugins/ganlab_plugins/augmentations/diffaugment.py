"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): colour, translation and cutout, for training on few images.

Each transform is differentiable, and its random parameters are drawn for each image.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from attrs import field, frozen
from attrs.validators import ge, le, min_len
from torch import Tensor

from ganlab import Augmentation, ComponentError, Register, hookimpl

Part = Literal["color", "translation", "cutout"]


@frozen
class DiffAugment:
    """DiffAugment's transforms, applied one after the other.

    policy: the transforms: "color" (brightness shifted by up to 1/2, saturation scaled by 0 to 2, contrast by 1/2 to
        3/2), "translation" and "cutout".
    shift: the largest translation, as a fraction of the image's side; the pixels shifted in are 0.
    hole: the side of the square that is cut out, as a fraction of the image's side.
    """

    of_pixels: ClassVar[bool] = True

    policy: tuple[Part, ...] = field(default=("color", "translation", "cutout"), validator=min_len(1))
    shift: float = field(default=0.125, validator=[ge(0), le(1)])
    hole: float = field(default=0.5, validator=[ge(0), le(1)])

    def augment(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise ComponentError(
                f"DiffAugment is of images (N, C, H, W); got data (N, {', '.join(map(str, images.shape[1:]))})"
            )
        for part in self.policy:
            images = {"color": _change_color, "translation": self._translate, "cutout": self._cutout}[part](images)
        return images

    def _translate(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        down, right = (
            _random_integers(images, -int(side * self.shift + 0.5), int(side * self.shift + 0.5))
            for side in (height, width)
        )
        y = torch.arange(height, device=images.device)[None, :, None] - down
        x = torch.arange(width, device=images.device)[None, None, :] - right
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        rows = torch.arange(len(images), device=images.device)[:, None, None]
        moved = images.movedim(1, 3)[rows, y.clamp(0, height - 1), x.clamp(0, width - 1)].movedim(3, 1)
        return moved * inside[:, None]

    def _cutout(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        near = []
        for side, at in ((height, (None, slice(None), None)), (width, (None, None, slice(None)))):
            length = int(side * self.hole + 0.5)
            # The centre of the hole may be anywhere in the image, so part of the hole may lie outside.
            first = _random_integers(images, 0, side - length % 2) - length // 2
            place = torch.arange(side, device=images.device)[at]
            near.append((place >= first) & (place < first + length))
        return images * ~(near[0] & near[1])[:, None]


def _random_integers(images: Tensor, low: int, high: int) -> Tensor:
    """DiffAugment: random integers from `low` to `high`, one for each image, (N, 1, 1)."""
    return torch.randint(low, high + 1, (len(images), 1, 1), device=images.device)


def _uniform(images: Tensor) -> Tensor:
    """DiffAugment: uniform random numbers in [0, 1), one for each image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)


def _change_color(images: Tensor) -> Tensor:
    images = images + (_uniform(images) - 0.5)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, 2 * _uniform(images))
    level = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(level, images, _uniform(images) + 0.5)


@hookimpl
def register_augmentations(register: Register[Augmentation]) -> None:
    register("diffaugment", DiffAugment)
