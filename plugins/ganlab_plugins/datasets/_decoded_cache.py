"""The cache of decoded images: decodes image files in threads into one memory-mapped .npy file of uint8 pixels.

Decisions:
- A cache entry's key is made of each file's folder, name, length and modification time, so no file is decoded to find
  out that nothing has changed. Cached pixels are used only if their hash is the one recorded when they were written.
- Pixels are written as they are decoded and the file is memory-mapped, so a data set larger than memory can be prepared
  and used. Whether the images are copied into memory is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from attrs import frozen
from filelock import FileLock
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from ganlab import (
    ComponentError,
    MappedImages,
    flush_folder,
    make_cache_room,
    note_cache_use,
    one_line,
    write_whole,
)
from ganlab_plugins.datasets._image_decoding import Encoded, Unreadable, decode_image

NAMED = 10
"""How many unreadable files an error names, one a line."""

# To be incremented when a file decodes to other pixels than before, so that older cache entries are not used.
_VERSION = 1


def decode_files(
    folder: Path, names: Sequence[str], *, size: int | None, channels: int = 3, crop: int | None = None, cache: Path
) -> MappedImages:
    """Decodes the image files `names` (paths below `folder`) to uint8 (N, channels, size, size), or reads the cache.

    `decode_image` describes cropping and resizing. Without a size the images are (N, channels, H, W), and all must have
    the size of the first. Raises `ComponentError` that names the files which are missing, unreadable or decompression
    bombs.
    """
    options = _Options(size, channels, crop, skips=False)
    return _cached(_key(folder, names, options), [folder / name for name in names], options, cache)[0]


def decode_readable_files(
    folder: Path, names: Sequence[str], *, size: int | None, channels: int = 3, cache: Path
) -> tuple[MappedImages, list[int]]:
    """Decodes image files as `decode_files`, and skips unreadable ones; also returns the indices of those in `names`.

    Raises `ComponentError` if no file is readable.
    """
    options = _Options(size, channels, None, skips=True)
    return _cached(_key(folder, names, options), [folder / name for name in names], options, cache)


def decode_embedded(
    sources: Sequence[Path], about: str, items: Sequence[Encoded], *, size: int | None, channels: int, cache: Path
) -> MappedImages:
    """Decodes images that are stored inside other files, such as Parquet tables, as `decode_files` does.

    The cache key is made of the names, lengths and modification times of those files, `sources`, and of `about`, which
    must identify the selection of `items` from them.
    """
    options = _Options(size, channels, None, skips=False)
    digest = hashlib.sha256(f"{options}\n{about}\n".encode())
    for source in sources:
        found = _stat(source)
        digest.update(os.fsencode(source.resolve()) + f"\0{found.st_size} {found.st_mtime_ns}\n".encode())
    return _cached(digest.hexdigest(), items, options, cache)[0]


@frozen
class _Options:
    """Options of decoding that are part of the cache key; `skips`: whether unreadable files are skipped."""

    size: int | None
    channels: int
    crop: int | None
    skips: bool

    def __str__(self) -> str:
        return f"{_VERSION} {self.size} {self.channels} {self.crop}{' skips' if self.skips else ''}"


def _cached(
    digest: str, files: Sequence[Path | Encoded], options: _Options, cache: Path
) -> tuple[MappedImages, list[int]]:
    """The decoded images under a cache key, decoded now if not cached, and the indices of the skipped files."""
    path = cache / "decoded" / f"{digest[:32]}.npy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path.with_suffix(".lock"))):
            entry = _read_entry(path, digest, options.skips)
            if entry is None:
                skipped = _write(path, files, options)
                images = MappedImages.open(path)
                note: dict[str, object] = {"key": digest, "fingerprint": images.fingerprint}
                if options.skips:
                    note |= {"skipped": skipped, "skipped_sha256": _hash_of(skipped)}
                write_whole(path.with_suffix(".json"), json.dumps(note))
                entry = images, skipped
            note_cache_use(path)
            return entry
    except OSError as error:
        raise ComponentError(f"cannot cache decoded images in {path.parent} ({one_line(error)})") from error


def _key(folder: Path, names: Sequence[str], options: _Options) -> str:
    """The cache key of decoded files: a hash of the options and of each file's name, length and modification time."""
    digest = hashlib.sha256(f"{options}\n".encode())
    # Two folders can hold different files of equal names, lengths and times, such as archives unpacked at time 0.
    digest.update(os.fsencode(folder.resolve()) + b"\0")
    for name in names:
        try:
            found = _stat(folder / name)
        except Unreadable:
            if not options.skips:
                raise
            digest.update(os.fsencode(name) + b"\0none\n")
        else:
            digest.update(os.fsencode(name) + f"\0{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _stat(path: Path) -> os.stat_result:
    """`os.stat` of an image file. Raises `Unreadable` if it does not exist or is not a regular file."""
    try:
        found = path.stat()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would block forever
        raise Unreadable(f"{path}: is not a file; remove it")
    return found


def _hash_of(skipped: object) -> str:
    return hashlib.sha256(json.dumps(skipped).encode()).hexdigest()


def _read_entry(path: Path, digest: str, skips: bool) -> tuple[MappedImages, list[int]] | None:
    """A valid entry of the cache of decoded images, or None if there is none under this key or it is damaged."""
    try:
        note = json.loads(path.with_suffix(".json").read_bytes())
        if not isinstance(note, dict) or note.get("key") != digest:
            return None
        images = MappedImages.open(path)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if note.get("fingerprint") != images.fingerprint:
        return None
    if not skips:
        return images, []
    # Labels depend on which files were skipped, so that list is verified too.
    skipped: list[int] = note.get("skipped", [])
    return (images, skipped) if note.get("skipped_sha256") == _hash_of(skipped) else None


def _write(path: Path, files: Sequence[Path | Encoded], options: _Options) -> list[int]:
    """Decodes image files into a cached .npy file, renamed into place once complete; returns the skipped indices."""
    for leftover in path.parent.glob(f".{path.stem}.*"):  # of killed processes, since this one holds the lock
        leftover.unlink()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            skipped = _decode_into(path, descriptor, files, options)
        os.fsync(descriptor)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        os.close(descriptor)
        Path(temporary).unlink(missing_ok=True)
    return skipped


def _decode_into(path: Path, descriptor: int, files: Sequence[Path | Encoded], options: _Options) -> list[int]:
    """Decodes image files in threads into an open .npy file, which becomes `path`; returns the skipped indices."""
    first, shape = _shape(files, options)
    start, step = len(_header(len(files), shape)), math.prod(shape)
    make_cache_room(path, start + len(files) * step)
    # If the disk has too little room this fails at once rather than after hours of decoding.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, start + len(files) * step)

    def decode_part(begin: int) -> list[tuple[int, ComponentError]]:
        problems = []
        for index in range(begin, min(begin + 64, len(files))):
            try:
                image = _decode(files[index], options)
                if image.shape != shape:
                    raise ComponentError(_size_mismatch(files[index], image, first, shape))
                _write_at(descriptor, image.tobytes(), start + index * step)
            except ComponentError as error:
                problems.append((index, error))
        return problems

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        problems = [problem for part in pool.map(decode_part, range(0, len(files), 64)) for problem in part]
    skipped = [index for index, error in problems if options.skips and isinstance(error, Unreadable)]
    gaps = set(skipped)
    if refused := [str(error) for index, error in problems if index not in gaps]:
        more = [f"and {len(refused) - NAMED} more files"] if len(refused) > NAMED else []
        raise ComponentError("\n".join([*refused[:NAMED], *more]))
    if len(skipped) == len(files):
        raise ComponentError(_none_readable(files, problems[0][1]))
    _close_gaps(descriptor, len(files), skipped, start, step)
    _write_at(descriptor, _header(len(files) - len(skipped), shape), 0)
    return skipped


def _shape(files: Sequence[Path | Encoded], options: _Options) -> tuple[Path | Encoded, tuple[int, ...]]:
    """The shape that every decoded image must have, and the image file that determines it."""
    if options.size is not None:
        return files[0], (options.channels, options.size, options.size)
    cause: ComponentError | None = None
    for file in files:
        try:
            return file, _decode(file, options).shape
        except Unreadable as error:
            if not options.skips:
                raise
            cause = cause or error
    assert cause is not None
    raise ComponentError(_none_readable(files, cause))


def _none_readable(files: Sequence[Path | Encoded], cause: ComponentError) -> str:
    return f"there are no images: none of {len(files):,} files can be read; the first: {cause}"


def _decode(path: Path | Encoded, options: _Options) -> NDArray[np.uint8]:
    if options.skips and isinstance(path, Path):
        _stat(path)  # without skipping, `_key` has refused whatever is not a regular file
    return decode_image(path, options.size, options.channels, options.crop)


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


def _size_mismatch(path: Path | Encoded, image: NDArray[np.uint8], first: Path | Encoded, shape: Sequence[int]) -> str:
    (_, height, width), (_, wanted_height, wanted_width) = image.shape, shape
    return (
        f"{path}: {width}x{height} pixels, but {first.name} has {wanted_width}x{wanted_height}; "
        "without a size to resize to, all images must have the same size"
    )
