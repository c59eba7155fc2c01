"""Decoding of many image files, in threads, into one .npy file of pixels or values, for the cache of decoded images.

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
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from attrs import frozen
from numpy.lib import format as npy
from PIL import Image

from ganlab import (
    ComponentError,
    DecodedImage,
    EncodedImage,
    HighBitDepth,
    ImageHalf,
    ImageSize,
    Progress,
    UnreadableImage,
    ValueForm,
    decode_image,
    decode_values,
    high_bit_depth,
    is_plain,
    paced,
)

NAMED = 10
"""How many unreadable files an error names, one a line."""

SHARE = 64
"""How many files a thread decodes at a time."""

PAUSE = 0.1
"""Seconds between two looks at what the threads have done."""


@frozen
class Options:
    """Options of decoding, which are part of the cache key; `skips`: whether unreadable files are skipped.

    `half`: which half of each picture is decoded; None for the whole. `form`: the type and range of the values.
    """

    size: ImageSize
    channels: int
    crop: int | None
    skips: bool
    half: ImageHalf | None = None
    form: ValueForm = ValueForm()


def decode_into(
    descriptor: int,
    files: Sequence[Path | EncodedImage],
    options: Options,
    progress: Progress,
    make_room: Callable[[int], None],
) -> tuple[list[int], HighBitDepth | None]:
    """Decodes image files into an open .npy file; returns the indices of skipped ones, and what had 16 bits a sample.

    `make_room` is called first, with the length of the file in bytes.
    Raises `ComponentError` that names the files which are missing, unreadable, of another size or too dark.
    """
    first, shape = _shape(files, options)
    start = len(_header(len(files), shape, options))
    step = math.prod(shape) * np.dtype(options.form.dtype).itemsize
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
    skipped = sorted(index for index, error in problems.items() if options.skips and isinstance(error, UnreadableImage))
    _raise_refused(problems, skipped)
    if len(skipped) == len(files):
        raise ComponentError(_none_readable(files, problems[0]))
    found = high_bit_depth(deep, files, len(files) - len(skipped), kept=options.form.dtype == "uint16")
    if found is not None:
        found.check()
    _close_gaps(descriptor, len(files), skipped, start, step)
    _write_at(descriptor, _header(len(files) - len(skipped), shape, options), 0)
    return skipped, found


def _shape(files: Sequence[Path | EncodedImage], options: Options) -> tuple[Path | EncodedImage, tuple[int, ...]]:
    """The shape that every decoded image must have, and the image file that determines it: the first readable one."""
    if options.size is not None:
        height, width = (options.size, options.size) if isinstance(options.size, int) else options.size
        return files[0], (options.channels, height, width)
    problems: dict[int, ComponentError] = {}
    for index, file in enumerate(files):
        try:
            return file, _decode(file, options).pixels.shape
        except UnreadableImage as error:
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


def _none_readable(files: Sequence[Path | EncodedImage], cause: ComponentError) -> str:
    return f"there are no images: none of {len(files):,} files can be read; the first: {cause}"


def stat_file(path: Path) -> os.stat_result:
    """`os.stat` of an image file to decode. Raises `UnreadableImage` if it does not exist or is not a regular file."""
    try:
        found = path.stat()
    except FileNotFoundError as error:
        if not path.is_symlink():
            raise UnreadableImage(f"{path}: there is no such file") from error
        raise UnreadableImage(f"{path}: is a link to {os.readlink(path)}, which does not exist; remove it") from error
    except OSError as error:
        raise UnreadableImage(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would block forever
        raise UnreadableImage(f"{path}: is not a file; remove it")
    return found


def _decode(file: Path | EncodedImage, options: Options) -> DecodedImage:
    if isinstance(file, Path):
        stat_file(file)
    if is_plain(file, options.channels, options.form):
        return decode_image(file, options.size, options.channels, options.crop, options.half, options.form.background)
    return decode_values(file, options.size, options.channels, options.form, options.half)


def reason_of(file: Path | EncodedImage, options: Options) -> str:
    """Why an image file that was skipped cannot be decoded, without its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            _decode(file, options)
        except UnreadableImage as error:
            return str(error).removeprefix(f"{file}: ")
    return "it can be read now"


def _header(count: int, shape: tuple[int, ...], options: Options) -> bytes:
    """The header of an .npy file of `count` decoded images; numpy pads it, so its length does not depend on `count`."""
    header = io.BytesIO()
    npy.write_array_header_1_0(
        header, {"descr": np.dtype(options.form.dtype).str, "fortran_order": False, "shape": (count, *shape)}
    )
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


def _size_mismatch(
    path: Path | EncodedImage, image: DecodedImage, first: Path | EncodedImage, shape: Sequence[int]
) -> str:
    (_, height, width), (_, wanted_height, wanted_width) = image.pixels.shape, shape
    return (
        f"{path}: {width}x{height} pixels, but {first.name} has {wanted_width}x{wanted_height}; "
        "without a size to resize to, all images must have the same size"
    )
