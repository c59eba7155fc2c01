"""A data set of noise with labels, as a plugin: stands for images that have to be had first."""

from __future__ import annotations

import torch
from attrs import frozen

from ganlab import ImageDataset, Places, Register, hookimpl


@frozen
class Noise:
    """Images of uniform noise in ten classes."""

    channels: int = 3
    size: int = 32
    count: int = 64

    def build(self, places: Places, split: str) -> ImageDataset:
        generator = torch.Generator().manual_seed(0)
        shape = (self.count, self.channels, self.size, self.size)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return ImageDataset(images, "noise", split, torch.arange(self.count) % 10, tuple(map(str, range(10))))


@hookimpl
def register_datasets(register: Register) -> None:  # type: ignore[type-arg]
    register("noise", Noise)
