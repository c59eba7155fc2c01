"""Patches of three photographs that scikit-learn and matplotlib ship: available without a download.

china.jpg and flower.jpg (640x427) are by Flickr's users danielbuechele and vultilion, under the Creative Commons
licence Attribution 2.0, as scikit-learn says; grace_hopper.jpg (512x600) is matplotlib's sample picture.

Decisions:
- Flat patches, such as sky, are left out: a mean over patches of a ratio such as PSNR would be that of the flattest.
- The splits are regions: a part of each photograph, by default the rightmost, is the test split. No pixel is in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen
from attrs.validators import ge, gt, le, lt, min_len, optional

from ganlab import (
    ComponentError,
    DatasetConfig,
    Places,
    Register,
    check_split,
    hookimpl,
    one_line,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab import ImageDataset

Photograph = Literal["china", "flower", "grace_hopper"]

MOST = 2 * 10**9
"""The most bytes of patches, which lie in memory."""


@frozen
class Photographs:
    """Photographs: square patches of three colour photographs; the label is the photograph.

    photographs: which of them: "china" (a temple), "flower", "grace_hopper" (a portrait).
    size: height and width of a patch in pixels.
    stride: pixels from one patch to the next, along and down; by default a quarter of `size`.
    shrink: the photographs are first made so many times smaller, by averages, so that a patch shows more of them.
    contrast: the least standard deviation of brightness, 0 to 255, within a patch; flatter patches are left out.
    held_out: the share of each photograph's width that is the test split.
    held_out_from: where that part begins, as a share of the width from the left; by default it ends at the right edge.
        From the middle, objects in it go on in the training split, as colours must for a task of colour.
    """

    photographs: tuple[Photograph, ...] = field(default=("china", "flower", "grace_hopper"), validator=min_len(1))
    size: int = field(default=32, validator=[ge(1), le(256)])
    stride: int | None = field(default=None, validator=optional([ge(1), le(256)]))
    shrink: int = field(default=1, validator=[ge(1), le(64)])
    contrast: float = field(default=20.0, validator=[ge(0), le(127)])
    held_out: float = field(default=0.25, validator=[gt(0), lt(1)])
    held_out_from: float | None = field(default=None, validator=optional([ge(0), lt(1)]))

    def __attrs_post_init__(self) -> None:
        if self.held_out_from is not None and self.held_out_from + self.held_out > 1:
            raise ValueError(
                f"held_out_from: {self.held_out_from} and held_out = {self.held_out} go beyond the right edge; wanted "
                "at most 1 in sum"
            )

    def build(self, places: Places, split: str) -> ImageDataset:
        import torch

        from ganlab import ImageDataset

        check_split("photographs", split)
        self._check_regions()  # of both splits at once, before anything is trained
        photographs = [self._regions(name, split) for name in self.photographs]
        stride = self.stride or max(1, self.size // 4)
        counts = [sum(_count(region, self.size, stride) for region in regions) for regions in photographs]
        if (wanted := 3 * self.size**2 * sum(counts)) > MOST:
            raise ComponentError(
                f"photographs: stride: {stride} gives {sum(counts):,} patches of {self.size}x{self.size}, "
                f"{wanted / 1e9:.1f} GB; wanted at most {MOST / 1e9:.0f} GB"
            )
        every = torch.stack(
            [patch for regions in photographs for region in regions for patch in _patches(region, self.size, stride)]
        )
        labels = torch.arange(len(photographs)).repeat_interleave(torch.tensor(counts))
        # Of brightness; without Bessel's correction, so that a patch of one pixel has no contrast.
        kept = every.float().mean(1).flatten(1).std(1, correction=0) >= self.contrast
        if not kept.any():
            raise ComponentError(f"photographs: contrast: no {split} patch has {self.contrast:g} levels or more")
        return ImageDataset(every[kept], "photographs", split, labels[kept], self.photographs)

    def _check_regions(self) -> None:
        """Raises ComponentError for a photograph of which no patch fits into one of the splits."""
        sizes = {name: [-(-side // self.shrink) for side in _opened(name).size] for name in self.photographs}
        for name, (width, height) in sizes.items():
            if min(width, height) < self.size:
                raise ComponentError(
                    f"photographs: size: {name} has {width}x{height} pixels with shrink = {self.shrink}; wanted at "
                    f"least {self.size}x{self.size}"
                )
        least = max(math.ceil(1000 * self.size / width) / 1000 for width, _ in sizes.values())
        for name, (width, _) in sizes.items():
            first, last = self._columns(width)
            for split, found in (("test", last - first), ("training", max(first, width - last))):
                if found < self.size:
                    limits = f"from {least:g} to {1 - least:.3g}" if self.held_out_from is None else f"from {least:g}"
                    raise ComponentError(
                        f"photographs: held_out: {self.held_out:g} leaves {found} of {width} columns of {name} to the "
                        f"{split} split; wanted {self.size} for a patch, so held_out {limits}"
                    )

    def _columns(self, width: int) -> tuple[int, int]:
        """The first column of a photograph's test split, and the one after its last."""
        start = 1 - self.held_out if self.held_out_from is None else self.held_out_from
        return round(start * width), round((start + self.held_out) * width)

    def _regions(self, name: str, split: str) -> list[Tensor]:
        """The parts (3, H, W) of a photograph that are a split, and into which a patch fits."""
        import numpy as np
        import torch

        picture = _opened(name)
        if self.shrink > 1:
            picture = picture.reduce(self.shrink)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        first, last = self._columns(pixels.shape[2])
        parts = [pixels[..., first:last]] if split == "test" else [pixels[..., :first], pixels[..., last:]]
        return [part for part in parts if min(part.shape[1:]) >= self.size]


def _opened(name: str) -> Any:
    """One of the photographs as a Pillow image in colour."""
    import matplotlib
    import sklearn
    from PIL import Image

    folder = Path(sklearn.__file__).parent / "datasets" / "images"
    if name == "grace_hopper":
        folder = Path(matplotlib.get_data_path()) / "sample_data"
    path = folder / f"{name}.jpg"
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:  # some systems' packages leave the pictures out
        raise ComponentError(
            f"photographs: {path}: cannot be read ({one_line(error)}); install scikit-learn and matplotlib by pip, or "
            "leave it out of `photographs`"
        ) from error


def _count(region: Tensor, size: int, stride: int) -> int:
    """How many patches a photograph's region has."""
    _, height, width = region.shape
    return ((height - size) // stride + 1) * ((width - size) // stride + 1)


def _patches(region: Tensor, size: int, stride: int) -> Iterator[Tensor]:
    """The patches (3, size, size) of a photograph's region, row by row."""
    _, height, width = region.shape
    for top in range(0, height - size + 1, stride):
        for left in range(0, width - size + 1, stride):
            yield region[:, top : top + size, left : left + size]


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("photographs", Photographs)
