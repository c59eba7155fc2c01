"""Batches of images that do not fit where they are used: gathered in host memory, one ahead, and copied to the device.

Decisions:
- There are two buffers and one thread, so memory is two batches whatever the data set's size. Which batch comes next
  is a guess; where another is asked for, what was read ahead is dropped.
- The thread belongs to an executor: it starts with the first batch, ends with `close`, with the stream itself or with
  the interpreter, and hands its errors to whoever asks for the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ganlab.data.memmap import MappedImages

BatchIndex = Callable[[int], Tensor]
"""Which images, int64 (n,), the batch of a number has."""


class Prefetcher:
    """Hands out batches of at most `batch_size` of the images, uint8 (N, C, H, W) in host memory, on the device."""

    def __init__(self, images: Tensor, batch_size: int, device: torch.device) -> None:
        self._images, self._device = images, device
        on_cuda = device.type == "cuda"
        shape = (batch_size, *images.shape[1:])
        self._buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=on_cuda) for _ in range(2)]
        self._copied = [torch.cuda.Event(blocking=True) for _ in self._buffers] if on_cuda else []
        self._reader: ThreadPoolExecutor | None = None
        self._last = 0
        self._ahead: tuple[int, Future[Tensor]] | None = None

    def batch(self, number: int, index: BatchIndex) -> Tensor:
        """The uint8 images of a batch, on the device; on the CPU they are good until the next call."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != number:
            ahead = number, self._start(number, index)
        images = ahead[1].result().to(self._device, non_blocking=True)
        if self._copied:
            self._copied[self._last].record()
        self._ahead = number + 1, self._start(number + 1, index)
        return images

    def close(self) -> None:
        """Ends the thread, once it has read what it is reading; another batch would start it again."""
        if self._reader is not None:
            self._reader.shutdown(cancel_futures=True)
        self._reader = self._ahead = None

    def _start(self, number: int, index: BatchIndex) -> Future[Tensor]:
        """Reads a batch into the buffer that was not the last, after all that was started before."""
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
