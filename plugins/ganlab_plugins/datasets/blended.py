"""Blended images: those of a labelled data set, such as digits, laid over patches of photographs, as MNIST-M is made.

Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks" (arXiv:1505.07818), section 5.2.1: the absolute
difference of a digit and a patch, in each channel. Theirs are patches of BSDS500, which `over` takes as a folder.

Decisions:
- A patch is a crop at a random place of a random image of another data set, of the same split: patches of the test
  split are from regions, or files, that no training image shows.
- Random numbers are drawn by numpy.random.RandomState, whose streams never change, with one stream for each split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import ge, le

from ganlab import (
    ComponentError,
    Dataset,
    DatasetConfig,
    Places,
    Progress,
    Register,
    component,
    hookimpl,
    load_dataset,
    map_condition,
    no_progress,
    paced,
    stream_seed,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ganlab import ImageDataset

PART = 1024
"""How many images are blended at a time."""


@frozen
class Blended:
    """Blended images of another data set: the absolute difference of each and a patch of a photograph.

    Class labels or other conditions of the data set are kept.

    dataset: whose images are laid over patches; grey ones are laid over each channel.
    over: where the patches are from: images at least as large.
    patches: how many patches each image is laid over, each of which makes an image; more than 1 for few images, of
        which a discriminator would soon know every patch.
    seed: of the patches.
    """

    dataset: DatasetConfig = component("dataset", default="digits")
    over: DatasetConfig = component("dataset", default="photographs")
    patches: int = field(default=1, validator=[ge(1), le(1000)])
    seed: int = stream_seed()

    def build(self, places: Places, split: str, progress: Progress = no_progress) -> ImageDataset:
        import numpy as np
        import torch

        from ganlab import ImageDataset

        original, ground = (load_dataset(config, places, split, progress) for config in (self.dataset, self.over))
        _check(original, ground)
        drawn = np.random.RandomState([self.seed, int(split == "test")])
        report, parts = paced(progress), []
        count = len(original.images)
        for time in range(self.patches):
            for first in range(0, count, PART):
                report("images blended", time * count + first, self.patches * count)
                images = torch.as_tensor(original.images[first : first + PART])
                parts.append((images.short() - _patches(ground.images, images, drawn)).abs().to(torch.uint8))
        weights = getattr(original, "weights", None)
        return ImageDataset(
            torch.cat(parts),
            f"blended:{original.name}",
            split,
            map_condition(self._repeated, original.condition),
            getattr(original, "classes", ()),
            getattr(original, "skipped", 0),
            getattr(original, "left_out", {}),
            weights=None if weights is None else self._repeated(weights),
        )

    def _repeated(self, values: Tensor) -> Tensor:
        """Values (n, …) of the images, once for each patch: (patches n, …)."""
        return values.repeat(self.patches, *[1] * (values.ndim - 1))


def _check(original: Dataset, ground: Dataset) -> None:
    """Refuses images that cannot be blended: of other types, of sizes or channels that do not fit."""
    for field_name, dataset in (("dataset", original), ("over", ground)):
        if str(dataset.images.dtype) != "torch.uint8" or dataset.images.ndim != 4:
            raise ComponentError(
                f"blended: {field_name}: {dataset.name} has {dataset.images.dtype} {tuple(dataset.images.shape)}; "
                "wanted uint8 images (N, C, H, W)"
            )
    shape, patch = tuple(original.images.shape[1:]), tuple(ground.images.shape[1:])
    if shape[0] not in (1, patch[0]):
        raise ComponentError(
            f"blended: the images of {original.name} have {shape[0]} channels and those of {ground.name} {patch[0]}; "
            "wanted as many, or grey images"
        )
    if patch[1] < shape[1] or patch[2] < shape[2]:
        raise ComponentError(
            f"blended: over: the images of {ground.name}, {patch[2]}x{patch[1]}, are smaller than those of "
            f"{original.name}, {shape[2]}x{shape[1]}; set a larger size there"
        )
    if not len(ground.images):
        raise ComponentError(f"blended: over: {ground.name} ({ground.split}) has no images")


def _patches(ground: Tensor, images: Tensor, drawn: np.random.RandomState) -> Tensor:
    """Patches int16 (n, C, H, W) to blend images (n, c, H, W) with: crops of random images at random places."""
    import torch

    count, _, height, width = images.shape
    rows, tops, lefts = (
        drawn.randint(most, size=count)
        for most in (len(ground), ground.shape[2] - height + 1, ground.shape[3] - width + 1)
    )
    crops = [
        ground[row, :, top : top + height, left : left + width]
        for row, top, left in zip(rows.tolist(), tops.tolist(), lefts.tolist(), strict=True)
    ]
    return torch.stack(crops).short()


@hookimpl
def register_datasets(register: Register[DatasetConfig]) -> None:
    register("blended", Blended)
