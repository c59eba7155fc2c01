"""What an image file becomes, held against plain computations with Pillow and NumPy, format by format."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlab import ComponentError, Places, decode_image
from image_files import built, hwc, noise, save


@pytest.mark.parametrize("extension", ["png", "PNG", "bmp", "tif", "TIFF", "ppm"])
def test_lossless_formats_keep_every_pixel(extension: str, places: Places, folder: Path) -> None:
    pixels = save(folder / f"a.{extension}")
    assert np.array_equal(hwc(built(places))[0], pixels)


@pytest.mark.parametrize("extension", ["jpg", "JPEG", "webp", "gif"])
def test_other_formats_are_what_pillow_reads(extension: str, places: Places, folder: Path) -> None:
    save(folder / f"a.{extension}")
    expected = np.asarray(Image.open(folder / f"a.{extension}").convert("RGB"))
    assert np.array_equal(hwc(built(places))[0], expected)


def test_grey_becomes_three_equal_channels_and_stays_grey_in_one(places: Places, folder: Path) -> None:
    pixels = save(folder / "a.pgm", noise(8, 8))
    assert np.array_equal(built(places)[0], np.stack([pixels] * 3))
    assert np.array_equal(built(places, channels=1)[0, 0], pixels)


def test_colour_becomes_grey_by_itu_601(places: Places, folder: Path) -> None:
    pixels = save(folder / "a.png")
    assert np.abs(built(places, channels=1)[0, 0] - pixels @ [0.299, 0.587, 0.114]).max() <= 1


def test_transparency_lies_on_white(places: Places, folder: Path) -> None:
    pixels = save(folder / "a.png", noise(8, 8, 4)).astype(float)
    alpha = pixels[..., 3:] / 255
    assert np.abs(hwc(built(places))[0] - (pixels[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1


def test_a_transparent_palette_colour_is_white(places: Places, folder: Path) -> None:
    indices = (np.arange(64, dtype=np.uint8) % 4).reshape(8, 8)
    palette = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0], [0, 0, 200]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette(palette.flatten().tolist())
    image.save(folder / "a.png")
    image.save(folder / "b.png", transparency=1)
    images = hwc(built(places))
    assert np.array_equal(images[0], palette[indices])
    palette[1] = 255
    assert np.array_equal(images[1], palette[indices])


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled(extension: str, places: Places, folder: Path) -> None:
    values = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    if extension == "pgm":
        (folder / "a.pgm").write_bytes(b"P5 8 8 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(folder / f"a.{extension}")
    assert np.array_equal(built(places, channels=1)[0, 0], np.rint(values * (255 / 65535)))


def test_pixels_without_a_range_are_refused(places: Places, folder: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(folder / "a.tif")
    with pytest.raises(ComponentError, match=r"a\.tif: .*no value stands for white"):
        built(places)


# What each EXIF orientation asks for, in NumPy's words.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, places: Places, folder: Path) -> None:
    pixels = noise(8, 8, 3)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(folder / "a.png", exif=exif)
    assert np.array_equal(hwc(built(places))[0], UPRIGHT[orientation](pixels))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "CMYK"])
def test_a_turned_tiff_that_is_not_compressed_is_what_a_stream_of_it_is(
    mode: str, orientation: int, folder: Path
) -> None:
    """By its path Pillow would map it into memory with its width and height exchanged."""
    height, width = 6, 10
    whole = np.arange(height * width * len(Image.new(mode, (1, 1)).getbands())).astype("u2" if mode == "I;16" else "u1")
    values = whole.reshape(height, width, -1)
    exif = Image.Exif()
    exif[274] = orientation
    Image.frombytes(mode, (width, height), values.tobytes()).save(folder / "a.tif", exif=exif)
    with Image.open(io.BytesIO((folder / "a.tif").read_bytes())) as image:
        read = np.asarray(image).reshape(image.height, image.width, -1)
        plain = read // 257 if mode == "I;16" else np.asarray(image.convert("RGB")) if mode == "CMYK" else read
    assert np.array_equal(read, UPRIGHT[orientation](values))
    channels = plain.shape[2]
    assert np.array_equal(decode_image(folder / "a.tif", None, channels, None).pixels.transpose(1, 2, 0), plain)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_a_turned_picture_with_unusual_exif_is_read(format: str, places: Places, folder: Path) -> None:
    """Its resolution is text, which Pillow cannot write again."""
    entries = [struct.pack(">HHIHH", 274, 3, 1, 6, 0), struct.pack(">HHI4s", 282, 2, 3, b"72\0\0")]
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    Image.fromarray(noise(8, 16, 3)).save(folder / f"a.{format.lower()}", format, exif=exif)
    with Image.open(folder / f"a.{format.lower()}") as image:
        expected = np.rot90(np.asarray(image.convert("RGB")), -1)
    assert np.array_equal(hwc(built(places, size="original"))[0], expected)
    assert np.array_equal(hwc(built(places, size="original", dtype="uint16"))[0], expected.astype(int) * 257)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (31, 97), (8, 128), (5, 4), (6, 6)])
def test_resized_by_the_shorter_side_then_cut(shape: tuple[int, int], places: Places, folder: Path) -> None:
    save(folder / "a.png", noise(*shape, 3))
    image = Image.open(folder / "a.png")
    scale = 16 / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    whole = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - 16) // 2, (height - 16) // 2
    expected = np.asarray(whole.crop((left, top, left + 16, top + 16)))
    assert np.array_equal(hwc(built(places, size=16))[0], expected)


def test_a_long_thin_image_is_cut_before_it_is_resized(places: Places, folder: Path) -> None:
    pixels = np.zeros((1, 60_000, 3), np.uint8)
    pixels[:, 29_990:30_010] = 200  # the middle, all that can be seen in the end
    save(folder / "a.png", pixels)
    # Whole, it would become 60 million pixels wide and 1,000 high.
    assert (built(places, size=1000) == 200).all()
