"""Reading of one image file to its own numbers, as they are in it: (H, W, n) with opacity apart, upright.

Decisions:
- Pillow keeps 8 bits of colour with 16, so such PNG files are decoded by imagecodecs, and TIFF files by tifffile. Grey
  with any number of bits needs Pillow only, but where it would read other numbers.
- Which bands of a TIFF file are opacity is said by the file: see `tiff_tags`. Any further bands are an array's.
"""

from __future__ import annotations

import importlib
import io
import tokenize
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ganlab.data.image_file import (
    MAX_16_BIT,
    MODES,
    EncodedImage,
    MissingPackage,
    Samples,
    UnfitImage,
    UnreadableImage,
    content_of,
    image_extensions,
    naming_image,
    opened_image,
)
from ganlab.data.opened_image import (
    deep_grey_values,
    has_deep_colour,
    has_deep_grey,
    in_mode,
    opaque_where,
    upright,
)
from ganlab.data.tiff_tags import ASSOCIATED, UNASSOCIATED, bits_of, is_tiff, white_is_zero
from ganlab.utils.errors import one_line

ARRAY = ".npy"
"""The extension of a file that holds an array of numbers."""


def read_samples(file: Path | EncodedImage) -> Samples:
    """Reads an image file's own numbers. Raises what Pillow and numpy raise, and UnfitImage with the reason."""
    if isinstance(file, EncodedImage) and file.samples is not None:
        return file.samples()
    if is_array_file(file):
        return _array_samples(file)
    with opened_image(file) as image:
        if image is None:
            return _tiff_samples(file)
        if has_deep_grey(image) or image.mode in ("I", "F") or not has_deep_colour(image):
            return _picture_samples(image)
        return _deep_colour(file, image)


def _picture_samples(image: Image.Image) -> Samples:
    """The numbers of an image file that Pillow keeps all bits of."""
    name, mode = image.format or "", image.mode
    if has_deep_grey(image):
        values = deep_grey_values(image)
        opaque = opaque_where(image, values)
        alpha = None if opaque is None else opaque.astype(np.float64)
        words = "16-bit grey" if alpha is None else "16-bit grey with opacity"
        return Samples(values[:, :, None], MAX_16_BIT, alpha, words, name)
    if mode in ("I", "F"):
        _refuse_negative(white_is_zero(image))
        is_short = mode == "I" and bits_of(image) == 16  # asked first, as the tags are lost where it is rotated
        values = np.asarray(upright(image))[:, :, None]
        # Pillow makes 32 bits of the 16 of signed integers.
        return _numbers(values.astype(np.int16) if is_short else values, name, is_array=False)
    image = upright(image)
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
        return _tiff_samples(file, image.getexif().get(ExifTags.Base.Orientation, 1))
    if image.format != "PNG":
        raise UnfitImage(f"16 bits a sample of colour cannot be read from {image.format} files; convert it to PNG")
    decoder = _extra("imagecodecs")
    turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    with content_of(file) as stream:
        content = stream.read()
    try:
        decoded = decoder.png_decode(content)
    except RuntimeError as error:  # of libpng
        raise ValueError(str(error)) from None
    values = _rotated(decoded.reshape(*decoded.shape[:2], -1), turned)
    has_alpha = values.shape[2] in (2, 4)
    alpha = values[:, :, -1] / MAX_16_BIT if has_alpha else None
    bands = values[:, :, : values.shape[2] - has_alpha]
    words = f"16-bit {'grey' if bands.shape[2] == 1 else 'colour'}{' with opacity' if has_alpha else ''}"
    return Samples(bands, MAX_16_BIT, alpha, words, "PNG")


def _rotated(values: NDArray[Any], orientation: object) -> NDArray[Any]:
    """The numbers of an image file (H, W, n), rotated upright by its EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _extra(package: str) -> Any:
    """The package that reads what Pillow does not of an image file; MissingPackage without it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingPackage(
            "its samples are such as Pillow does not keep; pip install 'ganlab[images]', or convert it"
        ) from None


