"""Decoding of one image file to values of any type of data: uint8, uint16 or float32, of any number of channels.

Decisions:
- Files of 8 bits that become 1 to 4 channels of 8 bits are decoded by `decode_image`; all else is done here: samples of
  16 bits, floating-point numbers, arrays (.npy), more bands than a picture has, and values with a range that is said.
- A file's own numbers are read by `image_samples`.
- Black and white are 0 and the largest value of the samples' type, or the limits of `ValueForm.range`. Floating-point
  numbers have neither without it: they become float32 as they are, and no pixels.
- What would be a guess is refused: values outside the range, numbers of channels that differ, arrays that can be read
  in two layouts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import Image

from ganlab.data.image_file import (
    MAX_16_BIT,
    MODES,
    DecodedImage,
    EncodedImage,
    ImageHalf,
    ImageSize,
    Samples,
    UnfitImage,
    fitted_bands,
    half_columns,
    naming_image,
)
from ganlab.data.image_samples import is_array_file, is_misread_file, read_samples
from ganlab.data.opened_image import background_colour

__all__ = [
    "GREY",
    "MOST_BANDS",
    "WHITE",
    "DataType",
    "ValueForm",
    "decode_values",
    "form_of",
    "is_plain",
    "read_samples",
]

DataType = Literal["uint8", "uint16", "float32"]
"""The types of data that image files are decoded to."""

WHITE = {"uint8": 255, "uint16": MAX_16_BIT}
"""The value of white of each type of pixels."""

GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (Rec. 601), as Pillow has them."""

MOST_BANDS = 256
"""An array with more channels is no image."""


@frozen
class ValueForm:
    """To which values image files are decoded: their type, and the values in the files that are black and white.

    Without a `range` these are 0 and the largest value of the samples' type. float32 is in [-1, 1] with a range, and
    as in the file without. `clip` sets values outside the range to its limits instead of refusing the file.
    `background` is the colour that transparency is laid on where there is no channel for it.
    """

    dtype: DataType = "uint8"
    range: tuple[float, float] | None = None
    clip: bool = False
    background: str = "white"


def form_of(dataset: object) -> ValueForm:
    """How a data set reads image files: the attribute `form` of its config; as `ValueForm()` says where it has none."""
    form = getattr(dataset, "form", None)
    return form if isinstance(form, ValueForm) else ValueForm()


def decode_values(
    file: Path | EncodedImage,
    size: ImageSize,
    channels: int,
    form: ValueForm,
    half: ImageHalf | None = None,
) -> DecodedImage:
    """Decodes one image file, or one half of it, to (channels, H, W) of the form's type.

    Sizes and halves are as in `decode_image`. Raises `UnreadableImage` with the file's name.
    """
    with naming_image(file):
        samples = read_samples(file)
        made, low, high = _in_units(samples, form)
        alpha = None if samples.alpha is None else low + samples.alpha * (high - low)
        made = _with_channels(samples, made, alpha, channels, form, (low, high))
        if half is not None:
            made = made[:, half_columns(made.shape[1], made.shape[0], half)]
        if size is not None:
            made = _resized(made, size, (low, high), with_alpha=channels in (2, 4) and not samples.is_array)
        if form.dtype != "float32":
            made = np.rint(made)
        whole = np.ascontiguousarray(made.transpose(2, 0, 1).astype(form.dtype))
    measured = form.range is None and samples.white == MAX_16_BIT
    return DecodedImage(whole, int(samples.values.max()) if measured else None)


def is_plain(file: Path | EncodedImage, channels: int, form: ValueForm) -> bool:
    """Whether an image file is one for `decode_image`, of 8 bits and 1 to 4 channels; else for `decode_values`.

    TIFF files are opened for this. One that cannot be opened is for `decode_image`, which says why.
    """
    if isinstance(file, EncodedImage) and file.samples is not None:
        return False
    is_wanted = form.dtype == "uint8" and form.range is None and channels in MODES
    return is_wanted and not is_array_file(file) and not is_misread_file(file)


# --------------------------------------------------------------------------------------------------------------------
# Converting
# --------------------------------------------------------------------------------------------------------------------


