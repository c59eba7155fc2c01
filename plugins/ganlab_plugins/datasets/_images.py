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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
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


def decoded(
    folder: Path, names: Sequence[str], *, size: int | None, channels: int = 3, crop: int | None = None, cache: Path
) -> MappedImages:
    """The images `names` (paths below `folder`) as uint8 (N, channels, size, size), from the cache where it has them.

    Each is cut to its central square of `crop` pixels where that is given, resized until its shorter side is `size`
    pixels (Lanczos, antialiased) and cut to its central square. Without a size they stay as they are, (N, channels, H,
    W), and must all be of the first one's. Raises `ComponentError` that names the files which
    are missing, unreadable or decompression bombs.
    """
    digest = _key(folder, names, f"{_VERSION} {size} {channels} {crop}")
    path = cache / "decoded" / f"{digest[:32]}.npy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path.with_suffix(".lock"))):
            images = _whole(path, digest)
            if images is None:
                _write(path, [folder / name for name in names], size, channels, crop)
                images = MappedImages.open(path)
                note = {"key": digest, "fingerprint": images.fingerprint}
                write_whole(path.with_suffix(".json"), json.dumps(note))
            return images
    except OSError as error:
        raise ComponentError(f"cannot keep decoded images in {path.parent} ({one_line(error)})") from error


def _key(folder: Path, names: Sequence[str], options: str) -> str:
    """A hash of all that the decoded pixels depend on, as far as it can be known without reading the files."""
    digest = hashlib.sha256(f"{options}\n".encode())
    # Two folders can hold files of equal names, lengths and times that differ, such as archives unpacked at time 0.
    digest.update(os.fsencode(folder.resolve()) + b"\0")
    for name in names:
        path = folder / name
        try:
            about = path.stat()
        except OSError as error:
            raise ComponentError(f"{path}: cannot be read ({error.strerror})") from error
        if not stat.S_ISREG(about.st_mode):  # reading a pipe would wait for ever
            raise ComponentError(f"{path}: is not a file; remove it")
        digest.update(os.fsencode(name) + f"\0{about.st_size} {about.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _whole(path: Path, digest: str) -> MappedImages | None:
    """The images that were kept, or None where there are none of this key, or other pixels than were written."""
    try:
        note = json.loads(path.with_suffix(".json").read_text())
        if not isinstance(note, dict) or note.get("key") != digest:
            return None
        images = MappedImages.open(path)
    except (FileNotFoundError, ValueError):
        return None
    return images if note.get("fingerprint") == images.fingerprint else None


def _write(path: Path, files: Sequence[Path], size: int | None, channels: int, crop: int | None) -> None:
    """Decodes the files into an .npy file, which gets its name only when it is complete."""
    shape = (channels, size, size) if size is not None else decode(files[0], None, channels, crop).shape
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)})
    pixels_at, step = header.tell(), math.prod(shape)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # On a disk that is too full this fails at once, and not after hours of decoding.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, pixels_at + len(files) * step)
        _write_at(descriptor, header.getvalue(), 0)

        def decode_part(start: int) -> list[str]:
            problems = []
            for index in range(start, min(start + 64, len(files))):
                try:
                    image = decode(files[index], size, channels, crop)
                    if image.shape != shape:
                        raise ComponentError(_of_other_size(files[index], image, files[0], shape))
                    _write_at(descriptor, image.tobytes(), pixels_at + index * step)
                except ComponentError as error:
                    problems.append(str(error))
            return problems

        with warnings.catch_warnings(), ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            parts = pool.map(decode_part, range(0, len(files), 64))
            if problems := [problem for part in parts for problem in part]:
                more = [f"and {len(problems) - NAMED} more files"] if len(problems) > NAMED else []
                raise ComponentError("\n".join([*problems[:NAMED], *more]))
        os.fsync(descriptor)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        os.close(descriptor)
        Path(temporary).unlink(missing_ok=True)


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(descriptor, rest, place)
        rest, place = rest[count:], place + count


def _of_other_size(path: Path, image: NDArray[np.uint8], first: Path, shape: Sequence[int]) -> str:
    (_, height, width), (_, wanted_height, wanted_width) = image.shape, shape
    return (
        f"{path}: {width}x{height} pixels, but {first.name} has {wanted_width}x{wanted_height}; "
        "without a size to resize them to, all must be of one"
    )


def decode(path: Path, size: int | None, channels: int, crop: int | None) -> NDArray[np.uint8]:
    """One file as uint8 (channels, size, size); `decoded` says how. Raises `ComponentError` that names the file."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            plain = _plain(image, "L" if channels == 1 else "RGB")
            square = plain if size is None else _square(plain, size, crop)
    except _BOMBS as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise ComponentError(f"{path}: refused as a decompression bomb; wanted at most {limit} pixels") from error
    except _UNREADABLE as error:
        raise ComponentError(f"{path}: cannot be read as an image ({one_line(error)}); mend or remove it") from error
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
