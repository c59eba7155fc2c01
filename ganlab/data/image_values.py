"""Decoding of one image file to values of any type of data: uint8, uint16 or float32, of any number of channels.

Decisions:
- Files of 8 bits that become 1 to 4 channels of 8 bits are decoded by `decode_image`; all else is done here: samples of
  16 bits, floating-point numbers, arrays (.npy), more bands than a picture has, and values with a range that is said.
- Black and white are 0 and the largest value of the samples' type, or the limits of `ValueForm.range`. Floating-point
  numbers have neither without it: they become float32 as they are, and no pixels.
- What would be a guess is refused: values outside the range, numbers of channels that differ, arrays that can be read
  in two layouts.
- Pillow keeps 8 bits of colour with 16, so such PNG files are decoded by imagecodecs, and TIFF files by tifffile.
"""

from __future__ import annotations

import importlib
import io
import math
import tokenize
from pathlib import Path
from typing import Any, Literal

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ganlab.data.image_file import (
    MAX_16_BIT,
    MODES,
    DecodedImage,
    EncodedImage,
    ImageHalf,
    ImageSize,
    Samples,
    UnfitImage,
    background_colour,
    content_of,
    fitted_bands,
    half_columns,
    has_deep_colour,
    has_deep_grey,
    image_formats,
    in_mode,
    naming_image,
)
from ganlab.utils.errors import one_line

DataType = Literal["uint8", "uint16", "float32"]
"""The types of data that image files are decoded to."""

WHITE = {"uint8": 255, "uint16": MAX_16_BIT}
"""The value of white of each type of pixels."""

GREY = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (Rec. 601), as Pillow has them."""

ARRAY = ".npy"
"""The extension of a file that holds an array of numbers."""

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
    """Whether an image file is one for `decode_image`, of 8 bits and 1 to 4 channels; else for `decode_values`."""
    if isinstance(file, EncodedImage) and file.samples is not None:
        return False
    return form.dtype == "uint8" and form.range is None and channels in MODES and not is_array_file(file)


def is_array_file(file: Path | EncodedImage) -> bool:
    """Whether an image file is an .npy file, by its name."""
    name = file.name if isinstance(file, Path) else str(file)
    return name.lower().endswith(ARRAY)


# --------------------------------------------------------------------------------------------------------------------
# Reading
# --------------------------------------------------------------------------------------------------------------------


def read_samples(file: Path | EncodedImage) -> Samples:
    """Reads an image file's own numbers. Raises what Pillow and numpy raise, and UnfitImage with the reason."""
    if isinstance(file, EncodedImage) and file.samples is not None:
        return file.samples()
    if is_array_file(file):
        return _array_samples(file)
    try:
        with Image.open(content_of(file), formats=image_formats()) as image:
            if has_deep_colour(image):
                return _deep_colour(file, image)
            return _picture_samples(image)
    except UnidentifiedImageError:
        if not _is_tiff(file):
            raise
    return _tiff_samples(file)


def _picture_samples(image: Image.Image) -> Samples:
    """The numbers of an image file that Pillow keeps all bits of."""
    name, deep_grey, mode = image.format or "", has_deep_grey(image), image.mode
    image = ImageOps.exif_transpose(image)
    if deep_grey:
        values = np.asarray(image).astype(np.uint16)
        return Samples(values[:, :, None], MAX_16_BIT, None, "16-bit grey", name)
    if mode in ("I", "F"):
        words = "32-bit float grey" if mode == "F" else "32-bit integer grey"
        return Samples(np.asarray(image)[:, :, None], None, None, words, name)
    bits = "1-bit" if mode == "1" else "8-bit"
    words = {"1": "grey", "L": "grey", "LA": "grey", "P": "palette", "PA": "palette", "CMYK": "CMYK"}.get(
        mode, "colour"
    )
    is_grey, has_alpha = mode in ("1", "L", "LA", "La"), image.has_transparency_data
    wanted = MODES[(1 if is_grey else 3) + has_alpha]
    values = np.asarray(in_mode(image, wanted, "white"))
    values = values.reshape(*values.shape[:2], -1)
    alpha = values[:, :, -1] / 255 if has_alpha else None
    opacity = " with opacity" if has_alpha else ""
    return Samples(values[:, :, : 1 if is_grey else 3], 255, alpha, f"{bits} {words}{opacity}", name)


