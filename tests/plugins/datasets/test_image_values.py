"""Image files with other values than 8 bits: what numpy, tifffile, imagecodecs and Pillow wrote is what is decoded."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from ganlab import ComponentError, ImageDataset, Places
from ganlab.data.image_archive import open_images
from ganlab.data.image_file import decode_image
from ganlab.data.image_values import read_samples
from ganlab.utils.progress import no_progress
from ganlab_plugins.datasets._label_table import read_table
from ganlab_plugins.datasets.image_folder import ImageFolder
from ganlab_plugins.datasets.image_pairs import ImagePairs, Unpaired
from image_files import noise, save

RNG = np.random.default_rng(1)
DEEP = RNG.integers(0, 65536, (3, 8, 8), dtype=np.uint16)
FLOATS = RNG.uniform(-3, 3, (3, 8, 8)).astype(np.float32)


def build(places: Places, split: str = "train", **options: Any) -> ImageDataset:
    return ImageFolder(**{"path": "set", "size": "original", "channels": 1, **options}).build(places, split)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_of_grey_are_kept(ending: str, folder: Path, places: Places) -> None:
    for index, values in enumerate(DEEP):
        Image.fromarray(values).save(folder / f"{index}.{ending}")
    assert read_samples(folder / f"0.{ending}").mode == "16-bit grey"
    found = build(places, dtype="uint16")
    assert found.images.dtype == torch.uint16
    assert np.array_equal(found.images.numpy()[:, 0], DEEP)
    scaled = build(places, dtype="float32", range=(0, 65535)).images.numpy()[:, 0]
    assert np.abs(scaled - (DEEP / 32767.5 - 1)).max() < 1e-6
    coloured = build(places, dtype="uint16", channels=3).images.numpy()
    assert all(np.array_equal(coloured[:, band], DEEP) for band in range(3))


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_white_that_the_files_type_rounds_up_is_white(kind: str, folder: Path, places: Places) -> None:
    """0.3 of either type is above 0.3: scaled by that, it was above 65535, which wraps to black."""
    np.save(folder / "a.npy", np.array([[0, 0.15], [0.3, 0.3]], dtype=kind))
    for clip in (False, True):
        found = build(places, dtype="uint16", range=(0, 0.3), clip=clip).images[0, 0].tolist()
        assert (found[0][0], found[1]) == (0, [65535, 65535])
        assert abs(found[0][1] - 32768) < 32
    assert build(places, dtype="float32", range=(0, 0.3)).images.max() == 1
    with pytest.raises(ComponentError, match=r"has the value 0\.3"):
        build(places, dtype="uint16", range=(0, 0.25))


def test_the_transparent_value_of_deep_grey_is_laid_on_the_background(folder: Path, places: Places) -> None:
    """As that of 8 bits is."""
    image = Image.fromarray(np.array([[1000, 20000], [1000, 65535]], dtype=np.uint16))
    image.save(folder / "a.png", transparency=1000)
    with pytest.warns(UserWarning, match="rounded to 8 bits"):
        assert build(places).images[0, 0].tolist() == [[255, 78], [255, 255]]
    assert build(places, dtype="uint16").images[0, 0].tolist() == [[65535, 20000], [65535, 65535]]
    assert build(places, dtype="uint16", channels=2).images[0, 1].tolist() == [[0, 65535], [0, 65535]]


def test_16_bits_of_colour_and_opacity_are_kept(folder: Path, places: Places) -> None:
    values = RNG.integers(0, 65536, (8, 8, 4), dtype=np.uint16)
    (folder / "a.png").write_bytes(imagecodecs.png_encode(values))
    tifffile.imwrite(folder / "b.tif", values, photometric="rgb", extrasamples=["unassalpha"], compression="lzw")
    tifffile.imwrite(folder / "c.tif", values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    for image in build(places, dtype="uint16", channels=4).images.numpy():
        assert np.array_equal(image.transpose(1, 2, 0), values)
    share = values[..., 3:] / 65535
    for laid in build(places, dtype="uint16", channels=3, background="#ff0000").images.numpy():
        expected = values[..., :3] * share + np.array([65535, 0, 0]) * (1 - share)
        assert np.abs(laid.transpose(1, 2, 0) - expected).max() <= 0.5


def test_a_turned_image_of_16_bits_is_upright(folder: Path, places: Places) -> None:
    values = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint16)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(values.astype(np.uint8)).save(folder / "eight.png", exif=exif)
        with Image.open(folder / "eight.png") as image:
            note = image.info["exif"]
        plain = imagecodecs.png_encode(values * 257)
        chunk = b"eXIf" + note.removeprefix(b"Exif\0\0")
        checksum = int.to_bytes(__import__("zlib").crc32(chunk), 4, "big")
        whole = plain[:33] + int.to_bytes(len(chunk) - 4, 4, "big") + chunk + checksum + plain[33:]
        (folder / "sixteen.png").write_bytes(whole)
        found = build(places, dtype="uint16", channels=3).images.numpy()
        assert np.array_equal(found[0], found[1]), orientation


def test_numbers_of_float_files_are_as_they_are(folder: Path, places: Places) -> None:
    for index, values in enumerate(FLOATS):
        Image.fromarray(values).save(folder / f"{index}.tif")
    assert np.array_equal(build(places, dtype="float32").images.numpy()[:, 0], FLOATS)
    pixels = build(places, range=(-3, 3)).images.numpy()[:, 0]
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - (FLOATS + 3) / 6 * 255).max() <= 0.5001
    half = build(places, dtype="float32", range=(-1, 1), clip=True).images.numpy()[:, 0]
    assert np.array_equal(half, FLOATS.clip(-1, 1))


@pytest.mark.parametrize("first", [False, True])
def test_arrays_of_many_channels(first: bool, folder: Path, places: Places) -> None:
    values = RNG.normal(size=(2, 8, 6, 5)).astype(np.float32)
    for index, image in enumerate(values):
        np.save(folder / f"{index}.npy", image.transpose(2, 0, 1) if first else image)
    found = build(places, dtype="float32", channels=5).images.numpy()
    assert np.array_equal(found.transpose(0, 2, 3, 1), values)


def test_bands_of_a_tiff(folder: Path, places: Places) -> None:
    values = RNG.integers(0, 65536, (8, 6, 7), dtype=np.uint16)
    tifffile.imwrite(folder / "a.tif", values, photometric="minisblack", planarconfig="contig")
    assert np.array_equal(build(places, dtype="uint16", channels=7).images.numpy()[0].transpose(1, 2, 0), values)


def test_resized_values_are_those_of_8_bits_up_to_rounding(folder: Path, places: Places) -> None:
    """Pillow resizes 8 bits with integers; here each channel is resized as floats."""
    y, x, band = np.mgrid[:40, :61, :4]  # smooth, since between its two passes Pillow clips what is below black
    save(folder / "a.png", (128 + 100 * np.sin(x / 9 + y / (7 + band) + band)).astype(np.uint8))
    for channels, size in ((3, 16), (4, 16), (1, 9), (3, (20, 50))):
        plain = build(places, channels=channels, size=size).images.numpy().astype(int)
        typed = build(places, channels=channels, size=size, range=(0, 255)).images.numpy().astype(int)
        sides = (size, size) if isinstance(size, int) else size
        assert plain.shape == typed.shape == (1, channels, *sides)
        assert np.abs(plain - typed).max() <= (8 if channels == 4 else 2)  # colours are divided by an opacity of 8 bits


def test_opacity_is_kept_or_laid_on_a_colour(folder: Path, places: Places) -> None:
    pixels = save(folder / "a.png", noise(8, 8, 4))
    assert np.array_equal(build(places, channels=4).images.numpy()[0].transpose(1, 2, 0), pixels)
    share = pixels[..., 3:] / 255
    laid = build(places, channels=3, background="black").images.numpy()[0].transpose(1, 2, 0)
    assert np.abs(laid - pixels[..., :3] * share).max() <= 1


def test_a_zip_file_is_the_folder_it_was_made_of(folder: Path, places: Places) -> None:
    for name in ("a/1.png", "a/2.jpg", "b/3.png", "b/notes.txt"):
        if name.endswith("txt"):
            (folder / name).write_text("x")
        else:
            save(folder / name)
    with zipfile.ZipFile(places.data / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, f"root/{file.relative_to(folder)}")
        archive.writestr("__MACOSX/root/a/._1.png", b"")
    with pytest.warns(UserWarning, match="left out 1 of 4 files"):
        one = build(places, channels=3)
    with pytest.warns(UserWarning, match="left out 1 of 4 files"):
        other = build(places, channels=3, path="set.zip")
    assert one.fingerprint == other.fingerprint
    assert other.classes == ("a", "b")
    assert torch.equal(one.condition, other.condition)  # type: ignore[arg-type]


def test_a_file_is_no_folder_and_pictures_have_no_frames(folder: Path, places: Places) -> None:
    save(folder / "a.png", noise(8, 8, 3))
    with pytest.raises(ComponentError, match=r"a\.png: is one file; expected a folder or a zip file of images"):
        open_images(folder / "a.png", no_progress)
    with pytest.raises(ComponentError, match="frame_step: is for videos and DICOM files, got 3; there are none"):
        build(places, frame_step=3)


def test_what_is_wrong_with_a_zip_file_is_named(places: Places) -> None:
    path = places.data / "set.zip"
    path.write_bytes(b"PK")
    with pytest.raises(ComponentError, match=r"set\.zip: cannot be read as a zip file"):
        build(places, path="set.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.md", "x")
    with pytest.raises(ComponentError, match=r"contains no images; .*; there are 1 \.md"):
        build(places, path="set.zip")
    stream = io.BytesIO()
    Image.fromarray(noise(8, 8, 3)).save(stream, "PNG")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", stream.getvalue())
    path.write_bytes(path.read_bytes().replace(stream.getvalue()[60:70], b"0123456789"))
    with pytest.raises(ComponentError, match=r"set\.zip/a\.png: cannot be read as an image \(Bad CRC-32"):
        build(places, path="set.zip")


def test_classes_and_attributes_of_a_table(folder: Path, places: Places) -> None:
    for name in ("x/1.png", "x/2.png", "y/3.png"):
        save(folder / name)
    (folder / "about.csv").write_text(
        "kind,file,age,pose\nzebra,x/1.png,3,0.5\nant,x/2,4,-1\nzebra,y/3.png,5,2e1\nbee,z,1,1\n"
    )
    found = build(places, table="about.csv", classes="kind", attributes=("pose", "age"))
    assert found.classes == ("ant", "bee", "zebra")
    assert found.condition["labels"].tolist() == [2, 0, 2]  # type: ignore[index]
    assert found.condition["attributes"].tolist() == [[0.5, 3], [-1, 4], [20, 5]]  # type: ignore[index]
    assert not found.left_out
    assert build(places, table="about.csv", classes="age").classes == ("1", "3", "4", "5")
    alone = build(places, table="about.csv", classes="none", attributes=("age",))
    assert alone.condition.tolist() == [[3], [4], [5]]  # type: ignore[union-attr]
    assert alone.classes == ()


def test_classes_that_are_one_number_are_in_the_order_of_their_text() -> None:
    """Not in that of a set, which another process has in another order."""
    table = read_table(b"file,kind\na,2\nb,1\nc,01\nd,001\ne,0001\nf,10\ng,-1\nh,1\n", "about.csv")
    assert table.classes("kind") == ("-1", "0001", "001", "01", "1", "2", "10")
    assert table.labels(["a", "b.png", "c", "h"], "kind", table.classes("kind")).tolist() == [5, 4, 3, 4]


def test_an_image_without_a_class_is_named_with_its_line() -> None:
    table = read_table(b"file,kind,age\na,2,\nb, ,3\n", "about.csv")
    with pytest.raises(ComponentError, match=r"^about\.csv: line 3: kind is empty; wanted a class$"):
        table.classes("kind")
    with pytest.raises(ComponentError, match=r"^about\.csv: line 2: age is empty; wanted a class$"):
        table.classes("age")


def test_rows_of_separators_and_other_columns_of_files() -> None:
    """Spreadsheets end with empty rows; of several columns that could name images it is `file`."""
    table = read_table(b"path;file;kind\nx/1.png;1.png;cat\nx/2.png;2.png;dog\n;;\n ; ;\n", "about.csv")
    assert table.labels(["2.png", "1.png"], "kind", ("cat", "dog")).tolist() == [1, 0]
    assert read_table(b"Image,kind\n1,cat\n", "about.csv").row_of("1.png") == (2, {"Image": "1", "kind": "cat"})


BAD_TABLES = {
    "a,b\n1,2\n": "has no row for 1 of 1 images: 1.png",
    "file,b\n1,x\n": r"line 2: b is 'x'; wanted a finite number",
    "file,b\n1,nan\n": r"line 2: b is 'nan'; wanted a finite number",
    "file,b\n1,2\n1,3\n": "lines 2 and 3 are both of 1",
    "file,b\n1\n": "line 2 has 1 values; its header has 2",
    "file,c\n1,2\n": "has no column 'b'; it has c",
    "": "its first line is ''; wanted different names",
}


@pytest.mark.parametrize("text", BAD_TABLES)
def test_what_is_wrong_with_a_table_is_named(text: str, folder: Path, places: Places) -> None:
    save(folder / "1.png")
    (folder / "about.csv").write_text(text)
    if text.startswith("a,b"):
        (folder / "about.csv").write_text("a,b\n7,2\n")
    with pytest.raises(ComponentError, match=BAD_TABLES[text]):
        build(places, table="about.csv", classes="none", attributes=("b",))


# TIFF -----------------------------------------------------------------------------------------------------------------

# What each orientation asks for, in NumPy's words.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


def random_bands(count: int, dtype: Any, height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, (height, width, count), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("extra", [["unspecified"], ["unspecified"] * 3, ["assocalpha", "unspecified"]])
def test_bands_that_are_no_opacity_are_those_of_an_array(
    dtype: Any, extra: list[str], folder: Path, places: Places
) -> None:
    """Near infrared, say: neither laid on white, nor a weight of the colours, nor 255 in its place.

    The layout is known, so as many rows as bands are no guess.
    """
    values = random_bands(3 + len(extra), dtype)
    tifffile.imwrite(folder / "a.tif", values, photometric="rgb", extrasamples=extra)
    count = values.shape[2]
    assert np.array_equal(build(places, dtype=dtype, channels=count).images.numpy()[0].transpose(1, 2, 0), values)
    small = build(places, dtype=dtype, channels=count, size=4).images.numpy()[0]
    for band in range(count):
        alone = values[:, :, band].astype(np.float32)
        resized = np.asarray(Image.fromarray(alone).resize((5, 4), Image.Resampling.LANCZOS))[:, :4]
        assert np.abs(small[band] - resized.clip(alone.min(), alone.max())).max() <= 0.51
    with pytest.raises(ComponentError, match=rf"a\.tif: is an array of shape \(6, 8, {count}\); wanted 3 channels"):
        build(places, dtype=dtype, channels=3)
    with pytest.raises(ComponentError, match=r"a\.tif: Pillow does not give its samples as they are; convert it"):
        decode_image(folder / "a.tif", None, 3, None)


@pytest.mark.parametrize("kind", ["rgb", "minisblack"])
def test_associated_opacity_is_divided_out_once(kind: str, folder: Path, places: Places) -> None:
    colours = 3 if kind == "rgb" else 1
    opacity = RNG.integers(1, 65536, (6, 8, 1))
    opacity[0, 0] = 0
    within = (RNG.uniform(0, 1, (6, 8, colours)) * opacity).astype(np.uint16)
    values = np.concatenate([within, opacity], axis=2).astype(np.uint16)
    more = {"photometric": kind, "extrasamples": ["assocalpha"], "planarconfig": "contig"}
    tifffile.imwrite(folder / "a.tif", values, **more)
    kept = build(places, dtype="uint16", channels=colours + 1).images.numpy()[0].transpose(1, 2, 0)
    assert np.abs(kept[..., :-1] * (opacity / 65535) - within).max() <= 0.5
    assert np.array_equal(kept[..., -1:], opacity)
    laid = build(places, dtype="uint16", channels=colours).images.numpy()[0].transpose(1, 2, 0)
    assert np.abs(laid - (within + 65535.0 - opacity)).max() <= 1


def test_opacity_of_grey_with_16_bits(folder: Path, places: Places) -> None:
    values = random_bands(2, np.uint16)
    tifffile.imwrite(folder / "a.tif", values, photometric="minisblack", extrasamples=["unassalpha"], planarconfig=1)
    assert read_samples(folder / "a.tif").mode == "16-bit grey with opacity"
    laid = build(places, dtype="uint16").images.numpy()[0, 0]
    share = values[..., 1] / 65535
    assert np.abs(laid - (values[..., 0] * share + 65535 * (1 - share))).max() <= 0.5


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_tiff_is_upright_with_any_bits_and_bands(orientation: int, folder: Path) -> None:
    """Also where it is not compressed: such files Pillow would map into memory by their path."""
    for name, count, dtype, kind in (
        *(("grey", 1, "u1", "minisblack"), ("grey16", 1, "u2", "minisblack"), ("colour", 3, "u1", "rgb")),
        *(("opacity", 4, "u1", "rgb"), ("colour16", 3, "u2", "rgb"), ("bands", 5, "u1", "minisblack")),
        *(("float", 1, "f4", "minisblack"), ("cmyk", 4, "u1", "separated")),
    ):
        values = random_bands(count, np.uint16).astype(dtype)
        path = folder / f"{name}.tif"
        written = values[..., 0] if count == 1 else values
        tifffile.imwrite(path, written, photometric=kind, planarconfig=1, extratags=[(274, "H", 1, orientation, True)])
        samples = read_samples(path)
        if name == "cmyk":
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                expected = np.asarray(image.convert("RGB"))
        else:
            expected = UPRIGHT[orientation](values)
        assert np.array_equal(samples.values, expected[..., :3] if name == "opacity" else expected), name
        if name in ("grey", "colour", "cmyk"):
            pixels = decode_image(path, None, expected.shape[2], None).pixels
            assert np.array_equal(pixels.transpose(1, 2, 0), expected), name
        if name == "grey16":
            pixels = decode_image(path, None, 1, None).pixels[0]
            assert np.abs(pixels - expected[..., 0] / 257).max() <= 0.5


@pytest.mark.filterwarnings("ignore:.*rounded to 8 bits")
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_files_in_which_0_is_white(bits: int, byteorder: Any, folder: Path, places: Places) -> None:
    values = random_bands(1, f"u{bits // 8}")[..., 0]
    tifffile.imwrite(folder / "a.tif", values, photometric="miniswhite", byteorder=byteorder)
    expected = (2**bits - 1 - values.astype(float)) / (2**bits - 1)
    assert np.abs(build(places).images.numpy()[0, 0] - 255 * expected).max() <= 0.5001
    assert np.abs(build(places, dtype="uint16").images.numpy()[0, 0] - 65535 * expected).max() <= 0.5
    tifffile.imwrite(folder / "a.tif", values.astype(np.float32), photometric="miniswhite", byteorder=byteorder)
    with pytest.raises(ComponentError, match=r"a\.tif: its samples are MINISWHITE, which is read with 8 or 16 bits"):
        build(places, dtype="float32")


@pytest.mark.parametrize("count", [2, 4, 7])
def test_bands_of_8_bits_need_no_dtype(count: int, folder: Path, places: Places) -> None:
    values = random_bands(count, np.uint8)
    for place, bands in enumerate((values, values.transpose(2, 0, 1))):
        layout = "separate" if place else "contig"
        tifffile.imwrite(folder / f"{place}.tif", bands, photometric="minisblack", planarconfig=layout)
    for image in build(places, channels=count).images.numpy():
        assert np.array_equal(image.transpose(1, 2, 0), values)


def test_bands_of_4_bits_have_the_range_of_8(folder: Path, places: Places) -> None:
    values = RNG.integers(0, 16, (6, 8, 3), dtype=np.uint8)
    tifffile.imwrite(folder / "a.tif", values, photometric="rgb", bitspersample=4)
    assert np.array_equal(build(places, channels=3).images.numpy()[0].transpose(1, 2, 0), values * 17)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_grey_needs_pillow_only(byteorder: Any, folder: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("minisblack", "miniswhite") if byteorder == "<" else ("minisblack",):
        tifffile.imwrite(folder / f"{kind}.tif", DEEP[0], photometric=kind, byteorder=byteorder)
    tifffile.imwrite(places.data / "f.tif", FLOATS[0], photometric="minisblack", byteorder=byteorder)
    tifffile.imwrite(places.data / "i.tif", FLOATS[0].astype("i4"), photometric="minisblack", byteorder=byteorder)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    found = build(places, dtype="uint16").images.numpy()[:, 0]
    assert np.array_equal(found[0], DEEP[0])
    assert np.array_equal(found[-1], DEEP[0] if byteorder == ">" else 65535 - DEEP[0])
    assert np.array_equal(read_samples(places.data / "f.tif").values[..., 0], FLOATS[0])
    assert np.array_equal(read_samples(places.data / "i.tif").values[..., 0], FLOATS[0].astype("i4"))


def test_a_missing_package_is_no_reason_to_leave_a_file_out(
    folder: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the cache would go on without the file when the package is there."""
    save(folder / "a.png")
    tifffile.imwrite(folder / "b.tif", np.zeros((8, 8, 5), np.uint16), photometric="minisblack", planarconfig="contig")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ComponentError, match=r"b\.tif: its samples are .* pip install 'ganlab\[images\]'"):
        build(places, dtype="uint16", channels=5, skip_unreadable=True)


