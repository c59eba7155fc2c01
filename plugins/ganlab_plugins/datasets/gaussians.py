"""Synthetic 2D points from a mixture of Gaussians, a ring or a grid, whose modes are known and can be counted.

Srivastava et al. 2017, "VEEGAN" (arXiv:1705.07761), and Lin et al. 2018, "PacGAN" (arXiv:1712.04086), count modes on a
ring of 8 and a grid of 25. The defaults are theirs; PacGAN's authors train on 100,000 points.

Decisions:
- A point is an "image" of shape (2, 1, 1): its channels are x and y. So every network that supports any size, every
  metric and all of a run work on points without changes.
- A data set is uint8, so coordinates are scaled to [-1, 1] and rounded to 256 levels. The scale is the smallest that
  leaves `MARGIN` standard deviations beyond the outermost means, because a larger margin makes the levels wider. With
  the defaults a level is 0.83 standard deviations wide on the ring and 0.67 on the grid; rounding adds a twelfth of its
  square to the variance, which makes the standard deviation 2.8% and 1.9% larger. In effect no point is clipped: one
  coordinate in 10^9 lies beyond the margin.
- Generated images are rounded to the same levels before they are scored or stored.
- Points are drawn from numpy.random.RandomState, whose streams never change, with one stream for each split.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from attrs import field, frozen
from attrs.validators import ge, gt, le

from ganlab import (
    DatasetConfig,
    Places,
    Register,
    check_split,
    hookimpl,
    stream_seed,
)

if TYPE_CHECKING:
    from ganlab import ImageDataset

MARGIN = 6
"""Standard deviations between the outermost means and the edges of the value range, -1 and 1."""

SPACING = 2.0
"""Distance between neighbouring means of the grid."""

Centres = list[tuple[float, float]]


def _count() -> Any:
    return field(default=100_000, validator=[ge(1), le(10_000_000)])


@frozen
class Ring:
    """Ring of Gaussians of equal weight, evenly spaced on the unit circle; the label is the mode, starting at (1, 0).

    modes: number of Gaussians.
    std: standard deviation of each Gaussian, in both directions.
    count: number of points in each split.
    seed: of the points.
    """

    modes: int = field(default=8, validator=[ge(2), le(1000)])
    std: float = field(default=0.01, validator=[gt(0), le(1000)])
    count: int = _count()
    seed: int = stream_seed()

    @property
    def centres(self) -> Centres:
        """The means (x, y) of the Gaussians, in the order of the labels."""
        angles = (2 * math.pi * mode / self.modes for mode in range(self.modes))
        return [(math.cos(angle), math.sin(angle)) for angle in angles]

    @property
    def scale(self) -> float:
        """The scale of the points: their coordinates are pixel values in [-1, 1] times this."""
        return 1 + MARGIN * self.std

    def build(self, places: Places, split: str) -> ImageDataset:
        return _points("ring", self, split)


@frozen
class Grid:
    """Grid of Gaussians of equal weight, centred at (0, 0), 2 apart; the label is the mode, column by column.

    side: number of Gaussians in a row, and of rows.
    std: standard deviation of each Gaussian, in both directions.
    count: number of points in each split.
    seed: of the points.
    """

    side: int = field(default=5, validator=[ge(2), le(31)])
    std: float = field(default=0.05, validator=[gt(0), le(1000)])
    count: int = _count()
    seed: int = stream_seed()

    @property
    def centres(self) -> Centres:
        """The means (x, y) of the Gaussians, in the order of the labels."""
        along = [SPACING * (place - (self.side - 1) / 2) for place in range(self.side)]
        return [(x, y) for x in along for y in along]

    @property
    def scale(self) -> float:
        """The scale of the points: their coordinates are pixel values in [-1, 1] times this."""
        return SPACING * (self.side - 1) / 2 + MARGIN * self.std

    def build(self, places: Places, split: str) -> ImageDataset:
        return _points("grid", self, split)


def _points(name: str, config: Ring | Grid, split: str) -> ImageDataset:
    import numpy as np
    import torch

    from ganlab import ImageDataset, to_uint8

    check_split(name, split)
    random = np.random.RandomState([config.seed, int(split == "test")])
    centres = np.array(config.centres)
    labels = random.randint(len(centres), size=config.count, dtype=np.int64)
    points = centres[labels] + config.std * random.standard_normal((config.count, 2))
    return ImageDataset(
        to_uint8(torch.from_numpy(points / config.scale))[:, :, None, None],
        name,
        split,
        torch.from_numpy(labels),
        tuple(str(mode) for mode in range(len(centres))),
    )


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("ring", Ring)
    register("grid", Grid)
