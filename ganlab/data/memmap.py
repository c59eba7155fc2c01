"""Memory-mapped images: a tensor over an .npy file, whose pages are released after they were read.

Decisions:
- It is a tensor, so code that indexes, splits or iterates over `dataset.images` works unchanged. Results of operations
  are ordinary tensors; views are mapped too.
- Pages of a map count as the process's memory once they are read. So each operation counts the bytes that it may have
  read, and every `WINDOW` bytes the pages are released; they stay in the system's page cache.
- The map is read-only, and writing raises. A copy-on-write map needs memory for the whole file, and its writes would be
  lost when pages are released.
- Batches are read from the file (`read_rows`), not through the map: a failing disk or a truncated file then raises an
  error with the file's name, while the map would end the process with SIGBUS.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import tokenize
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from ganlab.data.pixels import DATA_TYPES, type_name
from ganlab.utils.errors import GanlabError, one_line
from ganlab.utils.progress import Progress, no_progress, paced

WINDOW = 2**24
"""Bytes that may be read through a map before its pages are released, and bytes that are read at a time."""


class MappedImages(Tensor):
    """Memory-mapped uint8 images (N, C, H, W) of an .npy file, or a view of them; read-only.

    The file may also hold uint16 or float32, and signals (N, C, T) or rows of a table (N, D).

    An in-place operation raises TypeError; `clone()` returns an ordinary tensor. (Writing to the array of `numpy()`
    ends the process, although the array is not marked read-only.)
    """

    _file: _File

    @classmethod
    def open(cls, path: Path) -> Self:
        """Memory-maps an .npy file. Raises OSError, and ValueError for other data than those above, or none."""
        file = _File(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given buffer is not writable")  # as intended
            whole = torch.frombuffer(file.map, dtype=file.dtype, count=file.count, offset=file.start)
        return cls._over(whole.view(file.shape), file)

    @classmethod
    def _over(cls, view: Tensor, file: _File) -> Self:
        mapped = view.as_subclass(cls)
        mapped._file = file
        return mapped

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(kwargs.get("out", args[0] if _is_in_place(func) else None), MappedImages):
            raise TypeError("these images are a file's, which cannot be written to; take a copy by .clone()")
        with torch._C.DisableTorchFunctionSubclass():
            operands = [item for item in _flatten_once((*args, *kwargs.values())) if isinstance(item, MappedImages)]
            for operand in operands:
                operand._file.check_length()
            result = func(*args, **kwargs)
            if isinstance(result, Tensor):
                found = _as_mapped_view(result, operands)
            elif isinstance(result, (tuple, list)) and any(isinstance(item, Tensor) for item in result):
                found = type(result)(_as_mapped_view(item, operands) for item in result)
            else:
                found = result
            # An operation that returns a view, a shape or a length reads no pixel; one that returns None copied them.
            if (
                found is None
                or isinstance(found, np.ndarray)
                or any(type(item) is Tensor for item in _flatten_once((found,)))
            ):
                for operand in operands:
                    operand._file.was_read(operand.nbytes)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.clone().__reduce_ex__(protocol)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the mapped images' shape and pixels, read from the file in one pass."""
        return self.fingerprint_with(no_progress)

    def fingerprint_with(self, progress: Progress) -> str:
        """The fingerprint of mapped images, which `progress` is told of while the file is read; it is kept."""
        digest, report, done = hashlib.sha256(fingerprint_head(self)), paced(progress), 0
        for part in self._pixels():
            digest.update(part)
            done += part.nbytes
            report("MiB of images verified", done // 2**20, self.nbytes // 2**20)
        self.__dict__["fingerprint"] = digest.hexdigest()
        return digest.hexdigest()

    def _pixels(self) -> Iterator[memoryview]:
        if not self.is_contiguous():
            for image in self:
                yield image.contiguous().numpy().data
            return
        buffer = memoryview(bytearray(min(WINDOW, self.nbytes)))
        first = self._file.start + int(self.storage_offset()) * self.itemsize
        for start in range(0, self.nbytes, WINDOW):
            part = buffer[: self.nbytes - start]
            self._file.read(part, first + start)
            yield part

    @property
    def has_whole_rows(self) -> bool:
        """Whether each image's pixels are contiguous in the file, as `read_rows` needs."""
        return self[:1].is_contiguous()

    def read_rows(self, index: Tensor, out: NDArray[Any]) -> None:
        """Reads the mapped images at `index`, int64 (n,), from the file into `out`, (n, C, H, W) of their type.

        `out` must be contiguous. Only for a map that `has_whole_rows`. Raises GanlabError.
        """
        first, step = self._file.start + int(self.storage_offset()) * self.itemsize, self.stride(0) * self.itemsize
        places = [first + row * step for row in index.tolist()]
        rows = out.reshape(len(places), -1).view(np.uint8)
        self._file.will_read(places, rows.shape[1])
        for row, place in zip(rows, places, strict=True):
            self._file.read(row.data, place)


class _File:
    """The open file of memory-mapped images; closed when the last view is deleted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            self.shape, self.dtype = _read_header(stream, path)
            self.start = stream.tell()
            self.count = math.prod(self.shape)
            self.size = self.count * self.dtype.itemsize
            if os.fstat(stream.fileno()).st_size < self.start + self.size:
                raise ValueError(f"{path}: is cut short; wanted {self.size} bytes of pixels")
            self.map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self.descriptor = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self.descriptor)
        self.unreturned = 0

    def was_read(self, size: int) -> None:
        """Counts bytes that were read through the memory map, and releases its pages every `WINDOW` bytes."""
        self.unreturned += size
        if self.unreturned >= WINDOW and hasattr(mmap, "MADV_DONTNEED"):
            self.unreturned = 0
            self.map.madvise(mmap.MADV_DONTNEED)

    def check_length(self) -> None:
        """Raises GanlabError if the mapped file has been truncated: reading the map there would end the process."""
        if os.fstat(self.descriptor).st_size < self.start + self.size:
            raise GanlabError(f"{self.path}: has been cut short since it was opened")

    def will_read(self, places: Iterable[int], size: int) -> None:
        """Asks the system to read ahead in the mapped file: `size` bytes at each offset (posix_fadvise)."""
        if hasattr(os, "posix_fadvise"):
            for place in places:
                os.posix_fadvise(self.descriptor, place, size, os.POSIX_FADV_WILLNEED)

    def read(self, into: memoryview, place: int) -> None:
        """Fills a buffer from an offset in the mapped file. Raises GanlabError."""
        while into:
            try:
                count = _read_into(self.descriptor, into, place)
            except OSError as error:
                raise GanlabError(f"{self.path}: cannot be read ({error.strerror})") from error
            if count == 0:
                raise GanlabError(f"{self.path}: has been cut short since it was opened")
            into, place = into[count:], place + count


def _read_into(descriptor: int, into: memoryview, place: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [into], place)
    data = os.pread(descriptor, len(into), place)  # macOS has this one only
    into[: len(data)] = data
    return len(data)


# On a damaged header numpy raises, besides ValueError, whatever Python's own parsers raise.
_NO_HEADER = (SyntaxError, tokenize.TokenError, TypeError, RuntimeError, MemoryError)


def _read_header(stream: BinaryIO, path: Path) -> tuple[tuple[int, ...], torch.dtype]:
    """Reads shape and type of the images to memory-map from an .npy header; leaves the stream at the first pixel."""
    if npy.read_magic(stream) != (1, 0):
        raise ValueError(f"{path}: is not an .npy file of version 1.0")
    try:
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    except _NO_HEADER as error:
        raise ValueError(f"{path}: its header is damaged ({one_line(error)})") from None
    found = next((own for own in DATA_TYPES if dtype == np.dtype(type_name(own))), None)
    if found is None or fortran_order or len(shape) not in (2, 3, 4) or min(shape) < 1:
        order = " in Fortran order" if fortran_order else ""
        raise ValueError(
            f"{path}: holds {dtype} {shape}{order}; wanted uint8, uint16 or float32, (N, C, H, W), (N, C, T) or (N, D)"
        )
    return tuple(shape), found


def fingerprint_head(images: Tensor) -> bytes:
    """What a fingerprint of images, memory-mapped or not, begins with: their shape, and their type if not uint8."""
    dtype = "" if images.dtype == torch.uint8 else f"{type_name(images.dtype)} "
    return f"{dtype}{tuple(images.shape)}".encode()


def _is_in_place(func: Callable[..., Any]) -> bool:
    """Whether it is in place, by its name."""
    name = getattr(func, "__name__", "")
    return name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
_IN_PLACE = {"__setitem__", *(f"__i{operator}__" for operator in _OPERATORS)}


def _flatten_once(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (tuple, list)):
            yield from item
        else:
            yield item


def _as_mapped_view(result: Any, operands: Sequence[MappedImages]) -> Any:
    """Returns the result as MappedImages if it is a view of a memory map."""
    if type(result) is Tensor and result.layout is torch.strided:
        storage = result.untyped_storage().data_ptr()
        for operand in operands:
            if operand.untyped_storage().data_ptr() == storage:
                return MappedImages._over(result, operand._file)
    return result
