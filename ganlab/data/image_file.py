"""Decoding of one image file with Pillow to uint8 pixels (channels, height, width), and resizing of uint8 images.

Decisions:
- The pixels do not depend on the file format: rotated upright by the EXIF orientation, grey or RGB, transparency kept
  or laid on a colour, 16-bit grey rounded to 8 bits, the first frame of an animation. A TIFF file with several pages is
  refused: they are images of their own.
- `image_values` decodes files to other types than uint8, and TIFF files of which Pillow does not give the numbers.
- Files are opened as streams: of a path Pillow maps uncompressed TIFF files into memory, and those that are to be
  rotated with their width and height exchanged.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ganlab.data.opened_image import (
    deep_grey_values,
    has_deep_colour,
    has_deep_grey,
    in_mode,
    opaque_where,
    upright,
)
from ganlab.data.plain_png import read_plain_png
from ganlab.data.tiff_tags import count_pages, is_misread, is_tiff
from ganlab.utils.errors import ComponentError, one_line
from ganlab.utils.memory import is_out_of_memory

ImageHalf = Literal["left", "right"]
"""Half of a picture that has two images of the same size side by side."""

ImageSize = int | tuple[int, int] | None
"""What an image file is resized to: a square's side, or height and width; None for the file's own size."""

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of images with so many channels: grey and colour, without and with opacity."""

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
_BY_PYTHON = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ZeroDivisionError, RuntimeError)
_UNREADABLE = (*_BY_PYTHON, struct.error, zlib.error)


class UnfitImage(ValueError):
    """An image file can be read, and nothing that is wanted can be made of it; the text says why."""


class MissingPackage(Exception):
    """A package that reads an image file is not installed; the text says which, and how to install it."""


class UnreadableImage(ComponentError):
    """An image file cannot be decoded: it is missing, damaged, not an image or a decompression bomb."""


@frozen
class Samples:
    """An image file's own numbers, upright: (H, W, n), with the opacity (H, W) in [0, 1] apart, None without.

    `white` is the value of white, None where the file does not say it. `is_array`: the channels are those of an array
    and have no meaning as colours. `mode` is what the file holds in words, and `format` Pillow's name, or another's.
    """

    values: NDArray[Any]
    white: int | None
    alpha: NDArray[Any] | None
    mode: str
    format: str
    is_array: bool = False


@frozen
class EncodedImage:
    """An encoded image stored inside another file: its name for error messages, and a function that reads its bytes.

    `samples` reads the `Samples` of what is no picture file, such as a frame of a video.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False)
    samples: Callable[[], Samples] | None = field(default=None, repr=False)

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


@contextmanager
def opened_image(file: Path | EncodedImage) -> Iterator[Image.Image | None]:
    """Opens an image file with Pillow; None for a TIFF file of which Pillow does not give the numbers.

    Raises what Pillow raises, and UnfitImage for a TIFF file with several pages.
    """
    with content_of(file) as stream:
        try:
            image = Image.open(stream, formats=image_formats())
        except UnidentifiedImageError:
            stream.seek(0)
            if not is_tiff(stream.read(4)):
                raise UnidentifiedImageError("cannot identify image file") from None
            image = None
        may_have_pages = image is None or (image.format == "TIFF" and getattr(image, "is_animated", True))
        if may_have_pages and (pages := count_pages(stream)) > 1:
            raise UnfitImage(f"has {pages:,} pages; wanted a file of one image; write each page to a file of its own")
        yield None if image is None or is_misread(image) else image


def content_of(file: Path | EncodedImage) -> BinaryIO:
    """An image file's bytes as a stream, which the caller closes."""
    return file.open("rb") if isinstance(file, Path) else io.BytesIO(file.read())


