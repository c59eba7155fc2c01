"""Folders of images: which files are taken, in which order and with which labels, and what is refused, by example."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.image_folder import ImageFolder
from image_files import RNG, built, hwc, noise, save

# Listing --------------------------------------------------------------------------------------------------------------


def test_class_folders_give_labels_in_the_order_of_names(places: Places, folder: Path) -> None:
    pixels = [save(folder / name) for name in ("b/1.png", "a/2.png", "b/deep/er/3.png", "a/10.png")]
    save(folder / ".hidden" / "4.png")
    save(folder / "a" / "._5.png")
    (folder / "a" / "notes.txt").write_text("no image")
    dataset = ImageFolder("set", size=8).build(places, "train")
    # The order of the paths as text: a/10, a/2, b/1, b/deep/er/3.
    assert np.array_equal(hwc(dataset.images.numpy()), np.stack([pixels[i] for i in (3, 1, 0, 2)]))
    assert dataset.condition is not None
    assert dataset.condition.tolist() == [0, 0, 1, 1]
    assert dataset.classes == ("a", "b")
    assert (dataset.name, dataset.split) == ("image_folder:set", "train")


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["a.png", "b/c.png"]])
def test_images_in_the_folder_itself_have_no_labels(names: list[str], places: Places, folder: Path) -> None:
    for name in names:
        save(folder / name)
    dataset = ImageFolder("set", size=8).build(places, "train")
    assert len(dataset.images) == 2
    assert dataset.condition is None
    assert dataset.classes == ()


def test_many_files_keep_their_order(places: Places, folder: Path) -> None:
    for number in range(200):
        save(folder / f"{number:03}.png", np.full((2, 2, 3), number, np.uint8))
    assert built(places, size=2)[:, 0, 0, 0].tolist() == list(range(200))


def test_links_are_followed_but_not_in_circles(places: Places, folder: Path) -> None:
    save(places.data / "elsewhere" / "1.png")
    folder.joinpath("a").symlink_to(places.data / "elsewhere")
    assert len(built(places)) == 1
    (places.data / "elsewhere" / "back").symlink_to(folder)
    with pytest.raises(ComponentError, match="link to a folder that contains it"):
        built(places)


def test_the_path_is_absolute_or_below_data_or_here(
    places: Places, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = save(folder / "a.png")
    assert np.array_equal(hwc(built(places, path=str(folder)))[0], pixels)
    monkeypatch.setenv("HOME", str(places.data))
    assert np.array_equal(hwc(built(places, path="~/set"))[0], pixels)

    monkeypatch.chdir(tmp_path)
    mine = save(tmp_path / "mine" / "a.png")
    assert np.array_equal(hwc(built(places, path="mine"))[0], mine)
    with pytest.raises(ComponentError) as caught:
        built(places, path="nowhere")
    assert str(caught.value) == (
        f"path: 'nowhere': no such folder; tried {places.data / 'nowhere'} and {tmp_path / 'nowhere'}"
    )


# The test split -------------------------------------------------------------------------------------------------------


def test_the_test_split_has_the_labels_of_the_training_folder(places: Places, folder: Path) -> None:
    for name in ("a/1.png", "b/1.png", "c/1.png"):
        save(folder / name)
    pixels = [save(places.data / "held_out" / name) for name in ("b/1.png", "c/1.png")]
    dataset = ImageFolder("set", test_path="held_out", size=8).build(places, "test")
    assert np.array_equal(hwc(dataset.images.numpy()), np.stack(pixels))
    assert dataset.condition is not None
    assert dataset.condition.tolist() == [1, 2]
    assert dataset.classes == ("a", "b", "c")

    save(places.data / "held_out" / "d" / "1.png")
    with pytest.raises(ComponentError, match="has a class 'd'; path has only a, b, c"):
        ImageFolder("set", test_path="held_out", size=8).build(places, "test")


def test_without_test_path_there_is_no_test_split(places: Places, folder: Path) -> None:
    save(folder / "a.png")
    with pytest.raises(ComponentError, match=r"there is no test split; set dataset\.test_path"):
        built(places, "test")
    with pytest.raises(ComponentError, match="no split 'valid'"):
        built(places, "valid")


# Refusals -------------------------------------------------------------------------------------------------------------


def test_an_empty_folder_is_refused(places: Places) -> None:
    with pytest.raises(ComponentError, match=r"set: contains no images; wanted files such as \.bmp"):
        built(places)


def test_a_file_in_place_of_the_folder_is_refused(places: Places) -> None:
    (places.data / "file").write_text("")
    with pytest.raises(ComponentError, match=r"path: .*file is not a folder"):
        built(places, path="file")


@pytest.mark.parametrize("kind", ["noise", "cut short", "another format", "broken link", "pipe"])
def test_a_bad_file_is_named(kind: str, places: Places, folder: Path) -> None:
    save(folder / "a.png")
    bad = folder / "b.png"
    if kind == "noise":
        bad.write_bytes(RNG.bytes(100))
    elif kind == "cut short":
        save(bad, noise(64, 64, 3))
        bad.write_bytes(bad.read_bytes()[:2000])
    elif kind == "another format":  # one that Pillow could read
        Image.fromarray(noise(8, 8, 3)).save(bad, format="PCX")
    elif kind == "broken link":
        bad.symlink_to(folder / "gone.png")
    else:
        os.mkfifo(bad)
    with pytest.raises(ComponentError) as caught:
        built(places)
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)
    assert [path.name for path in places.cache.rglob("*.npy*")] == []


@pytest.mark.parametrize("limit", [100, 40])  # Pillow warns above its limit, and raises above twice that
def test_a_decompression_bomb_is_refused(
    limit: int, places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    save(folder / "a.png", noise(11, 11, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(
        ComponentError, match=rf"a\.png: refused as a decompression bomb; wanted at most {limit} pixels"
    ):
        built(places)
    assert len(recwarn) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to the superuser")
def test_a_folder_that_may_not_be_listed_is_named(places: Places, folder: Path) -> None:
    save(folder / "a" / "1.png")
    (folder / "a").chmod(0)
    try:
        with pytest.raises(ComponentError, match=r"set/a.*: cannot be listed"):
            built(places)
    finally:
        (folder / "a").chmod(0o755)


def test_the_superuser_too_is_told_of_a_folder_that_cannot_be_listed(
    places: Places, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("ganlab.data.list_images.os.scandir", refuse)
    with pytest.raises(ComponentError, match=r"set: cannot be listed \(Permission denied\)"):
        built(places)


def test_every_unreadable_image_is_named_at_once(places: Places, folder: Path) -> None:
    for number in range(30):
        save(folder / f"{number:02}.png")
    for number in range(3, 17):
        (folder / f"{number:02}.png").write_bytes(b"no image")
    with pytest.raises(ComponentError) as caught:
        built(places)
    lines = str(caught.value).splitlines()
    assert [f"{number:02}.png" in line for number, line in zip(range(3, 13), lines, strict=False)] == [True] * 10
    assert lines[10:] == ["and 4 more files"]
