"""Pictures of data of any type for a person to look at: images, waveforms of signals, a scatter plot of table rows.

Decisions:
- A picture has 8 bits. Those of float data show the range of the training data, from black to white, so that pictures
  of one run compare; values outside it are clipped.
- Signals are lines on a canvas of their own, one channel under the other, in the grid that images have.
- Of rows the first two columns are drawn, in their own unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ganlab.data.pixels import HALF_RANGE, as_input, value_range
from ganlab.utils.files import write_whole
from ganlab.viz.image_grid import POINT, encode_png, image_grid, save_grid
from ganlab.viz.plots import scatter_png

SHORTEST, LONGEST, HIGH = 96, 512, 48
"""The least and most pixels in the width of a waveform, and its height."""

MOST_CHANNELS = 4
"""More channels of a signal are not drawn."""

Limits = Sequence[float] | None
"""The lowest and highest value of float data, None for those of the data that are drawn."""


def save_picture(data: Tensor, path: Path, columns: int | None = None, limits: Limits = None) -> None:
    """Writes a picture of data of any supported type as PNG: a grid of images or waveforms, or a scatter plot."""
    if data.ndim == 2:
        write_whole(path, _scatter(data))
    elif data.dtype == torch.uint8 and data.ndim == 4:
        save_grid(data, path, columns)
    elif tuple(data.shape[1:]) == POINT and data.dtype != torch.float32:
        x, y = as_input(data).flatten(1).T.tolist()
        write_whole(path, scatter_png(x, y))
    elif tuple(data.shape[1:]) == POINT:
        write_whole(path, _scatter(data.flatten(1)))
    else:
        write_whole(path, encode_png(image_grid(as_pixels(data, limits), columns)))


def as_pixels(data: Tensor, limits: Limits = None) -> Tensor:
    """A picture of each image (N, C, H, W) or signal (N, C, T), as uint8 images; `limits` are those of float data."""
    low, high = _limits(data, limits)
    if data.ndim == 3:
        return torch.stack(
            [_waveforms(signal[:MOST_CHANNELS].tolist(), low, high) for signal in data.float().nan_to_num()]
        )
    if data.dtype == torch.uint8:
        return data
    share = (data.double() - low) / ((high - low) or 1.0)
    return share.nan_to_num().clamp(0, 1).mul(255).round().to(torch.uint8)


def picture_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape (C, H, W) of the picture that `as_pixels` makes of an image (C, H, W) or a signal (C, T)."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return 1, HIGH * min(shape[0], MOST_CHANNELS), min(max(shape[1], SHORTEST), LONGEST)


def _limits(data: Tensor, limits: Limits) -> tuple[float, float]:
    """The lowest and highest value that a picture of data shows."""
    if data.dtype in HALF_RANGE:
        return 0.0, 2 * HALF_RANGE[data.dtype]
    low, high = limits or value_range(data.nan_to_num())
    return low, high


def _waveforms(channels: Sequence[Sequence[float]], low: float, high: float) -> Tensor:
    """The picture of a signal, uint8 (1, H, W): a line for each channel, from `low` at the bottom to `high`."""
    _, height, width = picture_shape((len(channels), len(channels[0])))
    picture = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(picture)
    for index, values in enumerate(channels):
        across = (width - 1) / max(1, len(values) - 1)
        share = [min(1.0, max(0.0, (value - low) / ((high - low) or 1.0))) for value in values]
        line = [(place * across, (index + 1) * HIGH - 2 - up * (HIGH - 4)) for place, up in enumerate(share)]
        draw.line(line if len(line) > 1 else line * 2, fill=0)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, height, width)


def _scatter(rows: Tensor) -> bytes:
    """The picture of rows of a table (N, D): the first column across, the second upwards; 0 where there is only one."""
    values = rows[:, :2].double()
    x = values[:, 0].tolist()
    y = values[:, 1].tolist() if values.shape[1] > 1 else [0.0] * len(x)
    return scatter_png(x, y, of_columns=True)
