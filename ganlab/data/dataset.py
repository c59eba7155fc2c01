"""`ImageDataset`: a data set held as one tensor, with its fingerprint, the shape of its data and its conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import define, field

from ganlab.data.load_dataset import check_data
from ganlab.data.memmap import MappedImages, fingerprint_head
from ganlab.data.pixels import type_name, value_range
from ganlab.protocols import ConditionSpec, Dataset, ImageSpec
from ganlab.protocols.condition import Condition
from ganlab.utils.errors import one_line

if TYPE_CHECKING:
    from torch import Tensor


@define(slots=False)
class ImageDataset:
    """A data set in one tensor: images uint8 (N, C, H, W), and a condition for each: None, class labels, or images.

    Data may also be uint16 or float32, which is never scaled, and signals (N, C, T) or rows of a table (N, D). Class
    labels are int64 (N,) from 0, condition images uint8 or uint16 (N, C, H, W), attributes float32 (N, K, …). Several
    conditions are a mapping of names to these. Raises ComponentError for other types.

    `classes` are the names of the classes in the order of their labels. `skipped` is the number of images whose files
    could not be read. `weights`, float (N,), are how often images are drawn in training, relative to one another; None
    for each once an epoch. `left_out` counts the files that were not taken for images, by the endings of their names.
    """

    images: Tensor = field(repr=False)
    name: str
    split: str = "train"
    condition: Condition = field(default=None, repr=False)
    classes: tuple[str, ...] = ()
    skipped: int = 0
    left_out: Mapping[str, int] = field(factory=dict)
    weights: Tensor | None = field(default=None, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_data(self.images, self.condition, f"ImageDataset {one_line(self.name, 60)!r}, split {self.split!r}")

    @property
    def fingerprint(self) -> str:
        """The data set's fingerprint: the SHA-256 of its images' shape, type and pixels, and of its weights if any."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:  # separate, since pyright does not accept a cached_property as a protocol's property
        if self.weights is None:
            return self._pixels_fingerprint
        weights = self.weights.double().contiguous().numpy().data
        return hashlib.sha256(self._pixels_fingerprint.encode() + bytes(weights)).hexdigest()

    @cached_property
    def _pixels_fingerprint(self) -> str:
        if isinstance(self.images, MappedImages):
            return self.images.fingerprint
        digest = hashlib.sha256(fingerprint_head(self.images))
        for part in self.images.split(4096):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


def image_spec(dataset: Dataset) -> ImageSpec:
    """Returns the shape and type of a data set's images, signals or rows, and what their conditions are."""
    images, condition = dataset.images, dataset.condition
    dtype = type_name(images.dtype)
    limits = value_range(images) if dtype == "float32" and len(images) else None
    form: dict[str, Any] = {"shape": tuple(images.shape[1:]), "dtype": dtype, "range": limits}
    if isinstance(condition, Mapping):
        return ImageSpec.of(**form, conditions={name: _condition_spec(part) for name, part in condition.items()})
    if condition is None:
        return ImageSpec.of(**form)
    one = _condition_spec(condition)
    if one.dtype == "int64":
        return ImageSpec.of(**form, classes=one.classes)
    return ImageSpec.of(**form, condition_shape=one.shape, condition_dtype=one.dtype)


def _condition_spec(condition: Tensor) -> ConditionSpec:
    """What one condition of a data set is."""
    classes = int(condition.max()) + 1 if condition.ndim == 1 else None
    return ConditionSpec(tuple(condition.shape[1:]), type_name(condition.dtype), classes)