def _in_units(samples: Samples, form: ValueForm) -> tuple[NDArray[Any], float, float]:
    """An image file's numbers in the unit of the form's type, and what black and white are in it."""
    values = samples.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UnfitImage("has values that are NaN or infinite")
    if form.range is None and form.dtype == "float32":
        if samples.white is not None or values.dtype.kind != "f":
            raise UnfitImage(
                f"its values are {values.dtype}, which become float32 by a range only; set range to the values of "
                "black and white"
            )
        return values.astype(np.float32), 0.0, 1.0
    if form.range is None and samples.white is None:
        raise UnfitImage(
            f"its samples are {samples.mode}, for which no value stands for white; set range to the values of black "
            "and white"
        )
    black, white = form.range or (0, samples.white or 0)
    if values.dtype.kind == "f":
        # As the file's type has them, so that what the file says is white is white, and nothing is above it.
        black, white = _as_held(black, values.dtype), _as_held(white, values.dtype)
        values = values.astype(np.float64)
        if black == white:
            raise UnfitImage(f"is {samples.values.dtype}, in which both limits of range are {white:g}")
    if form.clip:
        values = values.clip(black, white)
    elif (lowest := values.min()) < black or values.max() > white:
        outside = lowest if lowest < black else values.max()
        raise UnfitImage(
            f"has the value {outside:g}, outside range = [{black:g}, {white:g}]; widen the range, or set clip = true"
        )
    low, high = (-1.0, 1.0) if form.dtype == "float32" else (0.0, float(WHITE[form.dtype]))
    return low + (values.astype(np.float64) - black) * ((high - low) / (white - black)), low, high


def _as_held(limit: float, dtype: np.dtype[Any]) -> float:
    """A limit rounded to a type of floating-point numbers; as it is where it is beyond the type's largest number."""
    with np.errstate(over="ignore"):
        held = float(np.asarray(limit).astype(dtype))
    return held if np.isfinite(held) else limit


def _with_channels(
    samples: Samples,
    made: NDArray[Any],
    alpha: NDArray[Any] | None,
    channels: int,
    form: ValueForm,
    limits: tuple[float, float],
) -> NDArray[Any]:
    """An image (H, W, n) with the wanted number of channels: arrays have it already, pictures are converted."""
    count = made.shape[2]
    if samples.is_array and count > 1:
        return _as_channels_last(made, channels, may_be_first=samples.format == "NPY")
    if count not in (1, 3) or channels not in MODES:
        opacity = "" if alpha is None else " and opacity"
        raise UnfitImage(f"has {count} channel{'s' if count > 1 else ''}{opacity}; wanted {channels} channels")
    if samples.is_array and channels != 1:
        raise UnfitImage(f"is an array with 1 channel; wanted {channels}, which dataset.channels says")
    colours = 1 if channels <= 2 else 3
    if count > colours:
        made = (made @ np.array(GREY))[:, :, None]
    made = made.repeat(3, axis=2) if made.shape[2] < colours else made
    low, high = limits
    if channels in (2, 4):
        opaque = np.full(made.shape[:2], high) if alpha is None else alpha
        return np.concatenate([made, opaque[:, :, None]], axis=2)
    if alpha is None:
        return made
    if form.dtype == "float32" and form.range is None:
        raise UnfitImage("has opacity, and no value stands for its background; set range, or channels = 4 to keep it")
    share = ((alpha - low) / (high - low))[:, :, None]
    colour = np.array(background_colour(form.background)) / 255
    below = low + (colour if colours == 3 else np.array([colour @ np.array(GREY)])) * (high - low)
    return made * share + below * (1 - share)


def _as_channels_last(made: NDArray[Any], channels: int, may_be_first: bool) -> NDArray[Any]:
    """An array of an image file as (H, W, C), where it is that already, or (C, H, W) if the file does not say which."""
    last, first = made.shape[2] == channels, may_be_first and made.shape[0] == channels
    if last and first:
        raise UnfitImage(
            f"its shape {made.shape} can be read as (height, width, channels) and as (channels, height, width); "
            "both have the wanted number of channels"
        )
    if not last and not first:
        raise UnfitImage(f"is an array of shape {made.shape}; wanted {channels} channels, which dataset.channels says")
    return made if last else np.moveaxis(made, 0, -1)


def _resized(
    made: NDArray[Any], size: int | tuple[int, int], limits: tuple[float, float], with_alpha: bool
) -> NDArray[Any]:
    """An image (H, W, n) resized channel by channel; colours are weighed by their opacity, the last channel."""
    low, high = limits
    lowest, highest = made.min(axis=(0, 1)), made.max(axis=(0, 1))
    if with_alpha:
        share = (made[:, :, -1:] - low) / (high - low)
        made = np.concatenate([(made[:, :, :-1] - low) * share, made[:, :, -1:]], axis=2)
    bands = [Image.fromarray(np.ascontiguousarray(made[:, :, at], dtype=np.float32)) for at in range(made.shape[2])]
    found = np.stack([np.asarray(band) for band in fitted_bands(bands, size)], axis=2)
    if with_alpha:
        share = ((found[:, :, -1:] - low) / (high - low)).clip(0, 1)
        colours = low + np.divide(found[:, :, :-1], share, out=np.zeros_like(found[:, :, :-1]), where=share > 0)
        found = np.concatenate([colours, found[:, :, -1:]], axis=2)
    # Lanczos' kernel is negative in part: without this an edge would have values that no image of the data set has.
    clipped: NDArray[Any] = found.clip(lowest, highest)
    return clipped
