"""What the tags of a TIFF file say of it where Pillow reads it otherwise, without a word.

Decisions:
- Opacity is what the file calls opacity: one band more than its colours, which ExtraSamples says is alpha. Any other
  band, such as near infrared, is one of an array; Pillow drops it or takes it for opacity.
- Smaller copies and masks of the first image (NewSubfileType) are no pages.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin

ASSOCIATED, UNASSOCIATED = 1, 2
"""The values of ExtraSamples that stand for opacity; by associated opacity the colours have been multiplied."""

_NEW_SUBFILE_TYPE = 254
_REDUCED_OR_MASK = 0b101
_UNSIGNED, _SIGNED = 1, 2  # of SampleFormat


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with these four bytes or more is a TIFF file, also BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_misread(image: Image.Image) -> bool:
    """Whether an opened, not yet decoded image is a TIFF file of which Pillow would give other numbers than it has."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and (_has_further_bands(image) or _has_other_numbers(image))


def white_is_zero(image: Image.Image) -> bool:
    """Whether 0 is white in an opened TIFF file. Of 8 bits and fewer Pillow makes 0 black, of others it does not."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def bits_of(image: Image.Image) -> int | None:
    """The number of bits of an opened TIFF file's first sample; None for another file."""
    tags = getattr(image, "tag_v2", None)
    return None if tags is None else _first(tags, TiffImagePlugin.BITSPERSAMPLE, 1)


def count_pages(stream: BinaryIO) -> int:
    """The number of images in a TIFF file, without smaller copies and masks. Raises what Pillow raises."""
    at = stream.tell()  # where Pillow will read on
    stream.seek(0)
    head = stream.read(8)
    if head[2:3] == b"+" or head[3:4] == b"+":  # BigTIFF
        head += stream.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    seen: set[int] = set()  # the offsets of damaged files may form a ring
    count = 0
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        stream.seek(tags.next)
        tags.load(stream)
        is_image = TiffImagePlugin.IMAGEWIDTH in tags and TiffImagePlugin.IMAGELENGTH in tags
        count += len(seen) == 1 or (is_image and not _first(tags, _NEW_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK)
    stream.seek(at)
    return count


def _has_further_bands(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether an opened TIFF file has more bands than colours and opacity."""
    tags = image.tag_v2
    colours = {0: 1, 1: 1, 2: 3}.get(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0))
    count = _first(tags, TiffImagePlugin.SAMPLESPERPIXEL, 1)
    if colours is None or count <= colours:
        return False
    return count > colours + 1 or _first(tags, TiffImagePlugin.EXTRASAMPLES, 0) not in (ASSOCIATED, UNASSOCIATED)


def _has_other_numbers(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow takes an opened TIFF file's numbers for others: with the wrong sign, or order of bytes."""
    tags = image.tag_v2
    sample_format = _first(tags, TiffImagePlugin.SAMPLEFORMAT, _UNSIGNED)
    if image.mode == "L":
        return sample_format == _SIGNED
    if image.mode not in ("I", "F"):
        return False
    if image.mode == "I" and sample_format == _UNSIGNED:  # 32 bits, which Pillow takes for signed ones
        return True
    # Pillow exchanges the bytes of compressed numbers, which libtiff has already given in the machine's order.
    is_foreign = (tags.prefix == b"MM") == (sys.byteorder == "little")
    return is_foreign and image.info.get("compression") != "raw"


def _first(tags: Any, tag: int, default: int) -> int:
    """A tag's value, or the first of its values; the default where it is missing or no whole number."""
    value = tags.get(tag, default)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default
