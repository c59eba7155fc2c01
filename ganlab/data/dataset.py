"""ganlab.data.dataset."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from torch import Tensor

from ganlab.data.memmap import MappedImages
from ganlab.protocols import Dataset, ImageSpec

if TYPE_CHECKING:
    from torch import Tensor


@define(slots=False)
class ImageDataset:
    """A `Dataset`: images uint8 (N, C, H, W), class labels int64 (N,) or None, and what they are called.

    `classes` names the classes, in the order of their labels. `skipped` is how many images there would be more if their
    files could be read.
    """

    images: Tensor = field(repr=False)
    name: str
    split: str = "train"
    condition: Tensor | None = field(default=None, repr=False)
    classes: tuple[str, ...] = ()
    skipped: int = 0

    def __attrs_post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise TypeError(f"images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.condition is not None and len(self.condition) != len(self.images):
            raise ValueError(f"{len(self.images)} images but {len(self.condition)} conditions")

    @property
    def fingerprint(self) -> str:
        """sha256 of the shape and the pixels."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:  # by itself, since to pyright a cached property is not the protocol's property
        if isinstance(self.images, MappedImages):
            return self.images.fingerprint
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for part in self.images.split(4096):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


def image_spec(dataset: Dataset) -> ImageSpec:
    """The shape of a data set's images, and its number of classes where the condition is class labels."""
    _, channels, height, width = dataset.images.shape
    labels = dataset.condition
    classes = int(labels.max()) + 1 if labels is not None and labels.ndim == 1 else None
    return ImageSpec(channels, height, width, classes)


def class_labels_of(dataset: Dataset) -> Tensor | None:
    """The data set's class labels (N,), or None where its condition is no labels."""
    labels = dataset.condition
    return labels if labels is not None and labels.ndim == 1 and len(labels) else None


def class_count(dataset: Dataset, labels: Tensor) -> int:
    """The number of classes that the data set names, or that its labels show where it names none.

    A split need not have an image of every class, so the names say more than the labels.
    """
    return max(len(getattr(dataset, "classes", ())), int(labels.max()) + 1)
