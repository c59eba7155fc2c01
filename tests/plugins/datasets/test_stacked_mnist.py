"""Stacked MNIST, held against the MNIST that it is made of: small files that the test writes, and the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ganlab import ComponentError, ImageDataset, Places
from ganlab_plugins.datasets.mnist import MNIST
from ganlab_plugins.datasets.stacked_mnist import StackedMNIST
from image_files import write_idx


@pytest.fixture
def small(tmp_path: Path) -> Places:
    """An MNIST of 30 and 20 images, of noise, so that no two are alike."""
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        raw = tmp_path / "MNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", random.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))
    return Places(tmp_path, tmp_path / "cache")


def which(dataset: ImageDataset, digits: ImageDataset) -> np.ndarray:
    """For each channel (N, 3) the number of the digit's image that it is; fails where it is none."""
    numbers = {image.numpy().tobytes(): number for number, image in enumerate(digits.images[:, 0])}
    return np.array([[numbers[channel.numpy().tobytes()] for channel in image] for image in dataset.images])


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_channel_is_a_digit_and_the_label_the_number_they_write(split: str, small: Places) -> None:
    dataset, digits = StackedMNIST(count=400).build(small, split), MNIST().build(small, split)
    assert dataset.images.shape == (400, 3, 28, 28)
    chosen = which(dataset, digits)
    assert digits.condition is not None
    assert dataset.condition is not None
    written = ["".join(str(int(digits.condition[number])) for number in row) for row in chosen]
    assert [dataset.classes[label] for label in dataset.condition.tolist()] == written
    assert (dataset.name, dataset.split, len(dataset.classes)) == ("stacked_mnist", split, 1000)
    assert dataset.condition.dtype == torch.int64


def test_the_channels_are_independent_and_even(small: Places) -> None:
    """Over 20,000 images of 30 digits each: every digit in every channel, and no channel tells of another."""
    chosen = which(StackedMNIST(count=20_000).build(small, "train"), MNIST().build(small, "train"))
    for channel in chosen.T:
        assert np.bincount(channel, minlength=30) == pytest.approx(20_000 / 30, rel=0.2)
    assert np.abs(np.corrcoef(chosen.T) - np.eye(3)).max() < 0.03
    pairs = np.bincount(chosen[:, 0] * 30 + chosen[:, 2], minlength=900)
    assert pairs.min() > 0


def test_equal_seeds_are_equal_images_and_others_are_not(small: Places) -> None:
    first = StackedMNIST(count=50).build(small, "train")
    assert StackedMNIST(count=50).build(small, "train").fingerprint == first.fingerprint
    assert StackedMNIST(count=50, seed=1).build(small, "train").fingerprint != first.fingerprint
    random = np.random.RandomState(0).randint(30, size=(50, 3), dtype=np.int64)
    assert np.array_equal(which(first, MNIST().build(small, "train")), random), "a frozen stream"


def test_resized_as_mnist_is(small: Places) -> None:
    dataset = StackedMNIST(count=5, size=16).build(small, "train")
    assert dataset.images.shape == (5, 3, 16, 16)
    which(dataset, MNIST(size=16).build(small, "train"))


def test_there_is_no_third_split(small: Places) -> None:
    with pytest.raises(ComponentError, match="stacked_mnist: no split 'valid'"):
        StackedMNIST().build(small, "valid")


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 10**7}, {"seed": -1}, {"size": 0}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        StackedMNIST(**options)


def test_of_the_real_digits_every_mode_has_an_image(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "MNIST" / "raw").is_dir():
        pytest.skip("GANLAB_DATA has no MNIST")
    dataset = StackedMNIST().build(Places(real_data, tmp_path), "train")
    assert dataset.images.shape == (128_000, 3, 28, 28)
    assert dataset.condition is not None
    assert torch.bincount(dataset.condition, minlength=1000).min() > 50
