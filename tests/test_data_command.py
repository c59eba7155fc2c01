"""`ganlab data` on ten pictures in odd forms, each written here by Pillow, and a run on what it proposes."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab import Places
from ganlab.data.image_archive import open_images
from ganlab.data.inspect_images import inspect_images
from ganlab.utils.progress import no_progress
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import noise, save

Command = Callable[..., tuple[int, str, str]]

Y, X = np.mgrid[:40, :60]
COLOURS = np.stack([X * 4, Y * 6, (X + Y) * 2], axis=2).astype(np.uint8)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Ten pictures in odd forms; the last, `z_broken.png`, has a broken end."""
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.fromarray((X * 1000 + Y * 50).astype(np.uint16)).save(folder / "grey16.tif")
    Image.fromarray(np.dstack([COLOURS, (X * 4).astype(np.uint8)])).save(folder / "rgba.png")
    Image.fromarray(COLOURS).quantize(16).save(folder / "palette.gif")
    Image.fromarray(COLOURS).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(COLOURS).save(folder / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(((X // 8 + Y // 8) % 2 * 255).astype(np.uint8)).convert("1").save(folder / "onebit.png")
    Image.fromarray((X / 60).astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(COLOURS).save(folder / "web.webp", lossless=True)
    wide = np.mgrid[:200, :3000][1]
    Image.fromarray(np.dstack([wide / 12, wide / 12, wide * 0]).astype(np.uint8)).save(folder / "panorama.png")
    save(folder / "z_broken.png", noise(64, 64, 3))
    content = (folder / "z_broken.png").read_bytes()
    (folder / "z_broken.png").write_bytes(content[: len(content) // 2])
    return folder


def test_ten_odd_pictures_are_told_of_and_trained_on(
    odd: Path, table: dict[str, Any], write: Callable[..., Path], ganlab: Command, tmp_path: Path
) -> None:
    code, out, err = ganlab("data", odd, "--json", "--grid", "grid.png")
    assert code == 0, err
    found = json.loads(out)
    assert (found["files"], found["readable"]) == (10, 9)
    assert {mode: count for mode, count in found["modes"].items() if count == 1} == dict.fromkeys(
        (
            *("16-bit grey", "8-bit colour with opacity", "8-bit palette", "8-bit CMYK", "1-bit grey"),
            "32-bit float grey",
        ),
        1,
    )
    assert {(size["width"], size["height"]): size["count"] for size in found["sizes"]} == {
        (60, 40): 7,
        (40, 60): 1,
        (3000, 200): 1,
    }
    assert found["ranges"]["16-bit grey"] == [0, 59 * 1000 + 39 * 50]
    assert list(found["unreadable"]) == ["z_broken.png"]
    assert list(found["refused"]) == ["float.tif"]
    assert found["dataset"] == {
        **{"name": "image_folder", "path": str(odd), "size": 32, "channels": 3, "skip_unreadable": True}
    }
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.mode == "RGB"

    _, text, _ = ganlab("data", odd)
    assert tomllib.loads(text[text.index("[dataset]") :]) == {"dataset": found["dataset"]}
    options = {key: value for key, value in found["dataset"].items() if key != "name"}
    with pytest.warns(UserWarning, match=r"images: float\.tif, z_broken\.png; the first: its samples are floating"):
        images = ImageFolder(**options).build(Places(tmp_path, tmp_path), "train").images.numpy()
    names = ("cmyk", "grey16", "onebit", "palette", "panorama", "rgba", "turned", "web")
    made = dict(zip(names, images.transpose(0, 2, 3, 1).astype(int), strict=True))
    web = made["web"]
    assert np.abs(made["turned"] - np.rot90(web, -1)).mean() < 6  # JPEG
    assert np.abs(made["cmyk"] - web).mean() < 6
    assert np.abs(made["palette"] - web).mean() < 20  # of 16 colours
    share = np.linspace(10, 50, 33)[None, 1:, None] * 4 / 255  # opacity grows to the right, over the central square
    assert np.abs(made["rgba"] - (web * share + 255 * (1 - share))).mean() < 3
    assert np.ptp(made["grey16"], axis=2).max() == 0
    assert (np.minimum(made["onebit"], 255 - made["onebit"]) < 64).mean() > 0.75  # black and white, but for edges
    assert np.abs(made["panorama"][:, :, 0] - np.linspace(1400, 1600, 32) / 12).max() < 3

    table["dataset"] = {**found["dataset"], "size": 8}
    table["train"]["batch_size"] = 4
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    table["dataset"].pop("skip_unreadable")
    code, _, err = ganlab("run", write(table), "--out", "s")
    assert code == 2
    assert "float.tif: its samples are floating-point numbers" in err
    assert "z_broken.png: cannot be read as an image (" in err


def test_what_is_proposed_for_other_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def proposed(write: Callable[[Path], object], count: int = 3) -> dict[str, Any]:
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for index in range(count):
            write(folder / str(index))
        found = inspect_images(open_images(folder, no_progress), no_progress)
        assert not found.refused
        options = {key: value for key, value in found.table.items() if key != "name"}
        ImageFolder(**{**options, "range": tuple(options["range"]) if "range" in options else None}).build(
            Places(tmp_path, tmp_path), "train"
        )
        return {key: value for key, value in found.table.items() if key not in ("name", "path")}

    def deep(path: Path) -> None:
        Image.fromarray((rng.integers(0, 4096, (8, 9)) | 2048).astype(np.uint16)).save(path.with_suffix(".png"))

    def array(path: Path) -> None:
        np.save(path.with_suffix(".npy"), np.full((5, 16, 12), [[[int(path.name)]]], np.float32))

    grey = {"size": "original", "channels": 1}
    assert proposed(lambda path: save(path.with_suffix(".png"), noise(8, 8))) == grey
    assert proposed(lambda path: save(path.with_suffix(".png"), noise(8, 8, 1).repeat(3, 2))) == grey
    assert proposed(deep) == {**grey, "dtype": "uint16", "range": [0.0, 4095.0]}
    assert proposed(array) == {"size": "original", "channels": 5, "dtype": "float32", "range": [0.0, 2.0]}
    assert proposed(lambda path: save(path.with_suffix(".png"), noise(300, 400, 3)), 1) == {"size": 256, "channels": 3}


def test_a_range_is_found_for_files_that_say_no_white(tmp_path: Path) -> None:
    """Proposed where it changes nothing for the others, and else named: whether the unit is the same is a guess."""

    def found(own: np.ndarray[Any, Any], *others: np.ndarray[Any, Any]) -> tuple[Any, list[str], list[str]]:
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        np.save(folder / "a.npy", own)
        for index, values in enumerate(others):
            np.save(folder / f"b{index}.npy", values)
        made = inspect_images(open_images(folder, no_progress), no_progress)
        options = {key: value for key, value in made.table.items() if key not in ("name", "path")}
        if "range" in options and not made.refused:
            taken = {**options, "range": tuple(options["range"])}
            images = ImageFolder(path=str(folder), **taken).build(Places(tmp_path, tmp_path), "train").images
            assert len(images) == 1 + len(others)
            assert np.array_equal(np.asarray(images[1])[0], others[0])
        return options, list(made.refused), [note for note in made.notes if "npy" in note]

    whole = np.arange(64).reshape(8, 8) * 4
    plain = {"size": "original", "channels": 1}
    eight = whole.astype(np.uint8)
    assert found(whole.astype(np.int32), eight, eight) == (
        {**plain, "range": [0.0, 255.0]},
        [],
        ["a.npy: black and white, which they do not say, are those of the other files"],
    )
    options, refused, (note,) = found(whole.astype(np.int32) - 100, eight, eight)
    assert (options, refused) == ({**plain, "skip_unreadable": True}, ["a.npy"])
    assert note == "a.npy: with range = [-100, 255], the values of all files, they are taken too"
    options, refused, (note,) = found(whole / 252, eight, eight)
    assert (options, refused) == ({**plain, "skip_unreadable": True}, ["a.npy"])
    assert note.startswith("a.npy: values from 0 to 1, in another unit than other files")


def test_classes_and_duplicates_of_a_zip_file(tmp_path: Path, ganlab: Command) -> None:
    pixels = save(tmp_path / "set" / "b" / "1.png")
    save(tmp_path / "set" / "a" / "2.bmp", pixels)
    save(tmp_path / "set" / "a" / "3.png")
    (tmp_path / "set" / "labels.csv").write_text("file,age\n1,2\n")
    with zipfile.ZipFile("set.zip", "w") as archive:
        for file in (tmp_path / "set").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path))
    code, out, err = ganlab("data", "set.zip", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["classes"] == {"a": 2, "b": 1}
    assert found["duplicates"] == [["a/2.bmp", "b/1.png"]]
    assert found["left_out"] == {".csv": 1}
    assert any("`table` names it" in note for note in found["notes"])
    for arguments, expected in (
        (["gone"], "gone: no such folder or zip file"),
        (["set/labels.csv"], "as a zip file"),
        (["set.zip", "--grid", "a.jpg"], "--grid a.jpg: expected FILE.png"),
        (["set.zip", "--grid", "set"], "--grid set: expected FILE.png"),
        (["set.zip", "--grid", "set.zip/a.png"], "--grid set.zip/a.png: set.zip is not a folder"),
    ):
        code, out, err = ganlab("data", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert expected in err


@pytest.mark.extended
@pytest.mark.slow
def test_16_bits_are_trained_on_sampled_and_read_again(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command, tmp_path: Path
) -> None:
    for index in range(16):
        values = np.random.default_rng(index).integers(0, 65536, (6, 10), dtype=np.uint16)
        save(tmp_path / "set" / f"{index}.png", values)
    options = {"size": "original", "channels": 1, "dtype": "uint16"}
    table["dataset"] = {"name": "image_folder", "path": str(tmp_path / "set"), **options}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 0, err
    for out in ("made", "made.npz"):
        assert ganlab("sample", "r", "--count", "4", "--out", out)[0] == 0
    read = ImageFolder(path=str(tmp_path / "made"), **options).build(Places(tmp_path, tmp_path), "train").images
    assert read.dtype == torch.uint16
    with np.load("made.npz") as arrays:
        assert np.array_equal(arrays["images"].reshape(4, 6, 10), read.numpy().reshape(4, 6, 10))


@pytest.mark.extended
@pytest.mark.slow
def test_trained_on_one_picture_of_16_bits_samples_are_nearest_to_it(
    table: dict[str, Any], write: Callable[..., Path], ganlab: Command, tmp_path: Path
) -> None:
    pictures = np.random.default_rng(0).integers(0, 65536, (16, 6, 10), dtype=np.uint16)
    for copy in range(8):
        save(tmp_path / "one" / f"{copy}.png", pictures[3])
    table |= {
        "dataset": {"name": "image_folder", "path": "one", "size": "original", "channels": 1, "dtype": "uint16"},
        "generator": {"name": "mlp", "latent_dim": 4, "hidden": [32]},
        "discriminator": {"name": "mlp", "hidden": [32]},
        "loss": "relativistic",
        "penalty": [{"name": "r1", "gamma": 1.0}, {"name": "r2", "gamma": 1.0}],
        "optimizer": {"name": "adam", "lr": 5e-3, "betas": [0.0, 0.9]},
        "train": {"steps": 400, "batch_size": 8, "log_every": 400, "sample_count": 4},
    }
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    assert ganlab("sample", "r", "--count", "4", "--out", "made")[0] == 0
    made = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "made").glob("*.png"))])
    assert made.dtype == np.uint16
    away = np.abs(made[:, None].astype(float) - pictures).mean((2, 3))
    assert (away.argmin(1) == 3).all()
    assert (away[:, 3] < 0.6 * np.sort(away, 1)[:, 1]).all()
