"""Decoding of one image file with Pillow to uint8 pixels (channels, height, width), and resizing of uint8 images.

Decisions:
- The pixels do not depend on the file format: rotated upright by the EXIF orientation, grey or RGB, transparency on
  white, 16-bit grey rounded to 8 bits, the first frame of an animation.
- Only the formats in `FORMATS` are tried, whatever the file's extension: some of Pillow's other readers start programs.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from attrs import field, frozen
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from ganlab import ComponentError, one_line

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

# What Pillow raises for files that are truncated, damaged or not images.
_UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, EOFError, ZeroDivisionError, struct.error, zlib.error)


class Unreadable(ComponentError):
    """An image file cannot be decoded: it is missing, damaged, not an image or a decompression bomb."""


@frozen
class Encoded:
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


def decode_image(file: Path | Encoded, size: int | None, channels: int, crop: int | None) -> NDArray[np.uint8]:
    """Decodes one image file to uint8 (channels, size, size).

    It is cropped to its central square of `crop` pixels if `crop` is set, resized so that its shorter side is `size`
    pixels (Lanczos, antialiased) and cropped to its central square. Without a size it keeps its own: (channels, H, W).
    Raises `Unreadable` with the file's name.
    """
    try:
        with Image.open(file if isinstance(file, Path) else io.BytesIO(file.read()), formats=FORMATS) as image:
            plain = _plain(image, "L" if channels == 1 else "RGB")
            square = plain if size is None else _square(plain, size, crop)
    except _BOMBS as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise Unreadable(f"{file}: refused as a decompression bomb; wanted at most {limit} pixels") from error
    except _UNREADABLE as error:
        raise Unreadable(f"{file}: cannot be read as an image ({one_line(error)}); repair or remove it") from error
    return np.asarray(square).reshape(square.height, square.width, channels).transpose(2, 0, 1)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """A decoded Pillow image, upright and without transparency, in mode "L" or "RGB"."""
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if sixteen_bits:
        # 65535 = 255 * 257, so this rounds to the nearest level; Pillow's own conversion would clip at 255.
        image = Image.fromarray(((np.asarray(image).astype(np.int32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} have no fixed range; wanted 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # Palette and CMYK images are converted to grey by way of RGB.
    return image if image.mode == mode else image.convert("RGB").convert(mode)


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
