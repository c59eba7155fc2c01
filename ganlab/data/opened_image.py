"""What becomes of an image that Pillow has opened: how many bits its samples have, its way up, its mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, TiffImagePlugin

from ganlab.data.tiff_tags import white_is_zero

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is rotated upright, by its EXIF orientation."""


def upright(image: Image.Image) -> Image.Image:
    """An opened image, decoded and rotated upright by its EXIF orientation.

    As ImageOps.exif_transpose, which writes the EXIF data anew too, and fails for values of other types than the usual.
    """
    image.load()  # Pillow rotates TIFF files here, and removes their orientation
    turned = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turned is None else image.transpose(turned)


def in_mode(image: Image.Image, mode: str, background: str) -> Image.Image:
    """A Pillow image with 8 bits a sample in one of `MODES`; its opacity is kept, or laid on a colour."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if "A" in mode:
            return image if mode == "RGBA" else image.convert(mode)
        image = Image.alpha_composite(Image.new("RGBA", image.size, background_colour(background)), image)
    # Palette and CMYK images are converted to grey by way of RGB.
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def background_colour(name: str) -> tuple[int, int, int]:
    """The colour that an image file's transparency is laid on, 0 to 255 each; ValueError for an unknown name."""
    return ImageColor.getrgb(name)[:3]


def has_deep_grey(image: Image.Image) -> bool:
    """Whether the file of an opened image in grey has 16 bits a sample, which Pillow keeps."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def deep_grey_values(image: Image.Image) -> NDArray[np.uint16]:
    """The numbers (H, W) of an opened image in grey with 16 bits a sample, upright: 0 is black, and 65535 white."""
    is_negative = white_is_zero(image)  # asked first: the tags are lost where it is rotated
    values = np.asarray(upright(image)).astype(np.uint16)
    return np.iinfo(np.uint16).max - values if is_negative else values


def opaque_where(image: Image.Image, values: NDArray[np.integer]) -> NDArray[np.bool_] | None:
    """Where an opened image in grey with 16 bits a sample is opaque: not at the value that its file has transparent."""
    transparent = image.info.get("transparency")
    return None if not isinstance(transparent, int) else values != transparent


def has_deep_colour(image: Image.Image) -> bool:
    """Whether the file of an opened, not yet decoded image in colour has 16 bits a sample: Pillow keeps the upper 8."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, ())
        return max(bits if isinstance(bits, tuple) else (bits,), default=8) > 8
    tiles = getattr(image, "tile", [])
    if image.format not in ("PNG", "PPM") or not tiles:
        return False
    arguments = tiles[0][3]
    if image.format == "PNG":  # the raw mode, such as "RGB;16B"; Pillow keeps all bits of "I;16B", which is grey
        return ";16" in str(arguments) and not has_deep_grey(image)
    # The raw mode and the largest value that the file declares, of which Pillow makes 255.
    return isinstance(arguments, tuple) and isinstance(arguments[-1], int) and arguments[-1] > 255
