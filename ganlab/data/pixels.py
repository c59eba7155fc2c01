"""Conversion of data between their own type, as they are stored, and float32, as networks see and make them.

Decisions:
- Pixels of uint8 and uint16 are scaled to [-1, 1] by the range of their type. What is float32 is never scaled: nobody
  knows its range, and 0 to 1, -1 to 1 and volts look alike.
- What a network is given is always a new tensor: code that changes it in place does not change the data.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALF_RANGE = {torch.uint8: 127.5, torch.uint16: 32767.5}
"""Half of the highest value of each type of pixels."""

DATA_TYPES = (torch.uint8, torch.uint16, torch.float32)
"""The types of data sets, and of conditions that are no class labels."""


def type_name(dtype: torch.dtype) -> str:
    """The name of a type of data, as in `ImageSpec.dtype`: "uint8", "uint16", "float32"."""
    return str(dtype).removeprefix("torch.")


def rows_of(data: Tensor, index: Tensor) -> Tensor:
    """The rows of data at `index`, int64 (n,), on the data's device.

    Those of uint16, which not every operation of torch knows on every device, are gathered as if they were int16.
    """
    return data.view(torch.int16)[index].view(torch.uint16) if data.dtype == torch.uint16 else data[index]


def to_float(images: Tensor) -> Tensor:
    """Converts pixels from uint8 [0, 255] or uint16 [0, 65535] to float32 [-1, 1].

    Raises TypeError for another type, whose range is unknown.
    """
    half = HALF_RANGE.get(images.dtype)
    if half is None:
        raise TypeError(
            f"to_float converts pixels of type uint8, 0 to 255, and uint16; got {images.dtype} {tuple(images.shape)}"
        )
    return images.float().div_(half).sub_(1.0)


def as_input(data: Tensor) -> Tensor:
    """Converts data of a data set's type to a network's input, a new float32 tensor: pixels to [-1, 1].

    float32 data are unchanged, and class labels, int64 (n,), are returned as they are.
    """
    if data.dtype == torch.float32:
        return data.clone()
    return data if data.dtype == torch.int64 else to_float(data)


def as_stored(made: Tensor, dtype: str) -> Tensor:
    """Converts what a network made to the data's own type: pixels, uint8 or uint16, from [-1, 1]; float32 as it is.

    Pixels are rounded to the nearest level and clipped. Raises TypeError for whole numbers.
    """
    if not made.is_floating_point():
        raise TypeError(f"to_{dtype} converts float pixels in [-1, 1]; got {made.dtype} {tuple(made.shape)}")
    if dtype == "float32":
        return made.float()
    own: torch.dtype = getattr(torch, dtype)
    half = HALF_RANGE[own]
    return made.float().add(1.0).mul_(half).round_().clamp_(0, 2 * half).to(own)


def to_uint8(images: Tensor) -> Tensor:
    """Converts pixels from float [-1, 1] to uint8 [0, 255], rounded to the nearest level and clipped.

    Raises TypeError for whole numbers.
    """
    return as_stored(images, "uint8")


def value_range(data: Tensor) -> tuple[float, float]:
    """The lowest and the highest value of data, read in parts; nan if a value is NaN. There must be at least one."""
    lowest = highest = None
    for part in data.split(max(1, 2**24 // max(1, data[:1].nbytes))):
        low, high = (part.int() if part.dtype == torch.uint16 else part).aminmax()  # torch has none of uint16
        lowest = low if lowest is None else torch.minimum(lowest, low)
        highest = high if highest is None else torch.maximum(highest, high)
    if lowest is None or highest is None:
        raise ValueError("there are no data, and so no range")
    return float(lowest), float(highest)