def _deep_colour(file: Path | EncodedImage, image: Image.Image) -> Samples:
    """The numbers of an image file in colour with 16 bits a sample, of which Pillow keeps 8."""
    if image.format == "TIFF":
        return _tiff_samples(file)
    if image.format != "PNG":
        raise UnfitImage(f"16 bits a sample of colour cannot be read from {image.format} files; convert it to PNG")
    decoder = _extra("imagecodecs")
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    source = content_of(file)
    content = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    try:
        decoded = decoder.png_decode(content)
    except RuntimeError as error:  # of libpng
        raise ValueError(str(error)) from None
    values = _upright(decoded.reshape(*decoded.shape[:2], -1), turned)
    has_alpha = values.shape[2] in (2, 4)
    alpha = values[:, :, -1] / MAX_16_BIT if has_alpha else None
    bands = values[:, :, : values.shape[2] - has_alpha]
    words = f"16-bit {'grey' if bands.shape[2] == 1 else 'colour'}{' with opacity' if has_alpha else ''}"
    return Samples(bands, MAX_16_BIT, alpha, words, "PNG")


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The numbers of an image file (H, W, n), rotated upright by its EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _is_tiff(file: Path | EncodedImage) -> bool:
    """Whether an image file begins as TIFF files do, also BigTIFF."""
    source = content_of(file)
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(4)
    else:
        head = source.read(4)
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _extra(package: str) -> Any:
    """The package that reads what Pillow does not of an image file; UnfitImage without it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UnfitImage(
            "its samples are such as Pillow does not keep; pip install 'ganlab[images]', or convert it"
        ) from None


def _tiff_samples(file: Path | EncodedImage) -> Samples:
    """The numbers of the first image of a TIFF file, read by tifffile."""
    tifffile = _extra("tifffile")
    try:
        with tifffile.TiffFile(content_of(file)) as opened:
            page = opened.pages[0]
            if page.imagelength * page.imagewidth > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            values, axes, kind = page.asarray(), page.axes, page.photometric.name
            extra = tuple(page.extrasamples)
    except (RuntimeError, IndexError, AttributeError, tifffile.TiffFileError) as error:
        raise ValueError(str(error)) from None
    if axes not in ("YX", "YXS", "SYX"):
        raise UnfitImage(f"has the axes {axes}; wanted one image, with its samples as channels")
    values = values.reshape(*values.shape, 1) if axes == "YX" else values
    values = np.moveaxis(values, 0, -1) if axes == "SYX" else values
    if kind not in ("RGB", "MINISBLACK"):
        raise UnfitImage(f"its samples are {kind}, which is read with 8 bits only; convert it to RGB or grey")
    return _numbers(
        values, "TIFF", is_array=kind != "RGB" and values.shape[2] > 1, has_alpha=kind == "RGB" and bool(extra)
    )


def _array_samples(file: Path | EncodedImage) -> Samples:
    """The numbers of an .npy file: an array (H, W) or, with channels, (H, W, C) or (C, H, W)."""
    source = content_of(file)
    content = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (TypeError, RuntimeError, MemoryError, tokenize.TokenError) as error:  # of a header that is damaged
        raise ValueError(one_line(error)) from None
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or not array.size:
        shape = array.shape if isinstance(array, np.ndarray) else "several arrays"
        raise UnfitImage(f"its shape is {shape}; wanted (height, width) or (height, width, channels)")
    return _numbers(array if array.ndim == 3 else array[:, :, None], "NPY", is_array=True)


def _numbers(values: NDArray[Any], name: str, is_array: bool, has_alpha: bool = False) -> Samples:
    """The samples of an image file that was read as an array (H, W, n) of numbers."""
    dtype = values.dtype
    if dtype.kind == "b":
        values = values.astype(np.uint8) * 255
    elif dtype.kind not in "uif":
        raise UnfitImage(f"its values are {dtype}; wanted real numbers")
    white = {1: 255, 2: MAX_16_BIT}.get(values.dtype.itemsize) if values.dtype.kind == "u" else None
    kind = {"u": "unsigned", "i": "integer", "f": "float", "b": "1-bit"}[dtype.kind]
    bits = {"u": f"{8 * dtype.itemsize}-bit", "b": "1-bit"}.get(dtype.kind, f"{8 * dtype.itemsize}-bit {kind}")
    alpha = None
    if has_alpha:
        alpha = values[:, :, 3] / (white or 1)
        values = values[:, :, :3]
    channels = values.shape[2]
    words = {1: "grey"}.get(channels, f"array of shape {values.shape}" if is_array else "colour")
    words = f"array with {min(channels, values.shape[0])} channels" if is_array and channels > 1 else words
    return Samples(values, white, alpha, f"{bits} {words}{' with opacity' if has_alpha else ''}", name, is_array)


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
    if form.clip:
        values = values.clip(black, white)
    elif (lowest := values.min()) < black or values.max() > white:
        outside = lowest if lowest < black else values.max()
        raise UnfitImage(
            f"has the value {outside:g}, outside range = [{black:g}, {white:g}]; widen the range, or set clip = true"
        )
    low, high = (-1.0, 1.0) if form.dtype == "float32" else (0.0, float(WHITE[form.dtype]))
    return low + (values.astype(np.float64) - black) * ((high - low) / (white - black)), low, high


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
        return _as_channels_last(made, channels)
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


def _as_channels_last(made: NDArray[Any], channels: int) -> NDArray[Any]:
    """An array of an image file as (H, W, C), where it is that already, or (C, H, W)."""
    last, first = made.shape[2] == channels, made.shape[0] == channels
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
