"""The cache of decoded images: how often files are decoded, and that nothing stale or damaged is ever taken from it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab import ComponentError, ImageDataset, MappedImages, resize_images
from ganlab_plugins.datasets import _decoded_file
from ganlab_plugins.datasets._decoded_cache import decode_files

NAMES = ["a.bmp", "b.bmp", "c.bmp"]  # BMP, so that equal sizes are equal lengths


class Folder:
    """A folder of three images and a cache, which counts the files that are decoded."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.cache = root / "images", root / "cache"
        self.decodings = 0
        self.path.mkdir()
        for number, name in enumerate(NAMES):
            self.write(name, number)
        original = _decoded_file.decode_image

        def counted(*arguments: object) -> object:
            self.decodings += 1
            return original(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(_decoded_file, "decode_image", counted)

    def write(self, name: str, value: int, time: int = 0) -> None:
        Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(self.path / name)
        os.utime(self.path / name, ns=(time, time))

    def read(self, size: int = 4, channels: int = 3, crop: int | None = None) -> list[int]:
        """The value that each image is filled with."""
        images = decode_files(self.path, NAMES, size=size, channels=channels, crop=crop, cache=self.cache)
        assert images.shape == (3, channels, size, size)
        assert images.dtype == torch.uint8
        return images[:, 0, 0, 0].tolist()

    def stored(self) -> Path:
        (path,) = (self.cache / "decoded").glob("*.npy")
        return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_files_are_decoded_once(folder: Folder) -> None:
    assert folder.read() == [0, 1, 2]
    assert folder.decodings == 3
    assert folder.read() == [0, 1, 2]
    assert folder.decodings == 3
    assert list((folder.cache / "decoded").glob(".*")) == []


@pytest.mark.parametrize("options", [{"size": 2}, {"channels": 1}, {"crop": 2}])
def test_other_options_are_decoded_anew(options: dict[str, int], folder: Folder) -> None:
    folder.read()
    folder.read(**options)
    assert folder.decodings == 6


def test_a_changed_file_is_seen(folder: Folder) -> None:
    folder.read()
    folder.write("b.bmp", 9, time=1)  # as long as before, one nanosecond later
    assert folder.read() == [0, 9, 2]
    assert folder.decodings == 6


def test_a_folder_alike_in_names_lengths_and_times_is_another(folder: Folder) -> None:
    folder.read()
    folder.path.rename(folder.path.with_name("first"))
    folder.path = folder.path.with_name("second")
    folder.path.mkdir()
    for number, name in enumerate(NAMES):
        folder.write(name, number + 7)
    alike = [(folder.path.parent / part / "a.bmp").stat().st_size for part in ("first", "second")]
    assert alike[0] == alike[1]
    assert folder.read() == [7, 8, 9]


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lose_the_note(path: Path) -> None:
    path.with_suffix(".json").unlink()


def scribble_on_the_note(path: Path) -> None:
    path.with_suffix(".json").write_text("[1, 2")


def swap_the_key(path: Path) -> None:
    note = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**note, "key": "0" * 64}))


@pytest.mark.parametrize(
    "damage", [flip_a_bit, cut_short, lose_the_note, scribble_on_the_note, swap_the_key, Path.unlink]
)
def test_damage_is_mended(damage: object, folder: Folder) -> None:
    folder.read()
    good = folder.stored().read_bytes()
    damage(folder.stored())  # type: ignore[operator]
    assert folder.read() == [0, 1, 2]
    assert folder.decodings == 6
    assert folder.stored().read_bytes() == good
    folder.read()
    assert folder.decodings == 6


def test_what_is_decoded_is_mapped(folder: Folder) -> None:
    for _ in range(2):  # written, and then found
        images = decode_files(folder.path, NAMES, size=4, cache=folder.cache)
        assert isinstance(images, MappedImages)
        assert images.fingerprint == ImageDataset(images.clone(), "copied").fingerprint


def test_pixels_are_read_once_to_be_verified_and_named(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.read()
    original, read = os.preadv, []

    def counted(descriptor: int, buffers: list[memoryview], place: int) -> int:
        read.append(sum(len(buffer) for buffer in buffers))
        return original(descriptor, buffers, place)

    monkeypatch.setattr(os, "preadv", counted)
    dataset = ImageDataset(decode_files(folder.path, NAMES, size=4, cache=folder.cache), "folder")
    assert dataset.fingerprint
    assert sum(read) == dataset.images.nbytes


def test_a_cache_that_cannot_be_written_is_named(folder: Folder) -> None:
    folder.cache.write_text("a file where a folder is wanted")
    with pytest.raises(ComponentError, match=r"cannot cache decoded images in .*decoded"):
        folder.read()


def test_an_image_smaller_than_the_crop_is_named(folder: Folder) -> None:
    with pytest.raises(ComponentError, match=r"a\.bmp: .*4x4 pixels; wanted at least 5x5"):
        folder.read(crop=5)


def test_resized_returns_images_of_the_right_size_as_they_are() -> None:
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    assert resize_images(images, 4) is images


def test_resized_keeps_a_flat_image_flat() -> None:
    images = torch.tensor([0, 1, 127, 255], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 3, 28, 28).contiguous()
    for size in (7, 32, 64):
        assert resize_images(images, size).tolist() == images[..., :1, :1].expand(4, 3, size, size).tolist()
