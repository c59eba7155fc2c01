"""Images as one tensor, and the order in which training sees them.

Decisions:
- A data set is one uint8 tensor. It lies on the run's device where it fits, and a batch is a gather by index: no
  workers, no decoding, no copy a step. Where it does not fit, batches are read ahead. Either way they are the same, and
  pixels become float in [-1, 1] on the device.
- The order is a function of (seed, epoch) and the position a function of the step, so a resumed run needs neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property

import torch
from attrs import define, field, frozen
from torch import Tensor

from ganlab import ranks
from ganlab.mapped import WINDOW, MappedImages
from ganlab.memory import free_memory
from ganlab.protocols import Dataset, ImageSpec
from ganlab.rng import derived_seed
from ganlab.streaming import Stream


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


def to_float(images: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def as_input(condition: Tensor) -> Tensor:
    """A data set's condition as networks take it: labels int64 (n,) as they are, images as float32 in [-1, 1]."""
    return condition if condition.ndim == 1 else to_float(condition)


def to_uint8(images: Tensor) -> Tensor:
    """Float [-1, 1] to uint8 [0, 255], rounded to the nearest level, clipped."""
    return images.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


@frozen(eq=False)
class Batch:
    """Images, float32 (n, C, H, W) in [-1, 1], and what each is of.

    `condition` is None, class labels int64 (n,) or images, float32 (n, C, H, W) in [-1, 1].
    """

    images: Tensor
    condition: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        return [self.images] if self.condition is None else [self.images, self.condition]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*map(change, self.tensors))

    def parts(self, count: int) -> list[Batch]:
        """The batch cut into so many of equal size; `count` divides it."""
        if count == 1:
            return [self]
        return [Batch(*tensors) for tensors in zip(*(tensor.chunk(count) for tensor in self.tensors), strict=True)]


@define(eq=False)
class Feeder:
    """Hands out training batches by number: batch `b` is the same whoever asks, and whenever.

    Incomplete batches are dropped, so an epoch is `N // batch_size` batches.
    """

    images: Tensor = field(repr=False)
    batch_size: int
    seed: int
    device: torch.device
    condition: Tensor | None = field(default=None, repr=False)
    _order: dict[int, Tensor] = field(factory=dict, repr=False, init=False)
    _stream: Stream | None = field(default=None, repr=False, kw_only=True)

    @classmethod
    def for_dataset(
        cls, dataset: Dataset, batch_size: int, seed: int, device: torch.device, resident_gb: float | None = None
    ) -> Feeder:
        """Puts the images on the device where they fit in `resident_gb` (10^9 bytes), and else streams them.

        None allows half of the memory that is free. What lies in the device's memory already stays as it is.
        """
        images, condition = dataset.images, dataset.condition
        if images.device.type == device.type and not isinstance(images, MappedImages):
            return cls(images, batch_size, seed, device, condition)
        size = images.nbytes + (0 if condition is None else condition.nbytes)
        if size <= allowed_bytes(resident_gb, device):
            condition = None if condition is None else condition.to(device)
            return cls(resident(images, device), batch_size, seed, device, condition)
        return cls(images, batch_size, seed, device, condition, stream=Stream(images, batch_size, device))

    @property
    def streams(self) -> bool:
        """Whether batches are read ahead, as the images do not fit on the device."""
        return self._stream is not None

    @property
    def batches_per_epoch(self) -> int:
        return len(self.images) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The permutation of one epoch, int64 (N,), where the images are."""
        order = self._order.get(epoch)
        if order is None:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            self._order.clear()
            order = torch.randperm(len(self.images), generator=generator).to(self.images.device)
            self._order[epoch] = order
        return order

    def index(self, number: int) -> Tensor:
        """Which images batch `number` has, int64 (n,); on many processes this one's share of it."""
        epoch, position = divmod(number, self.batches_per_epoch)
        first, end = (position * self.batch_size + edge for edge in ranks.share(self.batch_size))
        return self.order(epoch)[first:end]

    def batch(self, number: int) -> Batch:
        """Batch `number`, counted over the whole run; on many processes this one's share of it.

        Raises GanlabError where images that are streamed cannot be read.
        """
        index = self.index(number)
        if self._stream is not None:
            images = self._stream.batch(number, self.index)
        else:
            images = self.images[index].to(self.device, non_blocking=True)
        if self.condition is None:
            return Batch(to_float(images))
        return Batch(to_float(images), as_input(self.condition[index].to(self.device, non_blocking=True)))

    def close(self) -> None:
        """Ends the reading ahead, which another batch would start again."""
        if self._stream is not None:
            self._stream.close()


def allowed_bytes(resident_gb: float | None, device: torch.device) -> float:
    """How many bytes of images may be resident: half of what is free, shared by this machine's processes, for None."""
    if resident_gb is not None:
        return resident_gb * 1e9
    return free_memory(device) / 2 / (1 if device.type == "cuda" else ranks.local_world())


def resident(images: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, made in parts, so that a map's pages are not all in memory beside it."""
    whole = torch.empty(images.shape, dtype=torch.uint8, device=device)
    rows = max(1, WINDOW // max(1, images[:1].nbytes))
    for place, part in zip(whole.split(rows), images.split(rows), strict=True):
        place.copy_(part)
    return whole
