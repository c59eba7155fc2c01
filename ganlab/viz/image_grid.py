"""Image grids: writes uint8 images as one PNG file, in a grid, or as a scatter plot if each image is a 2-D point.

Decisions:
- An image of two channels and one pixel is a point (x, y), each from -1 to 1.
- For other images that are neither grey nor colour, a grid shows their channels side by side.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ganlab.data.pixels import to_float
from ganlab.protocols import ImageSpec
from ganlab.utils.errors import UserError
from ganlab.utils.files import write_whole
from ganlab.viz.plots import scatter_png

PNG_COLOUR = {1: 0, 3: 2, 4: 6}
"""PNG's types of colour by numbers of channels: grey, RGB, RGBA."""

PNG_CHANNELS = tuple(PNG_COLOUR)
"""Numbers of channels that PNG supports."""

SMALL = 4096
"""Images of so many bytes are encoded without Pillow, which takes longer to begin than to encode them."""

LEVEL = 3
"""How hard small images are compressed: files of letters are 4% larger than at the default, 6, in half of the time."""

POINT = (2, 1, 1)
"""The shape of an image that is a point."""

MIN_PIXELS = 48
"""Smaller images are enlarged by an integer factor, so that 8 x 8 digits are visible."""


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """Arranges uint8 images (N, C, h, w) in one uint8 grid image (C, H, W), enlarged if they are small.

    If PNG does not support the number of channels, the grid is grey and shows an image's channels side by side.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"a grid is of images of type uint8, 0 to 255; got {images.dtype} {tuple(images.shape)}")
    if images.shape[1] not in PNG_CHANNELS:
        images = images.movedim(1, 2).flatten(2)[:, None]
    count, channels, height, width = images.shape
    size = grid_size(count, channels, height, width, columns, padding)
    factor = enlargement(height, width)
    images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    height, width = height * factor, width * factor
    columns = columns or _columns(count)
    picture = torch.full((channels, *size), 255, dtype=torch.uint8)
    for index, image in enumerate(images.cpu()):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        picture[:, top : top + height, left : left + width] = image
    return picture


def grid_size(
    count: int, channels: int, height: int, width: int, columns: int | None = None, padding: int = 2
) -> tuple[int, int]:
    """The height and width in pixels of an image grid of `count` images (channels, height, width)."""
    width = width if channels in PNG_CHANNELS else width * channels
    factor, columns = enlargement(height, width), columns or _columns(count)
    rows = -(-count // columns)
    return rows * (height * factor + padding) + padding, columns * (width * factor + padding) + padding


def enlargement(height: int, width: int) -> int:
    """By which factor an image grid enlarges images of this size."""
    return max(1, math.ceil(MIN_PIXELS / max(height, width)))


def _columns(count: int) -> int:
    """The columns of a square image grid."""
    return math.isqrt(count - 1) + 1


def encode_png(picture: Tensor) -> bytes:
    """Encodes an image grid, uint8 (C, H, W) with `PNG_CHANNELS` channels, as PNG."""
    return encode_pixels(picture.permute(1, 2, 0).cpu().numpy())


def encode_pixels(pixels: NDArray[Any]) -> bytes:
    """Encodes the pixels of an image grid or of one image, uint8 (H, W, C) with `PNG_CHANNELS` channels, as PNG.

    Grey ones, of one channel, may also be uint16: PNG with 16 bits.
    """
    if pixels.dtype == np.uint8 and pixels.nbytes <= SMALL:
        return _small_png(pixels)
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def _small_png(pixels: NDArray[Any]) -> bytes:
    """Encodes a few pixels, uint8 (H, W, C), as an image grid's: PNG (ISO 15948) without filters of rows."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOUR[channels], 0, 0, 0)
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # a 0 before each row: no filter
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), LEVEL)), (b"IEND", b""))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(name + data))]
    return b"".join(parts)


def grid_png(images: Tensor, columns: int | None = None) -> bytes:
    """An image grid of images as PNG, or a scatter plot of 2-D points."""
    if images.shape[1:] == POINT:
        x, y = to_float(images).flatten(1).T.tolist()
        return scatter_png(x, y)
    return encode_png(image_grid(images, columns))


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes an image grid of images, or a scatter plot of 2-D points, to one PNG file, atomically."""
    write_whole(path, grid_png(images, columns))


def fits_png(data: ImageSpec) -> bool:
    """Whether PNG files hold images of this shape and type: 8 bits, or 16 of grey ones."""
    is_deep = data.dtype == "uint16" and data.shape[0] != 1
    return data.is_image and data.dtype != "float32" and data.channels in PNG_CHANNELS and not is_deep


def check_png(out: Path, data: ImageSpec, instead: str) -> None:
    """Raises UserError where PNG files do not hold images of this shape and type; `instead` is what does."""
    if data.dtype == "float32":
        raise UserError(f"--out {out}: a PNG file cannot hold float32 images; use {instead}")
    if data.channels not in PNG_CHANNELS:
        raise UserError(f"--out {out}: a PNG file cannot hold images of {data.channels} channels; use {instead}")
    if data.dtype == "uint16" and data.channels != 1:
        raise UserError(
            f"--out {out}: PNG files of uint16 images are written of grey ones, not of {data.channels} channels; use "
            f"{instead}"
        )
