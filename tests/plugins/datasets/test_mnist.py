"""MNIST, held against its files parsed here by hand; the same for a small Fashion-MNIST that the test writes."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.mnist import MNIST, FashionMNIST
from image_files import write_idx

DATA = os.environ.get("GANLAB_DATA", "")


def parsed(path: Path) -> np.ndarray:
    """The idx format: two zero bytes, the type (8 is uint8), the number of axes, each length as a big-endian int."""
    data = path.read_bytes()
    zero, kind, axes = struct.unpack(">HBB", data[:4])
    assert (zero, kind) == (0, 8)
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    return np.frombuffer(data[4 + 4 * axes :], np.uint8).reshape(shape)


def no_network(*_: object, **__: object) -> None:
    raise URLError("no route to host")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)


@pytest.fixture
def small(tmp_path: Path) -> Places:
    """A Fashion-MNIST of 6 and 3 images."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("t10k", 3)):
        raw = tmp_path / "FashionMNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count, dtype=np.uint8))
    return Places(tmp_path, tmp_path / "cache")


@pytest.mark.skipif(not (Path(DATA) / "MNIST" / "raw").is_dir() or not DATA, reason="GANLAB_DATA has no MNIST")
@pytest.mark.parametrize(("split", "part", "count"), [("train", "train", 60_000), ("test", "t10k", 10_000)])
def test_mnist_is_what_its_files_say(split: str, part: str, count: int, tmp_path: Path) -> None:
    dataset = MNIST().build(Places(Path(DATA), tmp_path), split)
    raw = Path(DATA) / "MNIST" / "raw"
    assert dataset.images.shape == (count, 1, 28, 28)
    assert np.array_equal(dataset.images[:, 0].numpy(), parsed(raw / f"{part}-images-idx3-ubyte"))
    assert dataset.condition is not None
    assert np.array_equal(dataset.condition.numpy(), parsed(raw / f"{part}-labels-idx1-ubyte"))
    assert (dataset.name, dataset.split) == ("mnist", split)


@pytest.mark.parametrize(("split", "part"), [("train", "train"), ("test", "t10k")])
def test_fashion_mnist_is_what_its_files_say(split: str, part: str, small: Places) -> None:
    dataset = FashionMNIST().build(small, split)
    raw = small.data / "FashionMNIST" / "raw"
    assert np.array_equal(dataset.images[:, 0].numpy(), parsed(raw / f"{part}-images-idx3-ubyte"))
    assert dataset.condition is not None
    assert dataset.condition.tolist() == parsed(raw / f"{part}-labels-idx1-ubyte").tolist()
    assert dataset.name == "fashion_mnist"
    assert dataset.classes == tuple(torchvision.datasets.FashionMNIST.classes)


def test_resized_as_torchvision_resizes(small: Places) -> None:
    from torchvision.transforms.v2.functional import resize

    original, larger = FashionMNIST().build(small, "train"), FashionMNIST(size=32).build(small, "train")
    assert larger.images.tolist() == resize(original.images, [32, 32], antialias=True).tolist()


def test_a_failed_download_says_where_the_files_belong(tmp_path: Path) -> None:
    with pytest.raises(ComponentError) as caught:
        MNIST().build(Places(tmp_path, tmp_path), "train")
    message = str(caught.value)
    assert message.startswith(f"mnist: could not be downloaded to {tmp_path}")
    assert "no route to host" in message
    assert "by hand: MNIST/raw/train-images-idx3-ubyte, " in message
    assert "\n" not in message


def test_a_file_that_is_cut_short_is_refused(small: Places) -> None:
    path = small.data / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ComponentError, match="unreadable or damaged"):
        FashionMNIST().build(small, "train")


def test_there_is_no_third_split(small: Places) -> None:
    with pytest.raises(ComponentError, match="fashion_mnist: no split 'valid'"):
        FashionMNIST().build(small, "valid")
