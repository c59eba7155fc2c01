"""Stacked MNIST: three random MNIST digits as the channels of one image, 1,000 modes that a classifier can count.

Introduced by Metz et al. 2016, "Unrolled Generative Adversarial Networks" (arXiv:1611.02163); 128,000 images are what
Lin et al. 2018, "PacGAN" (arXiv:1712.04086) train on.

Decisions:
- Each channel is drawn from the whole split on its own, with replacement, so the digits' frequencies are MNIST's, and
  the modes' are their products: from 0.00074 ("555") to 0.00142 ("111").
- Nothing sees to it that every class has an image. With 128,000 images each is expected 94 times or more; with a few
  thousand some have none.
- The choice is numpy.random.RandomState's, whose stream is frozen for good, so a seed names the same images everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import ge, le

from ganlab import (
    DatasetConfig,
    Places,
    Register,
    check_split,
    hookimpl,
    image_size,
    stream_seed,
)
from ganlab_plugins.datasets.mnist import MNIST

if TYPE_CHECKING:
    from ganlab import ImageDataset

DIGITS = 10
CHANNELS = 3


@frozen
class StackedMNIST:
    """Three random digits an image; the label is the number that they write, 100 a + 10 b + c.

    "train" is made of MNIST's training digits, "test" of its test digits, from `MNIST/raw` in the data folder. Not
    every class need have an image.

    size: height and width in pixels; other than 28, the digits are resized.
    count: how many images, of each split. They lie in memory: 128,000 of 28x28 pixels are 301 MB.
    seed: of the choice of digits.
    """

    size: int = image_size(28)
    count: int = field(default=128_000, validator=[ge(1), le(1_000_000)])
    seed: int = stream_seed()

    def build(self, places: Places, split: str) -> ImageDataset:
        import numpy as np
        import torch

        from ganlab import ImageDataset

        check_split("stacked_mnist", split)
        digits = MNIST(size=self.size).build(places, split)
        assert digits.condition is not None
        chosen = np.random.RandomState(self.seed).randint(
            len(digits.images), size=(self.count, CHANNELS), dtype=np.int64
        )
        index = torch.from_numpy(chosen)
        powers = torch.tensor([DIGITS**place for place in reversed(range(CHANNELS))])
        return ImageDataset(
            digits.images[:, 0][index],
            "stacked_mnist",
            split,
            (digits.condition[index] * powers).sum(1),
            tuple(f"{number:0{CHANNELS}}" for number in range(DIGITS**CHANNELS)),
        )


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("stacked_mnist", StackedMNIST)