@contextmanager
def naming_image(file: Path | EncodedImage) -> Iterator[None]:
    """Turns what an image file's decoder raises into `UnreadableImage` with the file's name.

    A missing package is no fault of the file's, so it is another `ComponentError`.
    """
    try:
        yield
    except _BOMBS as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise UnreadableImage(f"{file}: refused as a decompression bomb; wanted at most {limit} pixels") from error
    except MissingPackage as error:
        raise ComponentError(f"{file}: {error}") from error
    except UnfitImage as error:
        raise UnreadableImage(f"{file}: {error}") from error
    except _UNREADABLE as error:
        if is_out_of_memory(error):
            raise
        raise UnreadableImage(f"{file}: cannot be read as an image ({one_line(error)}); repair or remove it") from error


def decode_image(
    file: Path | EncodedImage,
    size: ImageSize,
    channels: int | None,
    crop: int | None,
    half: ImageHalf | None = None,
    background: str = "white",
) -> DecodedImage:
    """Decodes one image file, or one half of it, to uint8 (channels, H, W), with 1 to 4 channels: see `MODES`.

    With None it has 1 channel where the file is grey, and else 3.
    It is cropped to its central square of `crop` pixels if `crop` is set, resized to cover `size` (Lanczos,
    antialiased) and cropped to the centre of it. Without a size it keeps its own. Transparency is laid on the colour
    `background` where `channels` has no opacity. Raises `UnreadableImage` with the file's name.

    TIFF files of which Pillow does not give the numbers are refused: `is_plain` leaves them to `decode_values`.
    """
    if size is None and crop is None and half is None and isinstance(file, Path) and channels in (None, 1, 3):
        quick = read_plain_png(file)
        if quick is not None and channels in (None, len(quick)):
            return DecodedImage(quick)
    with naming_image(file), opened_image(file) as image:
        if image is None:
            raise UnfitImage("Pillow does not give its samples as they are; convert it to grey or RGB of 8 bits")
        plain, largest = _plain(image, _own_mode(image) if channels is None else MODES[channels], background)
        plain = plain if half is None else _half(plain, half)
        fitted = plain if size is None else _fitted(plain, size, crop)
        pixels = np.asarray(fitted).reshape(fitted.height, fitted.width, -1).transpose(2, 0, 1)
    return DecodedImage(pixels, largest)


def _own_mode(image: Image.Image) -> str:
    """The mode, grey or RGB, in which an opened image file without opacity is decoded as it is."""
    grey = has_deep_grey(image) or (image.mode in ("1", "L") and not image.has_transparency_data)
    return MODES[1 if grey else 3]


def _plain(image: Image.Image, mode: str, background: str) -> tuple[Image.Image, int | None]:
    """A decoded Pillow image, upright, in one of `MODES`; and `DecodedImage.largest`."""
    deep_grey = has_deep_grey(image)
    deep_colour = not deep_grey and has_deep_colour(image)
    largest, is_ppm = None, image.format == "PPM"
    if deep_grey:
        values = deep_grey_values(image).astype(np.int32)
        largest = int(values.max())
        # 65535 = 255 * 257, so this rounds to the nearest level; Pillow's own conversion would clip at 255.
        grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        if (opaque := opaque_where(image, values)) is not None:
            grey.putalpha(Image.fromarray(np.where(opaque, np.uint8(255), np.uint8(0))))
        return in_mode(grey, mode, background), largest
    image = upright(image)
    if image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "integers of 32 bits"
        raise UnfitImage(
            f"its samples are {kind}, for which no value stands for white; set range to the values of black and white, "
            "or convert it to 8 or 16 bits a sample"
        )
    if deep_colour:
        colours = len(image.getbands()) - ("A" in image.getbands())  # opacity says nothing of the colours' range
        level = int(np.asarray(image)[..., :colours].max())
        largest = 257 * level if is_ppm else 256 * level + 255  # of a PPM Pillow rounds, of others it keeps 8 bits
    return in_mode(image, mode, background), largest


def _half(image: Image.Image, half: ImageHalf) -> Image.Image:
    """Half of a picture of two square images side by side."""
    columns = half_columns(image.width, image.height, half)
    return image.crop((columns.start, 0, columns.stop, image.height))


