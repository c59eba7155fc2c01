"""`Batch`: a training batch of float images and their conditions on the device."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class Batch:
    """A training batch: images, float32 (n, C, H, W) in [-1, 1], and their conditions.

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
        """Splits the batch into `count` equal parts, for gradient accumulation; `count` must divide its size."""
        if count == 1:
            return [self]
        return [Batch(*tensors) for tensors in zip(*(tensor.chunk(count) for tensor in self.tensors), strict=True)]
