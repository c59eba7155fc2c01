"""Prefetches batches of images that do not fit on the device: a thread reads one batch ahead into host memory.

Decisions:
- There are two buffers and one thread, so memory is two batches whatever the data set's size. The next batch is
  predicted; if another is asked for, the prefetched one is dropped.
- The thread belongs to an executor: it starts with the first batch, ends with `close`, with the prefetcher or with the
  interpreter, and its errors are raised to the caller that asks for the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ganlab.data.memmap import MappedImages

BatchIndex = Callable[[int], Tensor]
"""Maps a batch's index to the indices of its images, int64 (n,)."""


class Prefetcher:
    """Prefetches batches of at most `batch_size` images of a data set's type from disk or host memory to the device."""

    def __init__(self, images: Tensor, batch_size: int, device: torch.device) -> None:
        self._images, self._device = images, device
        on_cuda = device.type == "cuda"
        shape = (batch_size, *images.shape[1:])
        self._buffers = [torch.empty(shape, dtype=images.dtype, pin_memory=on_cuda) for _ in range(2)]
        self._copied = [torch.cuda.Event(blocking=True) for _ in self._buffers] if on_cuda else []
        self._reader: ThreadPoolExecutor | None = None
        self._last = 0
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def batch(self, number: int, index: BatchIndex) -> Tensor:
        """Returns a batch's images on the device, and starts prefetching; on the CPU valid until the next call."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != number:
            ahead = number, self._start(number, index)
        images = ahead[1].result().to(self._device, non_blocking=True)
        if self._copied:
            self._copied[self._last].record()
        self._ahead = number + 1, self._start(number + 1, index)
        return images

    def close(self) -> None:
        """Stops the prefetching thread after its current read; another batch would restart it."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
        self._reader = self._ahead = None

    def _start(self, number: int, index: BatchIndex) -> Future[Tensor]:
        """Starts prefetching a batch into the other buffer, after all earlier reads."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "ganlab-reader")
        self._last = 1 - self._last
        return self._reader.submit(self._read, self._last, number, index)

    def _read(self, buffer: int, number: int, index: BatchIndex) -> Tensor:
        rows = index(number)
        if self._copied:
            self._copied[buffer].synchronize()  # the batch before the last may still be on its way to the device
        batch = self._buffers[buffer][: len(rows)]
        if isinstance(self._images, MappedImages) and self._images.has_whole_rows:
            self._images.read_rows(rows, batch.numpy())
        else:
            torch.index_select(self._images, 0, rows, out=batch)
        return batch
