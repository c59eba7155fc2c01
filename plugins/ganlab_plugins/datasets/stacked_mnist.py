"""Stacked MNIST: three random MNIST digits as the channels of one image, 1,000 modes that a classifier can count.

Introduced by Metz et al. 2016, "Unrolled Generative Adversarial Networks" (arXiv:1611.02163); Lin et al. 2018, "PacGAN"
(arXiv:1712.04086), train on 128,000 images.

Decisions:
- Each channel is drawn independently from the whole split, with replacement, so the digits' frequencies are MNIST's,
  and the modes' frequencies are their products: from 0.00074 ("555") to 0.00142 ("111").
- It is not guaranteed that every class has an image. With 128,000 images each class is expected 94 times or more; with
  a few thousand some classes have none.
- Digits are drawn by numpy.random.RandomState, whose stream never changes, so a seed means the same images everywhere.
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
    """Stacked MNIST: three random digits an image; digits a, b and c have the label 100 a + 10 b + c.

    "train" consists of MNIST's training digits, "test" of its test digits, from `MNIST/raw` in the data folder. A class
    may have no image.

    size: height and width in pixels; sizes other than 28 are resized.
    count: number of images in each split. They are held in memory: 128,000 of 28x28 pixels are 301 MB.
    seed: of the random choice of digits.
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
        assert isinstance(digits.condition, torch.Tensor)
        chosen = np.random.RandomState(self.seed).randint(
            len(digits.images), size=(self.count, CHANNELS), dtype=np.int64
        )
        index = torch.from_numpy(chosen)
        powers = torch.tensor([DIGITS**power for power in reversed(range(CHANNELS))])
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
