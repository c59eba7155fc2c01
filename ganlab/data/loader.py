"""The data loader: training batches by index, from images on the device or prefetched from disk, in shuffled order.

Decisions:
- A data set is one tensor. If it fits on the run's device, a batch is a gather by index: no workers, no decoding,
  no copy per step. Otherwise batches are prefetched. Both give the same batches, converted to a network's input on the
  device.
- The order is a function of (seed, epoch) and the position a function of the step, so a checkpoint stores neither.
"""

from __future__ import annotations

import torch
from attrs import define, field
from torch import Tensor

from ganlab.data.memmap import WINDOW, MappedImages
from ganlab.data.pixels import as_input, rows_of
from ganlab.data.prefetch import Prefetcher
from ganlab.protocols import Dataset, map_condition, named_conditions
from ganlab.protocols.batch import Batch
from ganlab.protocols.condition import Condition
from ganlab.utils import distributed
from ganlab.utils.device import has_own_memory
from ganlab.utils.memory import free_memory
from ganlab.utils.rng import derived_seed


@define(eq=False)
class BatchLoader:
    """The data loader: returns training batches by index; batch `b` depends only on the seed and `b`.

    Incomplete batches are dropped, so an epoch has `N // batch_size` batches. With `weights`, (N,), an epoch has as
    many draws as there are images, with replacement, each image in proportion to its weight.
    """

    images: Tensor = field(repr=False)
    batch_size: int
    seed: int
    device: torch.device
    condition: Condition = field(default=None, repr=False)
    weights: Tensor | None = field(default=None, repr=False, kw_only=True)
    _order: dict[int, Tensor] = field(factory=dict, repr=False, init=False)
    _stream: Prefetcher | None = field(default=None, repr=False, kw_only=True)

    @classmethod
    def for_dataset(
        cls, dataset: Dataset, batch_size: int, seed: int, device: torch.device, resident_gb: float | None = None
    ) -> BatchLoader:
        """Makes a data loader: copies images to the device if they fit in `resident_gb` (10^9 bytes), or prefetches.

        None allows half of the free memory. Images that are already in the device's memory stay as they are.
        """
        images, condition = dataset.images, dataset.condition
        weights: Tensor | None = getattr(dataset, "weights", None)
        if images.device.type == device.type and not isinstance(images, MappedImages):
            return cls(images, batch_size, seed, device, condition, weights=weights)
        if _bytes(images, condition) <= max_resident_bytes(resident_gb, device):
            condition = map_condition(lambda part: part.to(device), condition)
            return cls(copy_to_device(images, device), batch_size, seed, device, condition, weights=weights)
        stream = Prefetcher([images, *named_conditions(condition).values()], batch_size, device)
        return cls(images, batch_size, seed, device, condition, weights=weights, stream=stream)

    @property
    def prefetches(self) -> bool:
        """Whether the data loader prefetches batches, because the images do not fit on the device."""
        return self._stream is not None

    @property
    def resident_bytes(self) -> int:
        """The bytes of images and conditions that lie on the data loader's device; 0 where batches are prefetched."""
        if self.prefetches:
            return 0
        return _bytes(self.images, self.condition)

    @property
    def batches_per_epoch(self) -> int:
        return len(self.images) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """The data loader's shuffled order of the images in an epoch, int64 (N,), on the images' device."""
        order = self._order.get(epoch)
        if order is None:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            self._order.clear()
            order = self._drawn(generator).to(self.images.device)
            self._order[epoch] = order
        return order

    def _drawn(self, generator: torch.Generator) -> Tensor:
        """The data loader's order of an epoch: a permutation, or draws by weight."""
        count = len(self.images)
        if self.weights is None:
            return torch.randperm(count, generator=generator)
        ends = self.weights.double().cumsum(0)
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) * ends[-1]
        return torch.searchsorted(ends, drawn, right=True).clamp_(max=count - 1)

    def index(self, number: int) -> Tensor:
        """Data loader: the indices of the images in a batch, int64 (n,); this rank's share under torchrun."""
        epoch, position = divmod(number, self.batches_per_epoch)
        first, end = (position * self.batch_size + edge for edge in distributed.local_share(self.batch_size))
        return self.order(epoch)[first:end]

    def batch(self, number: int) -> Batch:
        """Loads a training batch by its index in the whole run; this rank's share under torchrun.

        Raises GanlabError if prefetched images cannot be read.
        """
        if self._stream is not None:
            images, *parts = self._stream.batch(number, self.index)
            read = iter(parts)
            return Batch(as_input(images), map_condition(lambda _: _as_own_input(next(read)), self.condition))
        index = self.index(number)

        def given(part: Tensor) -> Tensor:
            return as_input(rows_of(part, index).to(self.device, non_blocking=True))

        return Batch(given(self.images), map_condition(given, self.condition))

    def close(self) -> None:
        """Stops the data loader's prefetching; the next batch would restart it."""
        if self._stream is not None:
            self._stream.close()


def _as_own_input(part: Tensor) -> Tensor:
    """A condition as an input of its own: labels would be the prefetcher's buffer, which is read into again."""
    return part.clone() if part.dtype == torch.int64 else as_input(part)


def _bytes(images: Tensor, condition: Condition) -> int:
    return images.nbytes + sum(part.nbytes for part in named_conditions(condition).values())


def max_resident_bytes(resident_gb: float | None, device: torch.device) -> float:
    """Bytes of images a data loader may keep on the device; for None half the free memory, shared by local ranks."""
    if resident_gb is not None:
        return resident_gb * 1e9
    return free_memory(device) / 2 / (1 if has_own_memory(device) else distributed.local_world_size())


def copy_to_device(images: Tensor, device: torch.device) -> Tensor:
    """Copies the data loader's images to the device in parts, so that a memory map's pages are not all in memory."""
    copy = torch.empty(images.shape, dtype=images.dtype, device=device)
    rows = max(1, WINDOW // max(1, images[:1].nbytes))
    for target, part in zip(copy.split(rows), images.split(rows), strict=True):
        target.copy_(part)
    return copy