@pytest.mark.parametrize("dtype", ["f4", "i4", "i2", "u4", "i1"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_numbers_of_any_order_of_bytes_and_sign(dtype: str, byteorder: Any, tmp_path: Path) -> None:
    """Pillow exchanges the bytes of compressed numbers once too often, and takes some signed ones for unsigned."""
    values = RNG.integers(0, 256, (6, 8, int(dtype[1])), dtype=np.uint8).view(dtype)[..., 0]
    values = RNG.normal(size=(6, 8)).astype("f4") if dtype == "f4" else values
    for compression in (None, "deflate"):
        kind = {"photometric": "minisblack", "byteorder": byteorder, "compression": compression}
        tifffile.imwrite(tmp_path / "a.tif", values, **kind)
        samples = read_samples(tmp_path / "a.tif")
        assert np.array_equal(samples.values[..., 0], values)
        assert samples.values.dtype == np.dtype(dtype)


def test_many_bands_count_for_a_decompression_bomb(
    folder: Path, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    tifffile.imwrite(folder / "a.tif", random_bands(8, np.uint16), photometric="minisblack", planarconfig="contig")
    assert build(places, channels=8, dtype="uint16").images.shape == (1, 8, 6, 8)
    tifffile.imwrite(folder / "a.tif", random_bands(9, np.uint16), photometric="minisblack", planarconfig="contig")
    expected = r"a\.tif: refused as a decompression bomb: 8x6 pixels of 9 samples of 16 bits; wanted at most 800 bytes"
    for options in ({"dtype": "uint16"}, {}):
        with pytest.raises(ComponentError, match=expected):
            build(places, channels=9, **options)


def test_what_would_be_a_guess_is_refused(folder: Path, places: Places) -> None:
    Image.fromarray(FLOATS[0]).save(folder / "a.tif")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, r"a\.tif: its samples are .*floating-point numbers, for which no value stands for white; set range"),
        ({"range": (-1.0, 1.0)}, r"a\.tif: has the value -?[23]\.\d+, outside range = \[-1, 1\]; widen"),
        ({"dtype": "float32", "channels": 5}, r"a\.tif: has 1 channel; wanted 5 channels"),
    ]
    for options, expected in cases:
        with pytest.raises(ComponentError, match=expected):
            build(places, **options)
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(folder / "a.tif")
    with pytest.raises(ComponentError, match=r"a\.tif: has values that are NaN or infinite"):
        build(places, dtype="float32")
    (folder / "a.tif").unlink()
    Image.fromarray(noise(8, 8)).save(folder / "a.png")
    with pytest.raises(ComponentError, match=r"a\.png: its values are uint8, which become float32 by a range only"):
        build(places, dtype="float32")
    Image.fromarray((DEEP[0] // 16).astype(np.uint16)).save(folder / "a.png")
    with pytest.raises(ComponentError, match=r"no value above 4,\d+ of 65,535; .* set range = \[0, 4095\]"):
        build(places, dtype="uint16")
    found = build(places, dtype="uint16", range=(0, 4095)).images.numpy()[0, 0]
    assert np.abs(found - (DEEP[0] // 16) / 4095 * 65535).max() <= 0.5


def test_options_that_contradict_each_other_are_refused() -> None:
    for options, expected in (
        ({"range": (1.0, 1.0)}, "range: "),
        ({"clip": True}, "clip: is set, and range is not"),
        ({"background": "no colour"}, "background: 'no colour'; wanted a colour"),
        ({"attributes": ("age",)}, "attributes: is a column, and table is not set"),
        ({"classes": "age"}, "classes: is a column, and table is not set"),
    ):
        with pytest.raises(ValueError, match=expected):
            ImageFolder("set", **options)  # type: ignore[arg-type]


def test_pairs_and_domains_keep_16_bits_too(folder: Path, places: Places) -> None:
    both = np.concatenate([DEEP[0], DEEP[1]], axis=1)
    Image.fromarray(both).save(folder / "a.png")
    options: dict[str, Any] = {"size": "original", "channels": 1, "dtype": "uint16"}
    pairs = ImagePairs("set", **options, condition_channels=1).build(places, "train")
    assert np.array_equal(pairs.images.numpy()[0, 0], DEEP[1])
    assert np.array_equal(pairs.condition.numpy()[0, 0], DEEP[0])  # type: ignore[union-attr]
    for domain in "AB":
        (folder / f"train{domain}").mkdir()
        Image.fromarray(DEEP[int(domain == "B")]).save(folder / f"train{domain}" / "a.tif")
    for index, domain in enumerate(("a", "b")):
        found = Unpaired("set", domain=domain, **options).build(places, "train")  # type: ignore[arg-type]
        assert np.array_equal(found.images.numpy()[0, 0], DEEP[index])
