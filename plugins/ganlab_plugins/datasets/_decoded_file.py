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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from attrs import frozen
from numpy.lib import format as npy

from ganlab import ComponentError, Progress, paced
from ganlab_plugins.datasets._image_decoding import MAX_16_BIT, Decoded, Encoded, Half, Unreadable, decode_image

NAMED = 10
"""How many unreadable files an error names, one a line."""

SHARE = 64
"""How many files a thread decodes at a time."""

PAUSE = 0.1
"""Seconds between two looks at what the threads have done."""

DARK = 2**14 + 2**8
"""An image whose samples of 16 bits are all below this holds 14 bits or fewer (values of colour are known to the next
multiple of 256), and would become almost black."""


@frozen
class Options:
    """Options of decoding, which are part of the cache key; `skips`: whether unreadable files are skipped.

    `half`: which half of each picture is decoded; None for the whole.
    """

    size: int | None
    channels: int
    crop: int | None
    skips: bool
    half: Half | None = None


@frozen
class HighBitDepth:
    """Decoded image files with 16 bits a sample: how many, of how many, the largest value, and the first one's name.

    `dark` is the number of those whose values are all below `DARK`, `dark_largest` the largest value in them and
    `dark_first` the first one's name. A file of zeros is not one: it is black with any number of bits.
    """

    count: int
    files: int
    largest: int
    first: str
    dark: int = 0
    dark_largest: int = 0
    dark_first: str = ""

    def __str__(self) -> str:
        rounded = (
            f"{_and_others(self.first, self.count, self.files)} 16 bits a sample, with values up to {self.largest:,} "
            f"of {MAX_16_BIT:,}: rounded to 8 bits, levels 0 to {_level(self.largest)} of 255"
        )
        if not self.dark:
            return rounded
        return f"{rounded}; {_and_others(self.dark_first, self.dark, self.count)} {self._dark_range}"

    def check(self) -> None:
        """Raises `ComponentError` if values of half the files or more would become only the darkest of 256 levels.

        Each file is judged by itself, because one bright file says nothing of the others. Fewer dark files may be
        photographs of the night, of which the warning tells.
        """
        if 2 * self.dark >= self.count and self.dark:
            raise ComponentError(
                f"{_and_others(self.dark_first, self.dark, self.files)} 16 bits a sample, but {self._dark_range}; "
                f"spread the values over 0 to {MAX_16_BIT:,}, or write 8 bits a sample"
            )

    @property
    def _dark_range(self) -> str:
        return f"no value above {self.dark_largest:,}, which becomes level {_level(self.dark_largest)} of 255"


def _level(value: int) -> int:
    """The level, of 8 bits, of a sample of 16 bits."""
    return (value + 128) // 257


def _and_others(first: str, count: int, files: int) -> str:
    """The beginning of a line about `count` of `files` image files, up to its verb "to have"."""
    if count == 1:
        return f"{first} has"
    return f"{first} and {count - 1:,} more of {files:,} files have"


def _high_bit_depth(largest: Mapping[int, int], files: Sequence[Path | Encoded], decoded: int) -> HighBitDepth | None:
    """What the largest values of the files with 16 bits a sample, by index, say; None where there is no such file."""
    if not largest:
        return None
    dark = {index: value for index, value in largest.items() if 0 < value < DARK}
    return HighBitDepth(
        len(largest),
        decoded,
        max(largest.values()),
        str(files[min(largest)]),
        len(dark),
        max(dark.values(), default=0),
        str(files[min(dark)]) if dark else "",
    )


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
    done = [0] * math.ceil(len(files) / SHARE)
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
            done[begin // SHARE] += 1

    report = paced(progress)
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        shares = [pool.submit(decode_share, begin) for begin in range(0, len(files), SHARE)]
        for share in shares:
            while not wait([share], timeout=PAUSE).done:
                report("images decoded", sum(done), len(files))
            share.result()
            report("images decoded", sum(done), len(files))
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    skipped = sorted(index for index, error in problems.items() if options.skips and isinstance(error, Unreadable))
    _raise_refused(problems, skipped)
    if len(skipped) == len(files):
        raise ComponentError(_none_readable(files, problems[0]))
    found = _high_bit_depth(deep, files, len(files) - len(skipped))
    if found is not None:
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
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise Unreadable(f"{path}: there is no such file") from error
        raise Unreadable(f"{path}: is a link to {os.readlink(path)}, which does not exist; remove it") from error
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would block forever
        raise Unreadable(f"{path}: is not a file; remove it")
    return found


def _decode(file: Path | Encoded, options: Options) -> Decoded:
    if isinstance(file, Path):
        stat_file(file)
    return decode_image(file, options.size, options.channels, options.crop, options.half)


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
