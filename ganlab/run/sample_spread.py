"""The spread of images: how far samples lie apart, compared with real images, to detect collapsed samples.

Where networks are class-conditional it is the spread within a class: one image a class is a collapse too, although the
images of ten classes lie far apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from attrs import define
from torch import Tensor

from ganlab.data.pixels import rows_of

SPREAD_OF = 64
"""The number of generated and of real images whose spread is compared."""


MOST_CLASSES = SPREAD_OF // 4
"""With more classes than this, `SPREAD_OF` images are too few for a spread within classes."""


FEWEST = 8
"""With fewer real images than this there is no spread to compare samples with."""


@define
class _PixelSums:
    """For the sample spread: sums of pixels and of their squares over images; integers, so the same on every device.

    They stay on the images' device, which the host then waits for once. Of float data they are sums in float64 on the
    CPU, since MPS has no float64, of the differences to the first one, since a large mean would hide a spread.
    """

    count: int = 0
    first: Tensor | None = None
    total: Tensor | int = 0
    squares: Tensor | int = 0

    def add(self, images: Tensor) -> None:
        for part in images.split(8):  # four bytes a value: not of all at once
            pixels = part.to(torch.int32 if part.dtype == torch.uint8 else torch.int64)
            if part.dtype == torch.float32:
                values = part.cpu().double()
                self.first = values[0] if self.first is None else self.first
                pixels = values - self.first
            self.count += len(pixels)
            self.total, self.squares = self.total + pixels.sum(0), self.squares + pixels.square().sum(0)

    @property
    def deviation(self) -> Tensor:
        """For the sample spread: the sum of squared distances from the mean image, of each pixel."""
        squares, total = torch.as_tensor(self.squares).cpu(), torch.as_tensor(self.total).cpu()
        return squares.double() - total.double().square() / self.count


def spread(batches: Iterable[tuple[Tensor, Tensor | None]]) -> float:
    """The sample spread, of uint8 images (N, C, H, W): the root of the mean over pixels of their variance, 0 to 255.

    Of other data it is in their own unit.

    Each batch is images and their class labels, or None. With labels it is the variance within a class, pooled over the
    classes. There must be at least two images of a class, or at least two without labels.
    """
    classes: dict[int, _PixelSums] = {}
    for images, labels in batches:
        of = [0] * len(images) if labels is None else labels.tolist()
        for label in sorted(set(of)):
            chosen = torch.tensor([index for index, one in enumerate(of) if one == label]).to(images.device)
            classes.setdefault(label, _PixelSums()).add(rows_of(images, chosen))
    freedom = sum(sums.count - 1 for sums in classes.values())
    variance = float(sum(sums.deviation.mean() for sums in classes.values())) / freedom
    return math.sqrt(max(0.0, variance))


def real_spread(images: Tensor, labels: Tensor | None = None) -> float:
    """The sample spread of `SPREAD_OF` real images all over a data set, within classes for labels; 0 for too few."""
    count, classes = min(SPREAD_OF, len(images)), 1 if labels is None else len(labels.unique())
    if count - classes + 1 < FEWEST:
        return 0.0
    # In the order of the classes every class has its share of them.
    order = torch.arange(len(images)) if labels is None else labels.argsort(stable=True)
    some = order[torch.arange(count) * len(images) // count]
    return spread([(rows_of(images, some.to(images.device)), None if labels is None else labels[some])])
