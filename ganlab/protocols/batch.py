"""`Batch`: a training batch of float images and their conditions on the device, and those of a game's other streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from torch import Tensor


@frozen(eq=False)
class Batch:
    """A training batch: images, float32 (n, C, H, W) in [-1, 1], and their conditions.

    `condition` is None, class labels int64 (n,) or images, float32 (n, C, H, W) in [-1, 1]. `streams` are the batches
    of the game's other data sets, by name, of the same size.
    """

    images: Tensor
    condition: Tensor | None = None
    streams: Mapping[str, Batch] = field(factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        own = [self.images] if self.condition is None else [self.images, self.condition]
        return own + [tensor for stream in self.streams.values() for tensor in stream.tensors]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Returns the batch with every tensor changed, in every stream."""
        condition = None if self.condition is None else change(self.condition)
        return Batch(change(self.images), condition, {name: part.map(change) for name, part in self.streams.items()})

    def parts(self, count: int) -> list[Batch]:
        """Splits the batch into `count` equal parts, for gradient accumulation; `count` must divide its size."""
        if count == 1:
            return [self]
        size = len(self.images) // count
        return [self.rows(index * size, (index + 1) * size) for index in range(count)]

    def rows(self, first: int, end: int) -> Batch:
        """Returns the rows of the batch from `first` up to `end`, in every stream."""
        return self.map(lambda tensor: tensor[first:end])