def _tiff_samples(file: Path | EncodedImage, orientation: object = None) -> Samples:
    """The numbers of a TIFF file's first image, read by tifffile; its own tag is the orientation that is not given."""
    tifffile = _extra("tifffile")
    try:
        with content_of(file) as stream, tifffile.TiffFile(stream) as opened:
            page = opened.pages[0]
            _refuse_bomb(page)
            values, axes, kind, bits = page.asarray(), page.axes, page.photometric.name, page.bitspersample
            extra, orientation = tuple(page.extrasamples), orientation or page.tags.valueof(274)
    except (RuntimeError, IndexError, AttributeError, tifffile.TiffFileError) as error:
        raise ValueError(str(error)) from None
    if axes not in ("YX", "YXS", "SYX"):
        raise UnfitImage(f"has the axes {axes}; wanted one image, with its samples as channels")
    values = values.reshape(*values.shape, 1) if axes == "YX" else values
    values = _rotated(np.moveaxis(values, 0, -1) if axes == "SYX" else values, orientation)
    if kind not in ("RGB", "MINISBLACK", "MINISWHITE"):
        raise UnfitImage(f"its samples are {kind}, which is read with 8 bits only; convert it to RGB or grey")
    count, colours = values.shape[2], 3 if kind == "RGB" else 1
    if kind == "MINISWHITE":
        _refuse_negative(count > 1 or values.dtype.kind != "u")
        values = values.dtype.type(2**bits - 1) - values
    if values.dtype == np.uint8 and bits in range(1, 8):  # as Pillow does
        values = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
    has_alpha = count == colours + 1 and extra in ((ASSOCIATED,), (UNASSOCIATED,))
    if has_alpha and extra == (ASSOCIATED,):
        values = _unassociated(values)
    return _numbers(values, "TIFF", is_array=count > 1 and count != colours + has_alpha, has_alpha=has_alpha)


def _refuse_bomb(page: Any) -> None:
    """Refuses a page of a TIFF file, opened by tifffile, that would take more memory than any picture does."""
    most = Image.MAX_IMAGE_PIXELS
    if most is None:
        return
    if page.imagelength * page.imagewidth > most:
        raise Image.DecompressionBombError
    if page.nbytes > 8 * most:  # those of the largest picture in four bands of 16 bits
        raise UnfitImage(
            f"refused as a decompression bomb: {page.imagewidth}x{page.imagelength} pixels of {page.samplesperpixel} "
            f"samples of {page.bitspersample} bits; wanted at most {8 * most:,} bytes"
        )


def _refuse_negative(is_negative: bool) -> None:
    """Refuses grey of a TIFF file in which 0 is white, and no value is said to be black."""
    if is_negative:
        raise UnfitImage("its samples are MINISWHITE, which is read with 8 or 16 bits of grey only; convert it")


def _unassociated(values: NDArray[Any]) -> NDArray[Any]:
    """The numbers of an image file (H, W, n), whose colours are multiplied by the last band, opacity, without that."""
    opacity, most = values[:, :, -1:].astype(np.float64), _full(values.dtype)
    colours = np.divide(
        values[:, :, :-1] * float(most), opacity, out=np.zeros(values[:, :, :-1].shape), where=opacity > 0
    )
    colours = colours if values.dtype.kind == "f" else np.rint(colours.clip(0, most))
    return np.concatenate([colours.astype(values.dtype), values[:, :, -1:]], axis=2)


def _full(dtype: np.dtype[Any]) -> int:
    """The value of full opacity: the largest of a type of integers, and 1 of others."""
    return int(np.iinfo(dtype).max) if dtype.kind in "ui" else 1


def _array_samples(file: Path | EncodedImage) -> Samples:
    """The numbers of an .npy file: an array (H, W) or, with channels, (H, W, C) or (C, H, W)."""
    with content_of(file) as stream:
        content = stream.read()
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
        alpha = values[:, :, -1] / _full(values.dtype)
        values = values[:, :, :-1]
    channels = values.shape[2]
    words = {1: "grey"}.get(channels, f"array of shape {values.shape}" if is_array else "colour")
    words = f"array with {min(channels, values.shape[0])} channels" if is_array and channels > 1 else words
    return Samples(values, white, alpha, f"{bits} {words}{' with opacity' if has_alpha else ''}", name, is_array)


def is_array_file(file: Path | EncodedImage) -> bool:
    """Whether an image file is an .npy file, by its name."""
    name = file.name if isinstance(file, Path) else str(file)
    return name.lower().endswith(ARRAY)


def is_misread_file(file: Path | EncodedImage) -> bool:
    """Whether an image file is a TIFF file of which Pillow does not give the numbers; False if it cannot be read."""
    ending = PurePath(str(file)).suffix.lower()
    if ending not in (".tif", ".tiff") and ending in image_extensions():
        return False  # without opening it once more
    try:
        with naming_image(file):
            with content_of(file) as stream:
                if not is_tiff(stream.read(4)):
                    return False
            with opened_image(file) as image:
                return image is None
    except UnreadableImage:
        return False
