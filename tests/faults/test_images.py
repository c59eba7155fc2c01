"""Folders of images in which some are none: refused by their names, or left out and counted where that is asked for."""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

from ganlab import ComponentError, ImageDataset, Places
from ganlab.data.image_archive import open_images
from ganlab.data.image_file import UnreadableImage, image_extensions, image_formats, naming_image
from ganlab.data.inspect_images import inspect_images
from ganlab.utils.progress import no_progress
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import noise, save

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five images, each filled with its place; of the second class two cannot be read."""
    folder = tmp_path / "data" / "set"
    for place in range(10):
        save(folder / "ab"[place // 5] / f"{place}.png", np.full((8, 8, 3), place, np.uint8))
    (folder / "b" / "6.png").write_bytes(b"no image")
    content = (folder / "b" / "8.png").read_bytes()
    (folder / "b" / "8.png").write_bytes(content[: len(content) // 2])
    return folder


def build(places: Places, **options: Any) -> tuple[ImageDataset, list[str]]:
    """The data set, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = ImageFolder(**{"path": "set", "size": 8, "skip_unreadable": True, **options}).build(places, "train")
    return dataset, [str(warning.message) for warning in caught]


def values(dataset: ImageDataset) -> list[int]:
    return dataset.images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("size", [8, "original"])
def test_what_cannot_be_read_is_left_out_with_its_label(size: int | str, places: Places, folder: Path) -> None:
    fingerprints = set()
    for _ in range(2):  # decoded, and then from the cache
        dataset, warned = build(places, size=size)
        assert values(dataset) == [0, 1, 2, 3, 4, 5, 7, 9]
        assert dataset.condition is not None
        assert dataset.condition.tolist() == [0] * 5 + [1] * 3
        assert dataset.classes == ("a", "b")
        assert dataset.skipped == 2
        (line,) = warned
        assert line.startswith(
            f"image_folder: left out 2 of 10 files in {folder}, which cannot be read as images: b/6.png, b/8.png; "
            "the first: cannot be read as an image ("
        )
        fingerprints.add(dataset.fingerprint)
    assert len(fingerprints) == 1
    assert [path.name for path in places.cache.rglob(".*")] == []


def test_the_data_set_is_the_one_without_those_files(places: Places, folder: Path) -> None:
    skipping = build(places)[0]
    for name in ("b/6.png", "b/8.png"):
        (folder / name).unlink()
    plain, warned = build(places, skip_unreadable=False)
    assert skipping.fingerprint == plain.fingerprint
    assert np.array_equal(skipping.images.numpy(), plain.images.numpy())
    assert plain.skipped == 0
    assert warned == []


def test_without_the_option_they_are_named(places: Places, folder: Path) -> None:
    build(places)  # what was kept without them is not taken
    with pytest.raises(ComponentError) as caught:
        build(places, skip_unreadable=False)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(folder / "b" / "6.png"), str(folder / "b" / "8.png")]


def test_a_file_that_was_mended_is_seen(places: Places, folder: Path) -> None:
    before = build(places)[0]
    save(folder / "b" / "6.png", np.full((8, 8, 3), 6, np.uint8))
    after, warned = build(places)
    assert values(after) == [0, 1, 2, 3, 4, 5, 6, 7, 9]
    assert after.skipped == 1
    assert len(warned) == 1
    assert before.fingerprint != after.fingerprint