def half_columns(width: int, height: int, half: ImageHalf) -> slice:
    """The columns of half of a picture of two square images side by side. Raises UnfitImage for another picture."""
    if width != 2 * height:
        raise UnfitImage(f"{width}x{height} pixels; wanted a picture of two images side by side, twice as wide as high")
    return slice(0, height) if half == "left" else slice(height, width)


def _fitted(image: Image.Image, size: int | tuple[int, int], crop: int | None) -> Image.Image:
    """A Pillow image resized to cover a size, and cropped to the centre of it."""
    if crop is not None:
        if min(image.size) < crop:
            raise ValueError(f"it has {image.width}x{image.height} pixels; wanted at least {crop}x{crop}")
        image = _center_crop(image, crop, crop)
    return fitted_bands([image], size)[0]


def fitted_bands(bands: Sequence[Image.Image], size: int | tuple[int, int]) -> list[Image.Image]:
    """The bands of an image, of one size, resized to cover a size (Lanczos), and cropped to the centre of it."""
    height, width = (size, size) if isinstance(size, int) else size
    # Most of a very long image is cropped away in the end; resizing all of it could need more memory than there is.
    first = bands[0]
    longest = 16 * min(first.width / width, first.height / height)
    kept = min(first.width, round(longest * width)), min(first.height, round(longest * height))
    scale = max(width / kept[0], height / kept[1])
    resized = max(width, round(kept[0] * scale)), max(height, round(kept[1] * scale))
    return [
        _center_crop(_center_crop(band, *kept).resize(resized, Image.Resampling.LANCZOS), width, height)
        for band in bands
    ]


def _center_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@frozen
class HighBitDepth:
    """Decoded image files with 16 bits a sample: how many, of how many, the largest value, and the first one's name.

    `dark` is the number of those whose values are all below `DARK`, `dark_largest` the largest value in them and
    `dark_first` the first one's name. A file of zeros is not one: it is black with any number of bits. `kept`: all 16
    bits are kept.
    """

    count: int
    files: int
    largest: int
    first: str
    dark: int = 0
    dark_largest: int = 0
    dark_first: str = ""
    kept: bool = False

    def __str__(self) -> str:
        if self.kept:
            return f"{_and_others(self.dark_first, self.dark, self.count)} {self._dark_range}"
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
        if 2 * self.dark >= self.files and self.dark:
            raise ComponentError(
                f"{_and_others(self.dark_first, self.dark, self.files)} 16 bits a sample, but {self._dark_range}; "
                f"spread the values over 0 to {MAX_16_BIT:,}, or write 8 bits a sample, or, of an image_folder, set "
                f"range = [0, {2 ** self.dark_largest.bit_length() - 1}]"
            )

    @property
    def _dark_range(self) -> str:
        level = "" if self.kept else f", which becomes level {_level(self.dark_largest)} of 255"
        return f"no value above {self.dark_largest:,}{level or f' of {MAX_16_BIT:,}'}"


def _level(value: int) -> int:
    """The level, of 8 bits, of a sample of 16 bits."""
    return (value + 128) // 257


def _and_others(first: str, count: int, files: int) -> str:
    """The beginning of a line about `count` of `files` image files, up to its verb "to have"."""
    if count == 1:
        return f"{first} has"
    return f"{first} and {count - 1:,} more of {files:,} files have"


def high_bit_depth(
    largest: Mapping[int, int], files: Sequence[Path | EncodedImage], decoded: int, kept: bool = False
) -> HighBitDepth | None:
    """What the largest values of image files with 16 bits a sample, by index, say; None where there is no such file.

    `files` are all of them, of which `decoded` could be decoded. Where all bits are kept, only dark ones are told of.
    """
    dark = {index: value for index, value in largest.items() if 0 < value < DARK}
    if not (dark if kept else largest):
        return None
    return HighBitDepth(
        len(largest),
        decoded,
        max(largest.values()),
        str(files[min(largest)]),
        len(dark),
        max(dark.values(), default=0),
        str(files[min(dark)]) if dark else "",
        kept,
    )
