"""Plain PNG files decoded without opening them with Pillow: held against Pillow, for whole, odd and damaged files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ganlab.data.image_file import decode_image
from ganlab.data.plain_png import SMALL, decode_plain_png, read_plain_png
from ganlab.viz.image_grid import encode_pixels


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)


SMOOTH = np.add.outer(np.arange(7), 3 * np.arange(9)).astype(np.uint8)  # Pillow filters its rows


@pytest.mark.parametrize(
    "pixels", [noise(5, 7), noise(6, 4, 3), SMOOTH, noise(1, 1)], ids=["grey", "RGB", "rows", "one"]
)
def test_plain_files_are_decoded_as_pillow_does(pixels: np.ndarray) -> None:
    for data in (png(pixels), png(pixels, dpi=(72, 72)), encode_pixels(pixels.reshape(*pixels.shape[:2], -1))):
        found = decode_plain_png(data)
        assert found is not None
        assert np.array_equal(found, by_pillow(data))


def test_what_needs_judgement_is_left_to_pillow(tmp_path: Path) -> None:
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6  # rotated by a quarter
    text.add_text("Raw profile type exif", "")
    rgb = noise(4, 6, 3)
    palette = io.BytesIO()
    Image.fromarray(rgb).quantize(4).save(palette, "PNG")
    left = [
        *(png(rgb, exif=exif), png(rgb, pnginfo=text), png(rgb, transparency=(1, 2, 3)), png(noise(4, 6, 4))),
        *(png(noise(4, 6).astype(np.uint16)), palette.getvalue(), b"", b"no picture", png(rgb)[:40]),
    ]
    assert [decode_plain_png(data) for data in left] == [None] * len(left)
    (tmp_path / "turned.png").write_bytes(left[0])
    assert np.array_equal(
        decode_image(tmp_path / "turned.png", None, None, None).pixels, np.rot90(rgb, -1).transpose(2, 0, 1)
    )
    (tmp_path / "large.png").write_bytes(png(noise(300, 300)))
    assert (tmp_path / "large.png").stat().st_size > SMALL
    assert read_plain_png(tmp_path / "large.png") is None
    assert read_plain_png(tmp_path / "none.png") is None


def test_no_damage_is_overlooked() -> None:
    """A file with any of its bytes changed is left to Pillow, and so is one that is cut short anywhere."""
    data = png(SMOOTH)
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        # The checksum of the last chunk, which has no content, is not looked at.
        assert decode_plain_png(changed) is None or place >= len(data) - 12, place
        assert decode_plain_png(data[:place]) is None or place >= len(data) - 4, place