def bomb(side: int) -> bytes:
    """A true PNG of black and white pixels, all black: a thousandth of what it unpacks to."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(100 * (1 + (side + 7) // 8))) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 15_000])  # Pillow warns above 89 million pixels, and raises above twice that
@pytest.mark.parametrize("size", [8, "original"])
def test_bombs_are_left_out_too(side: int, size: int | str, places: Places, folder: Path) -> None:
    (folder / "a" / "0.png").write_bytes(bomb(side))
    assert (folder / "a" / "0.png").stat().st_size < 100_000
    for _ in range(2):
        dataset, (warned,) = build(places, size=size)
        assert dataset.skipped == 3
        assert values(dataset) == [1, 2, 3, 4, 5, 7, 9]
        assert "images: a/0.png, b/6.png, b/8.png; the first: refused as a decompression bomb" in warned
    with pytest.raises(ComponentError, match=r"a/0\.png: refused as a decompression bomb"):
        build(places, size=size, skip_unreadable=False)


def write_pages(path: Path, pages: list[np.ndarray], kind: int | None = None) -> None:
    """A TIFF file of several pages; `kind` is NewSubfileType of all but the first."""
    first, *others = [Image.fromarray(page) for page in pages]
    for other in others:
        other.encoderinfo = {} if kind is None else {"tiffinfo": {254: kind}}  # type: ignore[attr-defined]
    first.save(path, save_all=True, append_images=others)


def test_a_tiff_of_several_pages_is_no_image(places: Places, folder: Path) -> None:
    write_pages(folder / "a" / "0.tif", [noise(8, 8), noise(8, 8), noise(8, 8)])
    (folder / "b" / "6.png").unlink()
    (folder / "b" / "8.png").unlink()
    expected = "has 3 pages; wanted a file of one image; write each page to a file of its own"
    for options in ({}, {"dtype": "uint16"}):
        with pytest.raises(ComponentError) as caught:
            build(places, skip_unreadable=False, **options)
        assert str(caught.value) == f"{folder / 'a' / '0.tif'}: {expected}"
        dataset, (warned,) = build(places, **options)
        assert dataset.skipped == 1
        assert "left out 1 of 9 files" in warned
        assert warned.endswith(f"which cannot be read as images: a/0.tif; it: {expected}")
    found = inspect_images(open_images(folder, no_progress), no_progress)
    assert found.unreadable == {"a/0.tif": expected}


@pytest.mark.parametrize("kind", [1, 4])
def test_smaller_copies_and_masks_are_no_pages(kind: int, places: Places, folder: Path) -> None:
    pages = [np.full((8, 8), 77, np.uint8), noise(4, 4)]
    write_pages(folder / "a" / "0.tif", pages, kind)
    with Image.open(folder / "a" / "0.tif") as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]
    assert values(build(places)[0])[1] == 77


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_is_left_out_too(places: Places, folder: Path) -> None:
    """Its decoder raises RuntimeError, which is also what torch raises for other reasons."""
    Image.fromarray(noise(8, 8, 3)).save(folder / "a" / "0.avif")
    content = (folder / "a" / "0.avif").read_bytes()
    data = content.index(b"mdat") + len(b"mdat")
    (folder / "a" / "0.avif").write_bytes(content[:data] + bytes(len(content) - data))
    dataset, (warned,) = build(places)
    assert dataset.skipped == 3
    assert "images: a/0.avif, b/6.png, b/8.png; the first: " in warned
    with pytest.raises(ComponentError, match=r"a/0\.avif: cannot be read as an image \(.*\); repair or remove it"):
        build(places, skip_unreadable=False)


def test_an_image_for_which_memory_runs_out_is_not_called_damaged() -> None:
    """RuntimeErrors are told apart by what they say."""

    def read(error: Exception) -> None:
        with naming_image(Path("a.png")):
            raise error

    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ):
        with pytest.raises(type(error)) as caught:
            read(error)
        assert caught.value is error
    for kind in (RuntimeError, TypeError):
        with pytest.raises(
            UnreadableImage, match=r"^a\.png: cannot be read as an image \(broken\); repair or remove it$"
        ):
            read(kind("broken"))


def test_pipes_and_broken_links_are_left_out_too(places: Places, folder: Path) -> None:
    os.mkfifo(folder / "a" / "pipe.png")
    (folder / "a" / "link.png").symlink_to(folder / "gone.png")
    for _ in range(2):
        dataset, warned = build(places, size="original")
        assert dataset.skipped == 4
        assert "a/link.png, a/pipe.png, b/6.png, b/8.png" in warned[0]
    (folder / "gone.png").write_bytes((folder / "a" / "0.png").read_bytes())
    assert build(places)[0].skipped == 3


@pytest.mark.parametrize("size", [8, "original"])
def test_where_all_are_left_out_there_are_no_images(size: int | str, places: Places, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ComponentError) as caught:
        build(places, size=size)
    said = str(caught.value)
    assert said.startswith(f"there are no images: none of 10 files can be read; the first: {folder / 'a' / '0.png'}: ")
    assert "\n" not in said
    assert list(places.cache.rglob("*.npy*")) == []


def test_mixed_sizes_stay_an_error(places: Places, folder: Path) -> None:
    save(folder / "b" / "7.png", noise(8, 9, 3))
    with pytest.raises(ComponentError, match=r"^[^\n]*7\.png: 9x8 pixels, but 0\.png has 8x8[^\n]*$"):
        build(places, size="original")


def test_mixed_modes_become_one(places: Places, folder: Path) -> None:
    for place, mode in enumerate(("L", "P", "RGBA", "CMYK", "1")):
        suffix = "jpg" if mode == "CMYK" else "png"
        (folder / "a" / f"{place}.png").unlink()
        Image.new("RGB", (8, 8), "white").convert(mode).save(folder / "a" / f"{place}.{suffix}")
    dataset, _ = build(places)
    assert dataset.images.shape == (8, 3, 8, 8)
    assert values(dataset)[:5] == [255] * 5


def test_many_gaps_are_closed(places: Places) -> None:
    for place in range(300):
        save(places.data / "set" / f"{place:03}.png", np.full((2, 2, 3), place % 251, np.uint8))
    gaps = {*range(0, 300, 7), *range(150, 170), 299}
    for place in gaps:
        (places.data / "set" / f"{place:03}.png").write_bytes(b"")
    dataset, (warned,) = build(places, size=2)
    assert values(dataset) == [place % 251 for place in range(300) if place not in gaps]
    assert f"left out {len(gaps)} of 300 files" in warned
    assert f" and {len(gaps) - 10} more; the first: " in warned


def test_a_run_says_and_notes_how_many_were_left_out(
    folder: Path, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    table["dataset"] = {"name": "image_folder", "path": str(folder), "size": 8, "skip_unreadable": True}
    table["train"]["batch_size"] = 4
    code, _, said = ganlab("run", write(table), "--out", tmp_path / "r")
    assert code == 0, said
    assert "warning: image_folder: left out 2 of 10 files" in said
    described = json.loads((tmp_path / "r" / "run.json").read_text())["dataset"]
    assert (described["count"], described["skipped"]) == (8, 2)

    table["dataset"]["skip_unreadable"] = False
    code, _, said = ganlab("run", write(table), "--out", tmp_path / "other")
    assert code == 2
    assert len(said.splitlines()) == 2
    assert not (tmp_path / "other").exists()


def test_data_sets_that_skip_nothing_say_so(
    table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    assert ganlab("run", write(table), "--out", tmp_path / "r")[0] == 0
    assert json.loads((tmp_path / "r" / "run.json").read_text())["dataset"]["skipped"] == 0


# What is an image -----------------------------------------------------------------------------------------------------


# By the place in this list, images are black, nearly black and so on.
NAMED_AS_IMAGES = {
    **{"a.jfif": "JPEG", "b.jpe": "JPEG", "c.JPG": "JPEG", "d.avif": "AVIF", "e.tif": "TIFF", "f.TIFF": "TIFF"},
    **{"g.PNG": "PNG", "h.apng": "PNG", "i.pnm": "PPM", "j.WebP": "WEBP", "k": "PNG", "l": "GIF"},
}


def written(folder: Path, name: str, format: str, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as stream:
        Image.new("RGB", (8, 8), (value, value, value)).save(stream, format)


def test_pillow_says_what_is_an_image(places: Places) -> None:
    """By every extension that it knows for a format, in letters of any size, and by the content if there is none."""
    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    for place, (name, format) in enumerate(NAMED_AS_IMAGES.items()):
        written(places.data / "set", name, format, 20 * place)
    dataset, warned = build(places, skip_unreadable=False)
    assert len(dataset.images) == len(NAMED_AS_IMAGES)
    assert dataset.left_out == {}
    assert warned == []
    wanted = [20 * list(NAMED_AS_IMAGES).index(name) for name in sorted(NAMED_AS_IMAGES)]
    assert np.abs(np.array(values(dataset)) - wanted).max() <= 3  # JPEG and AVIF are not exact


def test_all_extensions_of_the_formats_are_known() -> None:
    Image.init()
    of = Image.registered_extensions()
    for ending in (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"):
        assert ending in image_extensions()
    assert {of[ending] for ending in image_extensions()} == {*image_formats(), "MPO"}
    assert ".eps" not in image_extensions()  # Pillow starts a program for these


@pytest.fixture
def mixed(places: Places) -> Path:
    folder = places.data / "mixed"
    for number in range(3):
        save(folder / "a" / f"{number}.png")
        written(folder / "b", f"{number}.pcx", "PCX", 0)  # which Pillow could read
        (folder / "b" / f"{number}.heic").write_bytes(b"an iPhone's")
    save(folder / "b" / "0.png")
    (folder / "README").write_text("no image")
    (folder / "notes.TXT").write_text("no image")
    (folder / ".hidden.txt").write_text("not counted")
    (folder / "no end.").write_text("no image")
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "gone")
    return folder


LEFT_OUT = {"no ending": 4, ".heic": 3, ".pcx": 3, ".txt": 1}


def test_what_is_left_out_is_counted_and_said_by_ending(places: Places, mixed: Path) -> None:
    for _ in range(2):  # decoded, and then from the cache
        dataset, (warned,) = build(places, path="mixed")
        assert dataset.left_out == LEFT_OUT
        assert len(dataset.images) == 4
        assert dataset.skipped == 0
        assert warned == (
            f"image_folder: left out 11 of 15 files in {mixed}, which are not in a supported image format: "
            "4 with no ending, 3 .heic, 3 .pcx, 1 .txt"
        )


def test_a_run_notes_what_was_left_out_and_is_not_bound_by_it(
    mixed: Path, table: dict[str, Any], write: Write, ganlab: Command, tmp_path: Path
) -> None:
    table["dataset"] = {"name": "image_folder", "path": str(mixed), "size": 8}
    table["train"]["batch_size"] = 4
    code, _, said = ganlab("run", write(table), "--out", tmp_path / "r")
    assert code == 0, said
    assert said.count("warning: image_folder: left out 11 of 15 files") == 1
    described = json.loads((tmp_path / "r" / "run.json").read_text())["dataset"]
    assert described["left_out_files"] == LEFT_OUT
    (mixed / "another.txt").write_text("no image")
    more = f"train.steps={table['train']['steps'] + 1}"
    assert ganlab("run", write(table), "--out", tmp_path / "r", "--resume", "--set", more)[0] == 0


def test_where_no_file_is_an_image_the_endings_are_said(places: Places) -> None:
    for number in range(12):
        (places.data / "set").mkdir(parents=True, exist_ok=True)
        (places.data / "set" / f"{number}.heic").write_bytes(b"")
        (places.data / "set" / f"frame.{number:04}").write_bytes(b"")
    with pytest.raises(ComponentError) as caught:
        build(places)
    named = ", ".join(f"1 .{number:04}" for number in range(7))
    assert str(caught.value).endswith(f"; there are 12 .heic, {named} and 5 more endings")
    assert "\n" not in str(caught.value)


# All bad files are named ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, "original"])
def test_a_broken_link_hides_no_other_bad_file(size: int | str, places: Places, folder: Path) -> None:
    (folder / "a" / "0.png").unlink()
    (folder / "a" / "0.png").symlink_to(folder / "gone.png")  # the first file, which would give the size
    (folder / "a" / "1.png").write_bytes(bomb(15_000))
    os.mkfifo(folder / "b" / "pipe.png")
    with pytest.raises(ComponentError) as caught:
        build(places, skip_unreadable=False, size=size)
    lines = str(caught.value).splitlines()
    bad = ["a/0.png", "a/1.png", "b/6.png", "b/8.png", "b/pipe.png"]
    assert [line.split(": ")[0] for line in lines] == [str(folder / name) for name in bad]
    assert lines[0].endswith(f": is a link to {folder / 'gone.png'}, which does not exist; remove it")


@pytest.mark.parametrize("size", [8, "original"])
def test_where_all_files_are_bad_the_first_ten_are_named(size: int | str, places: Places) -> None:
    (places.data / "set").mkdir(parents=True)
    for number in range(12):
        (places.data / "set" / f"{number:02}.png").symlink_to("gone.png")
    with pytest.raises(ComponentError) as caught:
        build(places, skip_unreadable=False, size=size)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0][-6:] for line in lines[:10]] == [f"{number:02}.png" for number in range(10)]
    assert lines[10:] == ["and 2 more files"]


def test_every_folder_that_cannot_be_listed_is_named(places: Places, folder: Path) -> None:
    (folder / "a" / "round").symlink_to(folder)
    (folder / "b" / "round").symlink_to(folder / "b")
    with pytest.raises(ComponentError) as caught:
        build(places)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(folder / "a" / "round"), str(folder / "b" / "round")]
