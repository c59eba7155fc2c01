"""`Batch`: a training batch of float data and their conditions on the device, and those of a game's other streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from ganlab.protocols.condition import map_condition, named_conditions
from ganlab.utils.named import Named

if TYPE_CHECKING:
    from torch import Tensor

    from ganlab.protocols.condition import Condition


def _named_streams(streams: Mapping[str, Batch]) -> Named[Batch]:
    return Named("other data set of the game", streams)


@frozen(eq=False)
class Batch:
    """A training batch: images, float32 (n, C, H, W) in [-1, 1], and their conditions.

    Where the data are signals it has (n, C, T), and of a table (n, D); float32 data are as they are, of any range.

    `condition` is None, class labels int64 (n,), images float32 (n, C, H, W) in [-1, 1], attributes float32 (n, K, …)
    as the data set has them, or several of these by name. `streams` are the batches of the game's other data sets, by
    name, of the same size.
    """

    images: Tensor
    condition: Condition = None
    streams: Mapping[str, Batch] = field(factory=dict, converter=_named_streams)

    @property
    def tensors(self) -> list[Tensor]:
        own = [self.images, *named_conditions(self.condition).values()]
        return own + [tensor for stream in self.streams.values() for tensor in stream.tensors]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Returns the batch with every tensor changed, in every stream."""
        condition = map_condition(change, self.condition)
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
