"""Pictures of pairs: images side by side, such as input, output and target, and several image grids in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from ganlab.viz.image_grid import PNG_CHANNELS, enlargement

GAP = 16
"""White pixels between two grids of one picture."""

WHITE = 255


def side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """Pairs of images: uint8 (N, C, h, w) of each part become one image each, uint8 (N, C, H, W), from left to right.

    Smaller parts are enlarged by an integer factor where it fits, and padded with white; grey parts are made colour
    where others are. Channels that PNG does not support are shown side by side, in grey.
    """
    shown = [_as_shown(part) for part in parts]
    height = max(part.shape[2] for part in shown)
    fitted = [_at_height(part, height) for part in shown]
    factor = enlargement(height, max(part.shape[3] for part in fitted))  # by which a grid enlarges small images
    return _enlarged(torch.cat(_of_equal_channels(fitted), 3), factor)


def columns_of_pairs(count: int, parts: int) -> int:
    """The columns of a grid of pairs, of `parts` images each, that is about as wide as high."""
    return max(1, round(math.sqrt(count / parts)))


def stacked(grids: Sequence[Tensor]) -> Tensor:
    """One picture, uint8 (C, H, W), of several image grids of pairs or of images, one below the other."""
    shown = _of_equal_channels([grid[None] for grid in grids])
    width = max(grid.shape[3] for grid in shown)
    rows = [
        pad(grid, (0, width - grid.shape[3], GAP * (index > 0), 0), value=WHITE) for index, grid in enumerate(shown)
    ]
    return torch.cat(rows, 2)[0]


def _as_shown(images: Tensor) -> Tensor:
    """A part of pairs with channels that PNG supports."""
    if images.dtype != torch.uint8:
        raise TypeError(f"pairs are of images of type uint8, 0 to 255; got {images.dtype} {tuple(images.shape)}")
    return images if images.shape[1] in PNG_CHANNELS else images.movedim(1, 2).flatten(2)[:, None]


def _enlarged(images: Tensor, factor: int) -> Tensor:
    """A part of pairs, each pixel repeated."""
    return images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def _at_height(images: Tensor, height: int) -> Tensor:
    """A part of pairs at the height of the highest."""
    larger = _enlarged(images, height // images.shape[2])
    return pad(larger, (0, 0, 0, height - larger.shape[2]), value=WHITE)


def _of_equal_channels(parts: Sequence[Tensor]) -> list[Tensor]:
    """Parts of pairs, uint8 (N, C, H, W), with the channels of that which has the most; alpha is opaque where added."""
    most = max(part.shape[1] for part in parts)
    found = []
    for part in parts:
        colour = part.expand(-1, min(most, 3), -1, -1) if part.shape[1] == 1 else part
        missing = most - colour.shape[1]
        found.append(pad(colour, (0, 0, 0, 0, 0, missing), value=WHITE) if missing else colour)
    return found
