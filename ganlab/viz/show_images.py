"""`ganlab.show_images`: a batch of images as one grid, which a notebook shows and `save` writes as PNG."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor

from ganlab.data.pixels import as_input, to_uint8
from ganlab.utils.errors import UserError
from ganlab.utils.files import write_whole
from ganlab.utils.from_python import from_python
from ganlab.viz.image_grid import grid_png


@frozen
class ShownImages:
    """Images to be shown as one grid: `png` is its file."""

    png: bytes

    @from_python
    def save(self, path: str | Path) -> None:
        """Writes the images that are shown as a PNG file."""
        write_whole(Path(path), self.png)

    def _repr_html_(self) -> str:
        return png_html(self.png, "images")


@from_python
def show_images(images: Tensor, columns: int | None = None) -> ShownImages:
    """Shows images in a notebook, as a grid.

    images: (N, C, h, w), uint8 or uint16 as `Run.sample` makes them, or float in [-1, 1] as a network does.
    columns: images in a row; by default about as many as there are rows. Raises UserError for another shape or type.
    """
    shape, dtype = tuple(images.shape), images.dtype
    if images.dim() != 4 or 0 in shape or not (dtype.is_floating_point or dtype in (torch.uint8, torch.uint16)):
        raise UserError(f"show_images: expected images (N, C, h, w), uint8, uint16 or float, got {dtype} {shape}")
    if columns is not None and columns < 1:
        raise UserError(f"show_images: columns: expected at least 1, got {columns}")
    images = images.detach().cpu()
    if dtype.is_floating_point and not images.isfinite().all():
        raise UserError("show_images: expected finite images, got values that are NaN or infinite")
    if dtype != torch.uint8:
        images = to_uint8(images.float() if dtype.is_floating_point else as_input(images))
    return ShownImages(grid_png(images, None if columns is None else min(columns, len(images))))


def png_html(data: bytes, title: str) -> str:
    """Shows an image as HTML in a notebook, with the PNG in it."""
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
