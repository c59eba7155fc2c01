"""Decoding of many image files, in threads, into one .npy file of uint8 pixels, for the cache of decoded images.

Decisions:
- Pixels are written as they are decoded, so a data set larger than memory can be prepared.
- All files that cannot be read are named, up to `NAMED`, not only the first.
- The main thread only waits and reports progress several times a second; what that raises, as a signal does, ends the
  decoding within one image.
"""

from __future__ import annotations

import io
import math
import os
import stat
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from attrs import frozen
from numpy.lib import format as npy

from ganlab import ComponentError, Progress, paced
from ganlab_plugins.datasets._image_decoding import MAX_16_BIT, Decoded, Encoded, Unreadable, decode_image

NAMED = 10
"""How many unreadable files an error names, one a line."""

SHARE = 64
"""How many files a thread decodes at a time."""

PAUSE = 0.1
"""Seconds between two looks at what the threads have done."""

DARKEST = 2**14 + 2**8
"""Samples of 16 bits that are all below this are refused: they are 14 bits or fewer (values of colour are known to the
next multiple of 256), and would become almost black."""


@frozen
class Options:
    """Options of decoding, which are part of the cache key; `skips`: whether unreadable files are skipped."""

    size: int | None
    channels: int
    crop: int | None
    skips: bool


@frozen
class HighBitDepth:
    """Decoded image files with 16 bits a sample: how many, of how many, the largest value, and the first one's name."""

    count: int
    files: int
    largest: int
    first: str

    def __str__(self) -> str:
        many = f" (and so {self.count:,} of {self.files:,} files)" if self.files > 1 else ""
        return f"{self.first}: has 16 bits a sample{many}, with values up to {self.largest:,} of {MAX_16_BIT:,}"

    def check(self) -> None:
        """Raises `ComponentError` if the values would become only the darkest of the 256 levels."""
        if self.largest < DARKEST:
            raise ComponentError(
                f"{self}: they would become levels 0 to {self.levels} of 255; spread them over 0 to {MAX_16_BIT:,}, or "
                "write 8 bits a sample"
            )

    @property
    def levels(self) -> int:
        return (self.largest + 128) // 257


def decode_into(
    descriptor: int,
    files: Sequence[Path | Encoded],
    options: Options,
    progress: Progress,
    make_room: Callable[[int], None],
) -> tuple[list[int], HighBitDepth | None]:
    """Decodes image files into an open .npy file; returns the indices of skipped ones, and what had 16 bits a sample.

    `make_room` is called first, with the length of the file in bytes.
    Raises `ComponentError` that names the files which are missing, unreadable, of another size or too dark.
    """
    first, shape = _shape(files, options)
    start, step = len(_header(len(files), shape)), math.prod(shape)
    make_room(start + len(files) * step)
    # If the disk has too little room this fails at once rather than after hours of decoding.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, start + len(files) * step)
    problems: dict[int, ComponentError] = {}
    deep: dict[int, int] = {}
    stopped = threading.Event()

    def decode_share(begin: int) -> None:
        for index in range(begin, min(begin + SHARE, len(files))):
            if stopped.is_set():
                return
            try:
                image = _decode(files[index], options)
                if image.pixels.shape != shape:
                    raise ComponentError(_size_mismatch(files[index], image, first, shape))
                _write_at(descriptor, image.pixels.tobytes(), start + index * step)
                if image.largest is not None:
                    deep[index] = image.largest
            except ComponentError as error:
                problems[index] = error

    report = paced(progress)
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        shares = [pool.submit(decode_share, begin) for begin in range(0, len(files), SHARE)]
        for number, share in enumerate(shares):
            while not wait([share], timeout=PAUSE).done:
                report("images decoded", number * SHARE, len(files))
            share.result()
            report("images decoded", min((number + 1) * SHARE, len(files)), len(files))
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    skipped = sorted(index for index, error in problems.items() if options.skips and isinstance(error, Unreadable))
    _raise_refused(problems, skipped)
    if len(skipped) == len(files):
        raise ComponentError(_none_readable(files, problems[0]))
    found = None
    if deep:
        found = HighBitDepth(len(deep), len(files) - len(skipped), max(deep.values()), str(files[min(deep)]))
        found.check()
    _close_gaps(descriptor, len(files), skipped, start, step)
    _write_at(descriptor, _header(len(files) - len(skipped), shape), 0)
    return skipped, found


def _shape(files: Sequence[Path | Encoded], options: Options) -> tuple[Path | Encoded, tuple[int, ...]]:
    """The shape that every decoded image must have, and the image file that determines it: the first readable one."""
    if options.size is not None:
        return files[0], (options.channels, options.size, options.size)
    problems: dict[int, ComponentError] = {}
    for index, file in enumerate(files):
        try:
            return file, _decode(file, options).pixels.shape
        except Unreadable as error:
            problems[index] = error
    if not options.skips:
        _raise_refused(problems, [])
    raise ComponentError(_none_readable(files, problems[0]))


def _raise_refused(problems: dict[int, ComponentError], skipped: Sequence[int]) -> None:
    """Raises `ComponentError` with a line for each of the first files that could not be decoded and is not skipped."""
    left_out = set(skipped)
    if refused := [str(problems[index]) for index in sorted(problems) if index not in left_out]:
        more = [f"and {len(refused) - NAMED:,} more files"] if len(refused) > NAMED else []
        raise ComponentError("\n".join([*refused[:NAMED], *more]))


def _none_readable(files: Sequence[Path | Encoded], cause: ComponentError) -> str:
    return f"there are no images: none of {len(files):,} files can be read; the first: {cause}"


def stat_file(path: Path) -> os.stat_result:
    """`os.stat` of an image file to decode. Raises `Unreadable` if it does not exist or is not a regular file."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would block forever
        raise Unreadable(f"{path}: is not a file; remove it")
    return found


def _decode(file: Path | Encoded, options: Options) -> Decoded:
    if isinstance(file, Path):
        stat_file(file)
    return decode_image(file, options.size, options.channels, options.crop)


def _header(count: int, shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file of `count` decoded images; numpy pads it, so its length does not depend on `count`."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    return header.getvalue()


def _close_gaps(descriptor: int, count: int, skipped: list[int], start: int, step: int) -> None:
    """Moves decoded images over the gaps that skipped files left in the .npy file, and truncates it."""
    if not skipped:
        return
    gaps, target = set(skipped), skipped[0]
    for index in range(skipped[0], count):
        if index not in gaps:
            _write_at(descriptor, os.pread(descriptor, step, start + index * step), start + target * step)
            target += 1
    os.ftruncate(descriptor, start + target * step)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[count:], offset + count


def _size_mismatch(path: Path | Encoded, image: Decoded, first: Path | Encoded, shape: Sequence[int]) -> str:
    (_, height, width), (_, wanted_height, wanted_width) = image.pixels.shape, shape
    return (
        f"{path}: {width}x{height} pixels, but {first.name} has {wanted_width}x{wanted_height}; "
        "without a size to resize to, all images must have the same size"
    )
