"""Pictures for people: uint8 images as PNG files, in a grid or, where an image is a point, as dots in the plane.

Decisions:
- An image of two channels and one pixel is a point (x, y), each from -1 to 1.
- Other images that are neither grey nor colour have no picture of their own; a grid shows their channels side by side.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ganlab.data.pixels import to_float
from ganlab.utils.files import write_whole
from ganlab.viz.plots import scatter_png

PNG_CHANNELS = (1, 3, 4)
"""What an image in a PNG file may have: grey, colour, colour and transparency."""

MIN_PIXELS = 48
"""Images smaller than this are enlarged by a whole factor, so that a person can see 8 x 8 digits."""


def image_grid(images: Tensor, columns: int | None = None, padding: int = 2) -> Tensor:
    """One uint8 picture (C, H, W) of uint8 images (N, C, h, w) in rows, enlarged where they are small.

    It is grey where PNG has no such channels: an image's channels then lie side by side, the first one leftmost.
    """
    if images.shape[1] not in PNG_CHANNELS:
        images = images.movedim(1, 2).flatten(2)[:, None]
    count, channels, height, width = images.shape
    factor = max(1, math.ceil(MIN_PIXELS / max(height, width)))
    images = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    height, width = height * factor, width * factor
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    picture = torch.full(
        (channels, rows * (height + padding) + padding, columns * (width + padding) + padding), 255, dtype=torch.uint8
    )
    for index, image in enumerate(images.cpu()):
        top = padding + index // columns * (height + padding)
        left = padding + index % columns * (width + padding)
        picture[:, top : top + height, left : left + width] = image
    return picture


def encode_png(picture: Tensor) -> bytes:
    """A uint8 picture (C, H, W), with `PNG_CHANNELS`, as the bytes of a PNG file."""
    stream = io.BytesIO()
    pixels = picture.permute(1, 2, 0).cpu().numpy()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images as one PNG file, whole or not at all: a grid, or of points a plot of them all."""
    if images.shape[1:] == (2, 1, 1):
        x, y = to_float(images).flatten(1).T.tolist()
        write_whole(path, scatter_png(x, y))
    else:
        write_whole(path, encode_png(image_grid(images, columns)))
