"""From image files to one uint8 tensor: decoding in threads, and a file of what was decoded, which is mapped.

Decisions:
- A file becomes the same pixels whatever made it: upright by its EXIF orientation, grey or RGB, transparency on white,
  16-bit grey rounded to 8 bits, of an animation the first frame.
- Only these formats are tried, whatever a file's name says: some of Pillow's other readers start programs.
- The cache knows a file by its folder, name, length and time of change, so nothing is decoded to find out that nothing
  has changed. Its pixels are trusted only when their hash is what was noted when they were written.
- Pixels are written as they are decoded and the file is mapped, so a set larger than the memory can be prepared and
  used. Whether it is copied into memory is not decided here.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from filelock import FileLock
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ganlab import ComponentError, MappedImages, flush_folder, one_line, write_whole

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})

NAMED = 10
"""How many bad files are named, a line each."""

# Raised when the meaning of the pixels changes, so that nothing is taken from an older cache.
_VERSION = 1

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# What Pillow raises for files that are cut short, damaged or no images.
_UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, EOFError, ZeroDivisionError, struct.error, zlib.error)


def resized(images: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W) uint8 as (N, C, size, size) uint8: antialiased bilinear, in torchvision's arithmetic."""
    if images.shape[2:] == (size, size):
        return images
    # Whole numbers from end to end, as in torchvision's Resize and in Pillow: 12 times as fast as floats.
    return torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


class Unreadable(ComponentError):
    """A file that cannot be read as an image, or is a decompression bomb."""


@frozen
class Encoded:
    """An image file that lies in another file: what errors call it, and what reads its bytes."""

    name: str
    read: Callable[[], bytes] = field(repr=False)

    def __str__(self) -> str:
        return self.name


def decoded(
    folder: Path, names: Sequence[str], *, size: int | None, channels: int = 3, crop: int | None = None, cache: Path
) -> MappedImages:
    """The images `names` (paths below `folder`) as uint8 (N, channels, size, size), from the cache where it has them.

    Each is cut to its central square of `crop` pixels where that is given, resized until its shorter side is `size`
    pixels (Lanczos, antialiased) and cut to its central square. Without a size they stay as they are, (N, channels, H,
    W), and must all be of the first one's. Raises `ComponentError` that names the files which
    are missing, unreadable or decompression bombs.
    """
    options = _Options(size, channels, crop, skips=False)
    return _kept(_key(folder, names, options), [folder / name for name in names], options, cache)[0]


def decoded_readable(
    folder: Path, names: Sequence[str], *, size: int | None, channels: int = 3, cache: Path
) -> tuple[MappedImages, list[int]]:
    """As `decoded`, without the files that cannot be read as images; also gives their places in `names`.

    Raises `ComponentError` where no file can be read.
    """
    options = _Options(size, channels, None, skips=True)
    return _kept(_key(folder, names, options), [folder / name for name in names], options, cache)


def decoded_from(
    sources: Sequence[Path], about: str, items: Sequence[Encoded], *, size: int | None, channels: int, cache: Path
) -> MappedImages:
    """As `decoded`, of images that lie in other files.

    `sources` are those files, whose names, lengths and times of change the cache knows the images by, and `about` says
    which of what is in them `items` are.
    """
    options = _Options(size, channels, None, skips=False)
    digest = hashlib.sha256(f"{options}\n{about}\n".encode())
    for source in sources:
        found = _about(source)
        digest.update(os.fsencode(source.resolve()) + f"\0{found.st_size} {found.st_mtime_ns}\n".encode())
    return _kept(digest.hexdigest(), items, options, cache)[0]


@frozen
class _Options:
    """What is made of the files, and whether those that cannot be read are left out."""

    size: int | None
    channels: int
    crop: int | None
    skips: bool

    def __str__(self) -> str:
        return f"{_VERSION} {self.size} {self.channels} {self.crop}{' skips' if self.skips else ''}"


def _kept(
    digest: str, files: Sequence[Path | Encoded], options: _Options, cache: Path
) -> tuple[MappedImages, list[int]]:
    """The images, from the cache where it has them under this key, and the places of those that were left out."""
    path = cache / "decoded" / f"{digest[:32]}.npy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path.with_suffix(".lock"))):
            kept = _whole(path, digest)
            if kept is None:
                skipped = _write(path, files, options)
                images = MappedImages.open(path)
                note: dict[str, object] = {"key": digest, "fingerprint": images.fingerprint}
                if options.skips:
                    note |= {"skipped": skipped, "skipped_sha256": _hash_of(skipped)}
                write_whole(path.with_suffix(".json"), json.dumps(note))
                kept = images, skipped
            return kept
    except OSError as error:
        raise ComponentError(f"cannot keep decoded images in {path.parent} ({one_line(error)})") from error


