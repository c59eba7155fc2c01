"""The digits, held against the numbers that scikit-learn gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ganlab import ComponentError, Places
from ganlab_plugins.datasets.digits import Digits

PLACES = Places(Path("/nowhere"), Path("/nowhere"))


def test_both_splits_are_scikit_learns_digits_in_file_order() -> None:
    train, test = Digits().build(PLACES, "train"), Digits().build(PLACES, "test")
    assert train.images.shape == (1500, 1, 8, 8)
    assert test.images.shape == (297, 1, 8, 8)

    pixels, labels = load_digits(return_X_y=True)
    expected = [[round(value * 255 / 16) for value in row] for row in pixels]
    assert torch.cat([train.images, test.images]).reshape(1797, 64).tolist() == expected
    assert train.condition is not None
    assert test.condition is not None
    assert torch.cat([train.condition, test.condition]).tolist() == labels.tolist()
    assert train.condition.dtype == torch.int64
    assert (train.name, train.split, test.split) == ("digits", "train", "test")
    assert train.classes == tuple("0123456789")


def test_resizing_keeps_the_picture() -> None:
    small, large = Digits().build(PLACES, "test"), Digits(size=32).build(PLACES, "test")
    assert large.images.shape == (297, 1, 32, 32)
    assert large.images.dtype == torch.uint8
    # Averaging blocks of 4x4 brings a bilinear enlargement back to a slightly blurred original.
    blocks = large.images.reshape(297, 8, 4, 8, 4).float().mean((2, 4))
    correlation = np.corrcoef(blocks.flatten().numpy(), small.images.flatten().float().numpy())[0, 1]
    assert correlation > 0.97


def test_there_is_no_third_split() -> None:
    with pytest.raises(ComponentError, match="no split 'valid'; there are 'train' and 'test'"):
        Digits().build(PLACES, "valid")


@pytest.mark.parametrize("size", [0, -1, 5000])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        Digits(size=size)


def test_a_margin_is_black_around_a_smaller_digit() -> None:
    whole, inner = Digits(size=16, margin=3).build(PLACES, "test"), Digits(size=10).build(PLACES, "test")
    assert np.array_equal(whole.images, np.pad(inner.images, ((0, 0), (0, 0), (3, 3), (3, 3))))
    with pytest.raises(ValueError, match="margin: 4 on both sides leaves nothing of size = 8"):
        Digits(margin=4)
