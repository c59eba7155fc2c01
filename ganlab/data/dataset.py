"""`ImageDataset`: a data set held as one uint8 tensor, with its fingerprint, image shape and class labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import define, field

from ganlab.data.load_dataset import check_data
from ganlab.data.memmap import MappedImages
from ganlab.protocols import Dataset, ImageSpec
from ganlab.utils.errors import one_line

if TYPE_CHECKING:
    from torch import Tensor


@define(slots=False)
class ImageDataset:
    """A data set in one tensor: images uint8 (N, C, H, W), and a condition for each: None, class labels, or images.

    Class labels are int64 (N,) from 0, condition images uint8 (N, C, H, W). Raises ComponentError for other types.

    `classes` are the names of the classes in the order of their labels. `skipped` is the number of images whose files
    could not be read. `left_out` counts the files that were not taken for images, by the endings of their names.
    """

    images: Tensor = field(repr=False)
    name: str
    split: str = "train"
    condition: Tensor | None = field(default=None, repr=False)
    classes: tuple[str, ...] = ()
    skipped: int = 0
    left_out: Mapping[str, int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        check_data(self.images, self.condition, f"ImageDataset {one_line(self.name, 60)!r}, split {self.split!r}")

    @property
    def fingerprint(self) -> str:
        """The data set's fingerprint: the SHA-256 of the images' shape and pixels."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:  # separate, since pyright does not accept a cached_property as a protocol's property
        if isinstance(self.images, MappedImages):
            return self.images.fingerprint
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for part in self.images.split(4096):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


def image_spec(dataset: Dataset) -> ImageSpec:
    """Returns the shape of a data set's images, and its number of classes or the shape of its conditions, if any."""
    _, channels, height, width = dataset.images.shape
    labels = dataset.condition
    classes = int(labels.max()) + 1 if labels is not None and labels.ndim == 1 else None
    shape: Any = labels.shape[1:] if labels is not None and labels.ndim == 4 else None
    return ImageSpec(channels, height, width, classes, shape)
