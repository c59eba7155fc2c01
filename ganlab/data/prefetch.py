"""Prefetches batches of images that do not fit on the device: a thread reads one batch ahead into host memory.

With the images come their conditions, so that nothing of a batch is copied from memory that is not pinned.

Decisions:
- There are two buffers and one thread, so memory is two batches whatever the data set's size. The next batch is
  predicted; if another is asked for, the prefetched one is dropped.
- The thread belongs to an executor: it starts with the first batch, ends with `close`, with the prefetcher or with the
  interpreter, and its errors are raised to the caller that asks for the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ganlab.data.memmap import MappedImages

BatchIndex = Callable[[int], Tensor]
"""Maps a batch's index to the indices of its images, int64 (n,)."""


class Prefetcher:
    """Prefetches batches of at most `batch_size` rows of tensors from disk or host memory to the device.

    The tensors are a data set's images and its conditions, which have as many rows.
    """

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, device: torch.device) -> None:
        self._tensors, self._device = tensors, device
        # Elsewhere a buffer could be filled again while it is still being copied.
        self._on_cuda = on_cuda = device.type == "cuda"

        def buffer(tensor: Tensor) -> Tensor:
            return torch.empty((batch_size, *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=on_cuda)

        self._buffers = [[buffer(tensor) for tensor in tensors] for _ in range(2)]
        self._copied = [torch.cuda.Event(blocking=True) for _ in self._buffers] if on_cuda else []
        self._reader: ThreadPoolExecutor | None = None
        self._last = 0
        self._ahead: tuple[int, Future[list[Tensor]]] | None = None

    def batch(self, number: int, index: BatchIndex) -> list[Tensor]:
        """Returns a batch of each tensor on the device, and starts prefetching; on the CPU valid until the next call.

        Raises GanlabError if they cannot be read.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != number:
            ahead = number, self._start(number, index)
        batch = [part.to(self._device, non_blocking=self._on_cuda) for part in ahead[1].result()]
        if self._copied:
            self._copied[self._last].record()
        self._ahead = number + 1, self._start(number + 1, index)
        return batch

    def close(self) -> None:
        """Stops the prefetching thread after its current read; another batch would restart it."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
        self._reader = self._ahead = None

    def _start(self, number: int, index: BatchIndex) -> Future[list[Tensor]]:
        """Starts prefetching a batch into the other buffer, after all earlier reads."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "ganlab-reader")
        self._last = 1 - self._last
        return self._reader.submit(self._read, self._last, number, index)

    def _read(self, buffer: int, number: int, index: BatchIndex) -> list[Tensor]:
        rows = index(number)
        if self._copied:
            self._copied[buffer].synchronize()  # the batch before the last may still be on its way to the device
        batch = [part[: len(rows)] for part in self._buffers[buffer]]
        for tensor, part in zip(self._tensors, batch, strict=True):
            if isinstance(tensor, MappedImages) and tensor.has_whole_rows:
                tensor.read_rows(rows, part.numpy())
            else:
                torch.index_select(tensor, 0, rows, out=part)
        return batch
