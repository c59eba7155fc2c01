"""Images in memory, and the order in which training sees them.

Decisions:
- A data set is one uint8 tensor. It lies on the run's device where it fits, and a batch is a gather by index: no
  workers, no decoding, no copy a step. Pixels become float in [-1, 1] on the device.
- The order is a function of (seed, epoch) and the position a function of the step, so a resumed run needs neither.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
from attrs import define, field, frozen
from torch import Tensor

from ganlab import ranks
from ganlab.protocols import Dataset, ImageSpec
from ganlab.rng import derived_seed


@define(slots=False)
class ImageDataset:
    """A `Dataset`: images uint8 (N, C, H, W), class labels int64 (N,) or None, and what they are called.

    `classes` names the classes, in the order of their labels.
    """

    images: Tensor = field(repr=False)
    name: str
    split: str = "train"
    condition: Tensor | None = field(default=None, repr=False)
    classes: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise TypeError(f"images must be uint8 (N, C, H, W), got {self.images.dtype} {tuple(self.images.shape)}")
        if self.condition is not None and len(self.condition) != len(self.images):
            raise ValueError(f"{len(self.images)} images but {len(self.condition)} conditions")

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the shape and the pixels."""
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


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Float [-1, 1] to uint8 [0, 255], rounded to the nearest level, clipped."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


@frozen
class Feeder:
    """Hands out training batches by number: batch `b` is the same whoever asks, and whenever.

    Incomplete batches are dropped, so an epoch is `N // batch_size` batches.
    """

    images: Tensor = field(repr=False)
    batch_size: int
    seed: int
    device: torch.device
    _order: dict[int, Tensor] = field(factory=dict, repr=False)

    @classmethod
    def for_dataset(cls, dataset: Dataset, batch_size: int, seed: int, device: torch.device) -> Feeder:
        """Puts the images on the device where at least half of its memory stays free."""
        images = dataset.images
        if device.type == "cuda" and images.nbytes < torch.cuda.mem_get_info(device)[0] // 2:
            images = images.to(device)
        return cls(images, batch_size, seed, device)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.images) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The permutation of one epoch, int64 (N,), where the images are."""
        if epoch not in self._order:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            self._order.clear()
            self._order[epoch] = torch.randperm(len(self.images), generator=generator).to(self.images.device)
        return self._order[epoch]

    def batch(self, number: int) -> Tensor:
        """Float images of batch `number`, counted over the whole run; on many processes this one's share of it."""
        epoch, position = divmod(number, self.batches_per_epoch)
        first, end = (position * self.batch_size + edge for edge in ranks.share(self.batch_size))
        index = self.order(epoch)[first:end]
        return to_float(self.images[index].to(self.device, non_blocking=True))
