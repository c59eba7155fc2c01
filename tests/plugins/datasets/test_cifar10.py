"""CIFAR-10, held against Pillow for the JPEG files and against small archives of known pixels for the original."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from PIL import Image

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.cifar10 import CIFAR10, CLASSES

DATA = os.environ.get("GANLAB_DATA", "")


def no_network(*_: object, **__: object) -> None:
    raise URLError("no route to host")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", no_network)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "data", tmp_path / "cache")


def add_jpeg(places: Places) -> None:
    """Three images a class and split."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in CLASSES:
            folder = places.data / "cifar10-jpeg" / split / kind
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:04}.jpg")


def add_original(places: Places, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Files in the original's format, two images each, whose MD5 sums torchvision is told to expect."""
    folder = places.data / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    contents: dict[str, tuple[np.ndarray, list[int]]] = {}

    def write(name: str, value: object) -> str:
        data = pickle.dumps(value)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(name: str) -> list[str]:
        pixels, labels = rng.integers(0, 256, (2, 3072), dtype=np.uint8), rng.integers(0, 10, 2).tolist()
        contents[name] = pixels, labels
        return [name, write(name, {"data": pixels, "labels": labels})]

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", [batch("data_batch_1"), batch("data_batch_2")])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [batch("test_batch")])
    md5 = write("batches.meta", {"label_names": list(CLASSES)})
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5}
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", meta)
    return contents


def test_jpeg_is_what_pillow_reads(places: Places) -> None:
    add_jpeg(places)
    dataset = CIFAR10(source="jpeg").build(places, "test")
    assert dataset.images.shape == (30, 3, 32, 32)
    for index in (0, 4, 29):
        file = places.data / "cifar10-jpeg" / "test" / CLASSES[index // 3] / f"{index % 3:04}.jpg"
        assert np.array_equal(dataset.images[index].permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
    assert dataset.condition is not None
    assert dataset.condition.tolist() == [index // 3 for index in range(30)]
    assert (dataset.name, dataset.classes) == ("cifar10-jpeg", CLASSES)


@pytest.mark.skipif(not DATA or not (Path(DATA) / "cifar10-jpeg").is_dir(), reason="GANLAB_DATA has no cifar10-jpeg")
def test_the_real_jpeg_files(tmp_path: Path) -> None:
    dataset = CIFAR10(source="jpeg").build(Places(Path(DATA), tmp_path), "test")
    assert dataset.images.shape == (10_000, 3, 32, 32)
    assert dataset.condition is not None
    assert dataset.condition.bincount().tolist() == [1000] * 10
    file = sorted((Path(DATA) / "cifar10-jpeg" / "test" / "frog").iterdir())[123]
    assert np.array_equal(dataset.images[6123].permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))


@pytest.mark.parametrize(("split", "files"), [("train", ["data_batch_1", "data_batch_2"]), ("test", ["test_batch"])])
def test_original_is_what_its_files_hold(
    split: str, files: list[str], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = add_original(places, monkeypatch)
    dataset = CIFAR10(source="original").build(places, split)
    assert np.array_equal(dataset.images.flatten(1).numpy(), np.concatenate([contents[file][0] for file in files]))
    assert dataset.condition is not None
    assert dataset.condition.tolist() == [label for file in files for label in contents[file][1]]
    assert dataset.name == "cifar10"


def test_auto_prefers_the_original_and_is_silent_about_it(
    places: Places, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    add_jpeg(places)
    add_original(places, monkeypatch)
    assert CIFAR10().build(places, "test").name == "cifar10"
    assert [str(warning.message) for warning in recwarn if "JPEG" in str(warning.message)] == []


def test_auto_warns_when_it_takes_the_jpeg_files(places: Places) -> None:
    add_jpeg(places)
    with pytest.warns(UserWarning, match="not comparable with published ones"):
        dataset = CIFAR10().build(places, "test")
    assert dataset.name == "cifar10-jpeg"


def test_a_damaged_original_is_not_quietly_replaced(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    add_jpeg(places)
    add_original(places, monkeypatch)
    (places.data / "cifar-10-batches-py" / "test_batch").write_bytes(b"damaged")
    with pytest.raises(ComponentError, match="could not be downloaded"):
        CIFAR10().build(places, "test")


@pytest.mark.parametrize("source", ["auto", "original"])
def test_a_failed_download_says_where_the_file_belongs(source: str, places: Places) -> None:
    with pytest.raises(ComponentError) as caught:
        CIFAR10(source=source).build(places, "train")  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"cifar10: could not be downloaded to {places.data} (<urlopen error no route to host>); "
        "its files can be put there by hand: cifar-10-python.tar.gz"
    )


def test_a_class_without_files_is_refused(places: Places) -> None:
    add_jpeg(places)
    for file in (places.data / "cifar10-jpeg" / "train" / "deer").iterdir():
        file.unlink()
    with pytest.raises(ComponentError, match=r"no \.jpg files in .*deer"):
        CIFAR10(source="jpeg").build(places, "train")


def test_there_is_no_third_split(places: Places) -> None:
    with pytest.raises(ComponentError, match="cifar10: no split 'valid'"):
        CIFAR10().build(places, "valid")