def _key(folder: Path, names: Sequence[str], options: _Options) -> str:
    """A hash of all that the decoded pixels depend on, as far as it can be known without reading the files."""
    digest = hashlib.sha256(f"{options}\n".encode())
    # Two folders can hold files of equal names, lengths and times that differ, such as archives unpacked at time 0.
    digest.update(os.fsencode(folder.resolve()) + b"\0")
    for name in names:
        try:
            about = _about(folder / name)
        except Unreadable:
            if not options.skips:
                raise
            digest.update(os.fsencode(name) + b"\0none\n")
        else:
            digest.update(os.fsencode(name) + f"\0{about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _about(path: Path) -> os.stat_result:
    """What the system knows of a file. Raises `Unreadable` for what is not there, or no file."""
    try:
        about = path.stat()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
        raise Unreadable(f"{path}: is not a file; remove it")
    return about


def _hash_of(skipped: list[int]) -> str:
    return hashlib.sha256(json.dumps(skipped).encode()).hexdigest()


def _whole(path: Path, digest: str) -> tuple[MappedImages, list[int]] | None:
    """What was kept, or None where there is nothing of this key, or it is not what was written."""
    try:
        note = json.loads(path.with_suffix(".json").read_bytes())
        if not isinstance(note, dict) or note.get("key") != digest:
            return None
        images = MappedImages.open(path)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    skipped = note.get("skipped", [])
    # Labels depend on what was left out, so that must be what was written too.
    whole = note.get("fingerprint") == images.fingerprint and (
        "skipped" not in note or note.get("skipped_sha256") == _hash_of(skipped)
    )
    return (images, skipped) if whole else None


def _write(path: Path, files: Sequence[Path | Encoded], options: _Options) -> list[int]:
    """Decodes the files into an .npy file, which gets its name only when it is complete; gives the places left out."""
    for leftover in path.parent.glob(f".{path.stem}.*"):  # of processes that were killed, since the lock is held
        leftover.unlink()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            skipped = _decode_into(descriptor, files, options)
        os.fsync(descriptor)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        os.close(descriptor)
        Path(temporary).unlink(missing_ok=True)
    return skipped


def _decode_into(descriptor: int, files: Sequence[Path | Encoded], options: _Options) -> list[int]:
    """Writes the files' pixels as an .npy file, and gives the places of those that were left out."""
    first, shape = _shape(files, options)
    start, step = len(_header(len(files), shape)), math.prod(shape)
    # On a disk that is too full this fails at once, and not after hours of decoding.
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, start + len(files) * step)

    def decode_part(begin: int) -> list[tuple[int, ComponentError]]:
        problems = []
        for index in range(begin, min(begin + 64, len(files))):
            try:
                image = _decoded_file(files[index], options)
                if image.shape != shape:
                    raise ComponentError(_of_other_size(files[index], image, first, shape))
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
    """The shape of every image, and the file that decides it."""
    if options.size is not None:
        return files[0], (options.channels, options.size, options.size)
    cause: ComponentError | None = None
    for file in files:
        try:
            return file, _decoded_file(file, options).shape
        except Unreadable as error:
            if not options.skips:
                raise
            cause = cause or error
    assert cause is not None
    raise ComponentError(_none_readable(files, cause))


def _none_readable(files: Sequence[Path | Encoded], cause: ComponentError) -> str:
    return f"there are no images: none of {len(files):,} files can be read; the first: {cause}"


def _decoded_file(path: Path | Encoded, options: _Options) -> NDArray[np.uint8]:
    if options.skips and isinstance(path, Path):
        _about(path)  # without skipping, `_key` has refused what is no file
    return decode(path, options.size, options.channels, options.crop)


def _header(count: int, shape: tuple[int, ...]) -> bytes:
    """The start of an .npy file; numpy leaves room for any number of images, so its length is that of any count."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)})
    return header.getvalue()


def _close_gaps(descriptor: int, count: int, skipped: list[int], start: int, step: int) -> None:
    """Moves the images together where others were left out, and cuts the file to its length."""
    if not skipped:
        return
    gaps, place = set(skipped), skipped[0]
    for index in range(skipped[0], count):
        if index not in gaps:
            _write_at(descriptor, os.pread(descriptor, step, start + index * step), start + place * step)
            place += 1
    os.ftruncate(descriptor, start + place * step)


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, place)
        rest, place = rest[count:], place + count


def _of_other_size(path: Path | Encoded, image: NDArray[np.uint8], first: Path | Encoded, shape: Sequence[int]) -> str:
    (_, height, width), (_, wanted_height, wanted_width) = image.shape, shape
    return (
        f"{path}: {width}x{height} pixels, but {first.name} has {wanted_width}x{wanted_height}; "
        "without a size to resize them to, all must be of one"
    )


def decode(path: Path | Encoded, size: int | None, channels: int, crop: int | None) -> NDArray[np.uint8]:
    """One file as uint8 (channels, size, size); `decoded` says how. Raises `Unreadable` that names the file."""
    try:
        with Image.open(path if isinstance(path, Path) else io.BytesIO(path.read()), formats=FORMATS) as image:
            plain = _plain(image, "L" if channels == 1 else "RGB")
            square = plain if size is None else _square(plain, size, crop)
    except _BOMBS as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise Unreadable(f"{path}: refused as a decompression bomb; wanted at most {limit} pixels") from error
    except _UNREADABLE as error:
        raise Unreadable(f"{path}: cannot be read as an image ({one_line(error)}); mend or remove it") from error
    return np.asarray(square).reshape(square.height, square.width, channels).transpose(2, 0, 1)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image upright and without transparency, as "L" or "RGB"."""
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if sixteen_bits:
        # 65535 = 255 * 257, so this is the nearest level; Pillow's own conversion would clip at 255.
        image = Image.fromarray(((np.asarray(image).astype(np.int32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no fixed range; wanted 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # A palette's colours, and the inks of CMYK, become grey by way of RGB.
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _square(image: Image.Image, size: int, crop: int | None) -> Image.Image:
    if crop is not None:
        if min(image.size) < crop:
            raise ValueError(f"it has {image.width}x{image.height} pixels; wanted at least {crop}x{crop}")
        image = _centre(image, crop, crop)
    # Nearly all of a long thin image is cut off in the end; resizing it whole could take more memory than there is.
    longest = 16 * min(image.size)
    image = _centre(image, min(image.width, longest), min(image.height, longest))
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return _centre(image, size, size)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
