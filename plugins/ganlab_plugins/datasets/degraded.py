"""Degraded images of any data set as conditions, and the original images: super-resolution, colour, denoising, holes.

Decisions:
- Degradations can be combined. They are applied in the order blur, smaller, grey, hole, noise, as a camera would do it.
- Random numbers are drawn by numpy.random.RandomState, whose streams never change, with one stream for each split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from attrs.validators import ge, le, lt

from ganlab import (
    ComponentError,
    DatasetConfig,
    Places,
    Progress,
    Register,
    component,
    hookimpl,
    load_dataset,
    no_progress,
    paced,
    stream_seed,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ganlab import ImageDataset

GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (Rec. 601), as Pillow has them."""

EMPTY = 128
"""The level of a hole."""

PART = 1024
"""How many images are degraded at a time."""


@frozen
class Degraded:
    """Degraded images of another data set as conditions, and its images as they are. At least one option is set.

    The conditions are held in memory. Class labels of the data set are dropped.

    dataset: whose images are degraded.
    blur: standard deviation of a Gaussian blur, in pixels.
    smaller: the condition's height and width are so many times smaller (bicubic, antialiased); it divides both.
    grey: colour becomes grey, with one channel.
    hole: height and width of a hole at a random place, as a share of the image's.
    filled: what a hole is filled with: "grey", the level 128, or "border", the mean of the pixels that touch it.
    alpha: conditions have one channel more, the last, that is 0 in the hole and 255 elsewhere, as transparent pictures
        have it: so it need not be guessed where the hole is.
    noise: standard deviation of Gaussian noise, in levels of 0 to 255.
    seed: of the holes' places and the noise.
    """

    dataset: DatasetConfig = component("dataset", default="photographs")
    blur: float = field(default=0.0, validator=[ge(0), le(100)])
    smaller: int = field(default=1, validator=[ge(1), le(64)])
    grey: bool = False
    hole: float = field(default=0.0, validator=[ge(0), lt(1)])
    filled: Literal["grey", "border"] = "grey"
    alpha: bool = False
    noise: float = field(default=0.0, validator=[ge(0), le(255)])
    seed: int = stream_seed()

    def __attrs_post_init__(self) -> None:
        if not (self.blur or self.smaller > 1 or self.grey or self.hole or self.noise):
            raise ValueError("degraded: nothing is degraded; set blur, smaller, grey, hole or noise")
        if not self.hole and (self.alpha or self.filled != "grey"):
            option = "alpha" if self.alpha else "filled"
            raise ValueError(f"degraded: {option} is for holes, and hole = 0; set hole, such as 0.25")

    @property
    def form(self) -> object:
        """How the data set whose images are degraded reads image files; None where it says nothing of it."""
        return getattr(self.dataset, "form", None)

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        import numpy as np
        import torch

        from ganlab import ImageDataset

        original = load_dataset(self.dataset, places, split, progress)
        images, name = original.images, f"degraded:{original.name}"
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ComponentError(
                f"degraded: {original.name} has {images.dtype} {tuple(images.shape)}; wanted uint8 images (N, C, H, W)"
            )
        _, channels, height, width = images.shape
        if self.grey and channels != 3:
            raise ComponentError(f"grey: the images of {original.name} have {channels} channels; wanted 3, in colour")
        if height % self.smaller or width % self.smaller:
            raise ComponentError(
                f"smaller: {self.smaller} does not divide the size of the images of {original.name}, {width}x{height}"
            )
        drawn = np.random.RandomState([self.seed, int(split == "test")])
        report, parts = paced(progress), []
        for first in range(0, len(images), PART):
            report("images degraded", first, len(images))
            parts.append(self._degraded(torch.as_tensor(images[first : first + PART]), drawn))
        skipped, left_out = getattr(original, "skipped", 0), getattr(original, "left_out", {})
        weights = getattr(original, "weights", None)
        return ImageDataset(images, name, split, torch.cat(parts), skipped=skipped, left_out=left_out, weights=weights)

    def _degraded(self, images: Tensor, drawn: np.random.RandomState) -> Tensor:
        """Degraded images (n, c, h, w) uint8 of images (n, C, H, W) uint8, with random numbers of `drawn`."""
        import torch
        from torch.nn.functional import interpolate

        values = images.float()
        if self.blur:
            values = _blurred(values, self.blur)
        if self.smaller > 1:
            size = (values.shape[2] // self.smaller, values.shape[3] // self.smaller)
            values = interpolate(values, size, mode="bicubic", antialias=True)
        if self.grey:
            values = (values * values.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
        holes = self._holes(values, drawn) if self.hole else None
        if holes is not None:
            fill = _border_means(values, holes) if self.filled == "border" else values.new_tensor(EMPTY)
            values = torch.where(holes, fill, values)
        if self.noise:
            values = values + self.noise * torch.from_numpy(drawn.standard_normal(values.shape)).float()
        if holes is not None and self.alpha:
            values = torch.cat([values, 255.0 * ~holes], 1)
        return values.round().clamp(0, 255).to(torch.uint8)

    def _holes(self, values: Tensor, drawn: np.random.RandomState) -> Tensor:
        """Where images (n, C, H, W) have a hole, (n, 1, H, W): a rectangle of at least a pixel at a random place."""
        import torch

        inside = torch.ones(len(values), 1, 1, 1, dtype=torch.bool)
        for dimension, view in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
            side = values.shape[dimension]
            length = max(1, round(self.hole * side))
            first = torch.from_numpy(drawn.randint(side - length + 1, size=(len(values), 1, 1, 1)))
            at = torch.arange(side).view(view)
            inside = inside & (at >= first) & (at < first + length)
        if self.filled == "border" and inside.all((1, 2, 3)).any():
            raise ComponentError(
                f"hole: {self.hole} of {values.shape[3]}x{values.shape[2]} pixels leaves no border to fill it with; "
                'set a smaller one, or filled = "grey"'
            )
        return inside


def _border_means(values: Tensor, holes: Tensor) -> Tensor:
    """The means (n, C, 1, 1) of the pixels of images (n, C, H, W) that touch their holes (n, 1, H, W)."""
    from torch.nn.functional import max_pool2d

    border = (max_pool2d(holes.float(), 3, 1, 1) > 0) & ~holes
    return (values * border).sum((2, 3), keepdim=True) / border.sum((2, 3), keepdim=True)


def _blurred(values: Tensor, std: float) -> Tensor:
    """Images (n, C, H, W) blurred by a Gaussian of a standard deviation in pixels; the border is repeated outwards."""
    import torch
    from torch.nn.functional import conv2d, pad

    radius = max(1, round(4 * std))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / std).square())
    kernel = kernel / kernel.sum()
    flat = pad(values.flatten(0, 1).unsqueeze(1), (radius,) * 4, mode="replicate")
    flat = conv2d(conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.view_as(values)


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("degraded", Degraded)
