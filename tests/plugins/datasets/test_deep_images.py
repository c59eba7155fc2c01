"""Images with 16 bits a sample: fewer bits stored in 16 are refused, others rounded with a warning, in every format."""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganlab import ComponentError, Places
from image_files import built, noise, save

Command = Callable[..., tuple[int, str, str]]
Write = Callable[[Path, np.ndarray], Path]


def grey_png(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def grey_tiff(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values).save(path.with_suffix(".tif"))
    return path.with_suffix(".tif")


def grey_pgm(path: Path, values: np.ndarray) -> Path:
    height, width = values.shape
    path.with_suffix(".pgm").write_bytes(f"P5 {width} {height} 65535\n".encode() + values.astype(">u2").tobytes())
    return path.with_suffix(".pgm")


def colours(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, axis=2)


def colour_png(path: Path, values: np.ndarray, kind: int = 2) -> Path:
    """Pillow writes none, so this does. With kind 6 there is opacity too, all of it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape
    bands = [values] * 3 + ([np.full_like(values, 65535)] if kind == 6 else [])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack(bands, axis=2))
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path.with_suffix(".png")


def opaque_png(path: Path, values: np.ndarray) -> Path:
    return colour_png(path, values, kind=6)


def colour_tiff(path: Path, values: np.ndarray) -> Path:
    height, width = values.shape
    pixels = colours(values).astype("<u2").tobytes()
    after = 8 + 2 + 9 * 12 + 4  # the header, and nine entries of the directory; then the bits of the three samples
    entries = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, after), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, after + 6), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels))),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 9) + directory + struct.pack("<I", 0)
    path.with_suffix(".tif").write_bytes(head + struct.pack("<HHH", 16, 16, 16) + pixels)
    return path.with_suffix(".tif")


def colour_ppm(path: Path, values: np.ndarray) -> Path:
    height, width = values.shape
    content = colours(values).astype(">u2").tobytes()
    path.with_suffix(".ppm").write_bytes(f"P6 {width} {height} 65535\n".encode() + content)
    return path.with_suffix(".ppm")


GREY: list[Write] = [grey_png, grey_tiff, grey_pgm]
COLOUR: list[Write] = [colour_png, opaque_png, colour_tiff, colour_ppm]


def ramp(largest: int) -> np.ndarray:
    return np.linspace(0, largest, 64).round().astype(np.uint16).reshape(8, 8)


def test_the_files_hold_what_they_should(tmp_path: Path) -> None:
    for write in (*GREY, *COLOUR):
        with Image.open(write(tmp_path / write.__name__, ramp(65535))) as image:
            assert image.size == (8, 8)
            assert image.mode in ("I;16", "I", "RGB", "RGBA")


@pytest.mark.parametrize("write", [*GREY, *COLOUR])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_stored_in_sixteen_are_refused(bits: int, write: Write, places: Places, folder: Path) -> None:
    largest = 2**bits - 1
    first = write(folder / "a", ramp(largest))
    write(folder / "b", ramp(largest // 2))
    if write is colour_ppm:  # which Pillow rounds to 8 bits
        largest = 257 * round(largest / 257)
    for options in ({}, {"channels": 1}, {"size": "original"}, {"skip_unreadable": True}):
        with pytest.raises(ComponentError) as caught:
            built(places, **options)
        assert str(caught.value) == (
            f"{first} and 1 more of 2 files have 16 bits a sample, but no value above {largest:,}, which becomes level "
            f"{(largest + 128) // 257} of 255; spread the values over 0 to 65,535, or write 8 bits a sample, "
            f"or, of an image_folder, set range = [0, {next(2**n for n in range(17) if 2**n > largest) - 1}]"
        )
    assert list(places.cache.rglob("*.npy*")) == []


@pytest.mark.parametrize("write", [*GREY, *COLOUR])
def test_sixteen_bits_are_rounded_and_a_line_says_so(write: Write, places: Places, folder: Path) -> None:
    first = write(folder / "a", ramp(65535))
    save(folder / "b.png")
    for _ in range(2):  # decoded, and then from the cache
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = built(places)
        assert [str(warning.message) for warning in caught] == [
            f"{first} has 16 bits a sample, with values up to 65,535 of 65,535: rounded to 8 bits, levels 0 to 255 of "
            "255"
        ]
    exact = ramp(65535) / 257
    assert np.abs(found[0].astype(float) - exact).max() <= (0.5 if write in GREY else 1)


@pytest.mark.parametrize("write", [*GREY, *COLOUR])
def test_a_bright_file_does_not_hide_dark_ones(write: Write, places: Places, folder: Path) -> None:
    """Each file is judged by itself: half of them dark is refused, fewer are named in the warning."""
    write(folder / "a", ramp(65535))
    dark = write(folder / "b", ramp(4095))
    write(folder / "c", ramp(2000))
    largest = 257 * round(4095 / 257) if write is colour_ppm else 4095
    with pytest.raises(ComponentError) as caught:
        built(places)
    assert str(caught.value) == (
        f"{dark} and 1 more of 3 files have 16 bits a sample, but no value above {largest:,}, which becomes level 16 "
        "of 255; spread the values over 0 to 65,535, or write 8 bits a sample, or, of an image_folder, set "
        f"range = [0, {8191 if largest > 4095 else 4095}]"
    )
    write(folder / "c", ramp(30_000))
    for _ in range(2):  # decoded, and then from the cache
        with pytest.warns(UserWarning, match="rounded to 8 bits") as warned:
            built(places)
        assert str(warned[0].message).endswith(
            f"levels 0 to 255 of 255; {dark} has no value above {largest:,}, which becomes level 16 of 255"
        )


def test_a_dark_file_among_those_of_8_bits_is_named_and_taken(places: Places, folder: Path) -> None:
    """Half of all files would have to be dark, not half of those of 16 bits."""
    dark = grey_png(folder / "a", ramp(4095))
    for name in "bc":
        Image.fromarray(np.full((16, 16), 99, dtype=np.uint8)).save(folder / f"{name}.png")
    with pytest.warns(UserWarning, match="rounded to 8 bits") as warned:
        assert len(built(places)) == 3
    assert f"{dark} has no value above 4,095" in str(warned[0].message)


@pytest.mark.parametrize("write", GREY)
def test_black_files_are_not_taken_for_dark_ones(write: Write, places: Places, folder: Path) -> None:
    first = write(folder / "a", ramp(0))
    write(folder / "b", ramp(0))
    write(folder / "c", ramp(65535))
    with pytest.warns(UserWarning, match="rounded") as warned:
        assert built(places)[:2].max() == 0
    assert str(warned[0].message) == (
        f"{first} and 2 more of 3 files have 16 bits a sample, with values up to 65,535 of 65,535: rounded to 8 bits, "
        "levels 0 to 255 of 255"
    )


def test_eight_bits_are_taken_without_a_word(places: Places, folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    save(folder / "a.png", noise(8, 8, 3) // 32)
    save(folder / "b.tif", noise(8, 8) // 32)
    save(folder / "c.bmp")
    Image.fromarray(noise(8, 8, 3)).save(folder / "d.jp", "JPEG")
    (folder / "d.jp").rename(folder / "d.jpe")
    Image.fromarray(noise(8, 8)).convert("1").save(folder / "e.png")
    assert len(built(places)) == 5
    assert len(recwarn) == 0


def test_a_range_that_the_file_declares_is_believed(places: Places, folder: Path) -> None:
    """A PGM says what its largest value is; Pillow makes the full range of it."""
    (folder / "a.pgm").write_bytes(b"P5 8 8 4095\n" + ramp(4095).astype(">u2").tobytes())
    with pytest.warns(UserWarning, match="levels 0 to 255 of 255"):
        found = built(places, channels=1)
    assert np.abs(found[0, 0] - ramp(4095) / 4095 * 255).max() <= 1


@pytest.mark.parametrize("kind", ["I", "F", "pfm"])
def test_numbers_without_a_range_are_refused(kind: str, places: Places, folder: Path) -> None:
    bad = folder / ("a.pfm" if kind == "pfm" else "a.tif")
    mode = "F" if kind == "pfm" else kind
    Image.fromarray(np.linspace(0, 1000, 64).reshape(8, 8).astype("i4" if mode == "I" else "f4")).save(bad)
    with pytest.raises(ComponentError) as caught:
        built(places)
    kind = "integers of 32 bits" if kind == "I" else "floating-point numbers"
    assert str(caught.value) == (
        f"{bad}: its samples are {kind}, for which no value stands for white; set range to the values of black and "
        "white, or convert it to 8 or 16 bits a sample"
    )


def test_training_and_scoring_refuse_them_in_one_line(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    for number in range(8):
        grey_png(tmp_path / "set" / f"{number}", ramp(4095))
    table["dataset"] = {"name": "image_folder", "path": str(tmp_path / "set"), "size": 8, "channels": 1}
    code, _, said = ganlab("run", write(table), "--out", tmp_path / "r")
    assert code == 2
    (line,) = said.splitlines()
    assert "0.png and 7 more of 8 files have 16 bits a sample, but no value above 4,095, which becomes" in line
    code, _, said = ganlab("score", tmp_path / "set", "--against", "digits", "--features", "classifier")
    assert code == 2
    (line,) = said.splitlines()
    assert "level 16 of 255" in line


@pytest.mark.parametrize(
    ("images", "range_"),
    [
        (np.stack([ramp(4095)] * 4)[..., None], "uint16 (4, 8, 8, 1) from 0 to 4095"),
        (np.stack([ramp(65535)] * 4)[..., None] / 65535, "float64 (4, 8, 8, 1) from 0 to 1"),
        (np.zeros((4, 1, 8, 8), np.float32) - 1, "float32 (4, 1, 8, 8) from -1 to -1"),
    ],
)
def test_an_archive_of_other_numbers_is_refused(
    images: np.ndarray, range_: str, ganlab: Command, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", images=images)
    code, _, said = ganlab("score", tmp_path / "a.npz", "--against", "digits", "--features", "classifier")
    assert code == 2
    assert said.splitlines() == [
        f"{tmp_path / 'a.npz'}: images is {range_}; wanted uint8, 0 to 255, (N, height, width, channels) or (N, "
        "channels, height, width)"
    ]


def test_deep_values_are_kept_with_the_cache_entry(places: Places, folder: Path) -> None:
    grey_png(folder / "a", ramp(60_000))
    with pytest.warns(UserWarning, match="levels 0 to 233 of 255"):
        built(places)
    (note,) = (places.cache / "decoded").glob("*.json")
    found = json.loads(note.read_text())["found"]
    assert found["deep"] == {
        **{"count": 1, "files": 1, "largest": 60_000, "first": str(folder / "a.png")},
        **{"dark": 0, "dark_largest": 0, "dark_first": ""},
    }
