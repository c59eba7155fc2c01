"""Batches sized to memory: work on many rows that is halved where memory runs out, and goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define

if TYPE_CHECKING:
    from torch import Tensor


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a class of its own on CUDA, the words of a RuntimeError on the CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


@define
class FittingBatches:
    """Calls a function on rows (N, …) by batches of `size` and puts the results together.

    Where memory runs out, batches are half as large from then on, down to one row. So it is only for functions of
    which a row's result does not depend on the others: networks in eval mode.
    """

    function: Callable[[Tensor], Tensor]
    size: int

    def __call__(self, rows: Tensor) -> Tensor:
        import torch

        done = [self.function(rows[:0])] if len(rows) == 0 else []
        start = 0
        while start < len(rows):
            part = rows[start : start + self.size]
            try:
                done.append(self.function(part))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                self.size = len(part) // 2
                warnings.warn(
                    f"memory ran out at {len(part)} images at a time; going on with {self.size}", stacklevel=2
                )
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start += len(part)
        return torch.cat(done)
