"""A data set of pairs of images, as a plugin for tests: the condition of an image is its negative."""

from __future__ import annotations

import torch
from attrs import frozen

import ganlab


@frozen
class PairedImages:
    """Random images of one colour each, with their negatives as conditions.

    count: how many images.
    size: their height and width.
    smaller: by how much the conditions are smaller.
    """

    count: int = 64
    size: int = 8
    smaller: int = 1

    def build(self, places: ganlab.Places, split: str) -> ganlab.Dataset:
        if split not in ("train", "test"):
            raise ganlab.ComponentError(f"no split {split!r}")
        generator = torch.Generator().manual_seed(int(split == "test"))
        levels = torch.randint(256, (self.count, 1, 1, 1), generator=generator, dtype=torch.uint8)
        images = levels.expand(-1, 1, self.size, self.size).contiguous()
        return ganlab.ImageDataset(images, "paired", split, 255 - images[:, :, :: self.smaller, :: self.smaller])


@ganlab.hookimpl
def register_datasets(register: ganlab.Register[ganlab.DatasetConfig]) -> None:
    register("paired", PairedImages)
