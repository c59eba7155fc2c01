"""Decoding of one image file with Pillow to uint8 pixels (channels, height, width), and resizing of uint8 images.

Decisions:
- The pixels do not depend on the file format: rotated upright by the EXIF orientation, grey or RGB, transparency on
  white, 16-bit grey rounded to 8 bits, the first frame of an animation.
- Only the formats in `FORMATS` are tried, whatever the file's extension: some of Pillow's other readers start programs.
- What is an image is asked of Pillow: the extensions that it registers for these formats, and for a name without an
  extension the file's content.
- Samples of 16 bits are measured, since 12 bits stored in 16 would become almost black.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin
from torch import Tensor

from ganlab.utils.errors import ComponentError, one_line

ImageHalf = Literal["left", "right"]
"""Half of a picture that has two images of the same size side by side."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF")

MAX_16_BIT = 65535
"""The largest value of a sample of 16 bits."""


DARK = 2**14 + 2**8
"""An image whose samples of 16 bits are all below this holds 14 bits or fewer (values of colour are known to the next
multiple of 256), and would become almost black."""


@cache
def image_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def image_extensions() -> frozenset[str]:
    """The extensions, in small letters, that Pillow registers for image files of `FORMATS`."""
    names = {*image_formats(), "MPO"}  # several JPEGs in a file, the first of which Pillow's JPEG reader reads
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in names)


def looks_like_image(path: Path) -> bool:
    """Whether an image file's header is that of one of `FORMATS`, whatever the file's name."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block forever
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.open(path, formats=image_formats()).close()
    except _BOMBS:
        return True
    except _UNREADABLE:
        return False
    return True


_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# What Pillow raises for files that are truncated, damaged or not images.
_UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, EOFError, ZeroDivisionError, struct.error, zlib.error)


class _NoRange(ValueError):
    """The samples of an image file are numbers whose largest value the format does not fix."""


class _NoHalves(ValueError):
    """An image file is no picture of two images side by side."""


class UnreadableImage(ComponentError):
    """An image file cannot be decoded: it is missing, damaged, not an image or a decompression bomb."""


@frozen
class EncodedImage:
    """An encoded image stored inside another file: its name for error messages, and a function that reads its bytes."""

    name: str
    read: Callable[[], bytes] = field(repr=False)

    def __str__(self) -> str:
        return self.name


def resize_images(images: Tensor, size: int) -> Tensor:
    """Resizes images (N, C, H, W) uint8 to (N, C, size, size) uint8: bilinear, antialiased, as torchvision does."""
    if images.shape[2:] == (size, size):
        return images
    # Integer arithmetic throughout, as in torchvision's Resize and in Pillow: 12 times as fast as floats.
    return torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


@frozen
class DecodedImage:
    """A decoded image: uint8 (channels, height, width), and of a file with 16 bits a sample the largest value in it.

    That value is 0 to 65535; for colour, of which Pillow keeps 8 bits, it is the largest that it may be.
    """

    pixels: NDArray[np.uint8]
    largest: int | None = None


def decode_image(
    file: Path | EncodedImage, size: int | None, channels: int, crop: int | None, half: ImageHalf | None = None
) -> DecodedImage:
    """Decodes one image file, or one half of it, to uint8 (channels, size, size).

    It is cropped to its central square of `crop` pixels if `crop` is set, resized so that its shorter side is `size`
    pixels (Lanczos, antialiased) and cropped to its central square. Without a size it keeps its own: (channels, H, W).
    Raises `UnreadableImage` with the file's name.
    """
    try:
        with Image.open(file if isinstance(file, Path) else io.BytesIO(file.read()), formats=image_formats()) as image:
            plain, largest = _plain(image, "L" if channels == 1 else "RGB")
            plain = plain if half is None else _half(plain, half)
            square = plain if size is None else _square(plain, size, crop)
    except _BOMBS as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise UnreadableImage(f"{file}: refused as a decompression bomb; wanted at most {limit} pixels") from error
    except _NoHalves as error:
        raise UnreadableImage(f"{file}: {error}") from error
    except _NoRange as error:
        raise UnreadableImage(f"{file}: {error}; convert it to 8 or 16 bits a sample") from error
    except _UNREADABLE as error:
        raise UnreadableImage(f"{file}: cannot be read as an image ({one_line(error)}); repair or remove it") from error
    return DecodedImage(np.asarray(square).reshape(square.height, square.width, channels).transpose(2, 0, 1), largest)


def _plain(image: Image.Image, mode: str) -> tuple[Image.Image, int | None]:
    """A decoded Pillow image, upright and without transparency, in mode "L" or "RGB"; and `DecodedImage.largest`."""
    deep_grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    deep_colour = not deep_grey and _has_deep_samples(image)
    largest, is_ppm = None, image.format == "PPM"
    image = ImageOps.exif_transpose(image)
    if deep_grey:
        values = np.asarray(image).astype(np.int32)
        largest = int(values.max())
        # 65535 = 255 * 257, so this rounds to the nearest level; Pillow's own conversion would clip at 255.
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "integers of 32 bits"
        raise _NoRange(f"its samples are {kind}, for which no value stands for white")
    elif deep_colour:
        colours = len(image.getbands()) - ("A" in image.getbands())  # opacity says nothing of the colours' range
        level = int(np.asarray(image)[..., :colours].max())
        largest = 257 * level if is_ppm else 256 * level + 255  # of a PPM Pillow rounds, of others it keeps 8 bits
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # Palette and CMYK images are converted to grey by way of RGB.
    return image if image.mode == mode else image.convert("RGB").convert(mode), largest


def _has_deep_samples(image: Image.Image) -> bool:
    """Whether the file of an opened, not yet decoded image in colour has 16 bits a sample: Pillow keeps the upper 8."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, ())
        return max(bits if isinstance(bits, tuple) else (bits,), default=8) > 8
    tiles = getattr(image, "tile", [])
    if image.format not in ("PNG", "PPM") or not tiles:
        return False
    arguments = tiles[0][3]
    if image.format == "PNG":  # the raw mode, such as "RGB;16B"
        return ";16" in str(arguments)
    # The raw mode and the largest value that the file declares, of which Pillow makes 255.
    return isinstance(arguments, tuple) and isinstance(arguments[-1], int) and arguments[-1] > 255


def _half(image: Image.Image, half: ImageHalf) -> Image.Image:
    """Half of a picture of two square images side by side."""
    if image.width != 2 * image.height:
        raise _NoHalves(
            f"{image.width}x{image.height} pixels; wanted a picture of two images side by side, twice as wide as high"
        )
    left = 0 if half == "left" else image.height
    return image.crop((left, 0, left + image.height, image.height))


def _square(image: Image.Image, size: int, crop: int | None) -> Image.Image:
    if crop is not None:
        if min(image.size) < crop:
            raise ValueError(f"it has {image.width}x{image.height} pixels; wanted at least {crop}x{crop}")
        image = _center_crop(image, crop, crop)
    # Most of a very long image is cropped away in the end; resizing all of it could need more memory than there is.
    longest = 16 * min(image.size)
    image = _center_crop(image, min(image.width, longest), min(image.height, longest))
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return _center_crop(image, size, size)


def _center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


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


def high_bit_depth(
    largest: Mapping[int, int], files: Sequence[Path | EncodedImage], decoded: int
) -> HighBitDepth | None:
    """What the largest values of image files with 16 bits a sample, by index, say; None where there is no such file.

    `files` are all of them, of which `decoded` could be decoded.
    """
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
