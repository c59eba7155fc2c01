"""Pixels, streams and pictures: against the definitions, every level of uint8 there and back."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganlab.data.dataset import ImageDataset, image_spec
from ganlab.data.load_dataset import weights_problem
from ganlab.data.loader import BatchLoader
from ganlab.data.pixels import to_float, to_uint8
from ganlab.utils.errors import ComponentError
from ganlab.utils.rng import derived_seed, global_state, preserve_random_state, seed_everything, set_global_state
from ganlab.viz.image_grid import image_grid, save_grid


def test_every_level_there_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    floats = to_float(levels)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (-1, 1)
    assert torch.equal(to_uint8(floats), levels)


def test_rounded_and_clipped() -> None:
    values = torch.tensor([-1.5, -1.0, 1.0, 1.5, (127.6 / 127.5) - 1, (127.4 / 127.5) - 1])
    assert to_uint8(values).tolist() == [0, 0, 255, 255, 128, 127]


def test_a_dataset_knows_its_shape_and_its_pixels() -> None:
    images = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    data = ImageDataset(images, "some", condition=torch.tensor([0, 2, 1, 0, 2]))
    spec = image_spec(data)
    assert (spec.channels, spec.height, spec.width, spec.classes, spec.condition_shape) == (3, 4, 6, 3, None)
    paired = image_spec(ImageDataset(images, "paired", condition=images[:, :1, ::2]))
    assert (paired.channels, paired.classes, paired.condition_shape) == (3, None, (1, 2, 6))
    other = images.clone()
    other[4, 2, 3, 5] ^= 1
    assert data.fingerprint == ImageDataset(images.clone(), "other").fingerprint
    assert data.fingerprint != ImageDataset(other, "some").fingerprint
    assert data.fingerprint != ImageDataset(images.reshape(5, 3, 6, 4), "some").fingerprint


def test_what_is_no_dataset_is_refused() -> None:
    with pytest.raises(ComponentError, match="wanted uint8"):
        ImageDataset(torch.zeros(2, 1, 4, 4).double(), "floats")
    with pytest.raises(ComponentError, match="condition: 3 entries for 2 images"):
        ImageDataset(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "x", condition=torch.zeros(3).long())


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_images_are_drawn_by_weight() -> None:
    """As often as their share of the weights, one of weight 0 never; an epoch is a function of the seed alone."""
    weights = torch.tensor([0.0, 1.0, 3.0, 4.0]).repeat(250)
    images = torch.zeros(1000, 1, 1, 1, dtype=torch.uint8)
    plain, weighted = (ImageDataset(images, "plain", weights=given) for given in (None, weights))
    assert plain.fingerprint != weighted.fingerprint
    one, other = (BatchLoader.for_dataset(weighted, 100, 5, torch.device("cpu")) for _ in range(2))
    epochs = [one.order(epoch) for epoch in range(50)]
    assert torch.equal(epochs[3], other.order(3))
    assert not torch.equal(epochs[3], epochs[4])
    counts = torch.stack([(torch.cat(epochs) % 4).eq(kind).sum() for kind in range(4)])
    assert counts[0] == 0
    torch.testing.assert_close(counts / counts.sum(), torch.tensor([0, 1, 3, 4]) / 8, rtol=0.03, atol=0)
    assert BatchLoader.for_dataset(plain, 100, 5, torch.device("cpu")).order(0).sort().values.equal(torch.arange(1000))


@pytest.mark.parametrize(
    "weights",
    [
        torch.ones(3),
        torch.ones(4, 1),
        torch.zeros(4),
        -torch.ones(4),
        torch.full((4,), torch.nan),
        torch.arange(4),
        [1.0],
    ],
)
def test_weights_that_nothing_can_be_drawn_by_are_refused(weights: object) -> None:
    problem = weights_problem(weights, 4)
    assert problem is not None
    assert "wanted a finite one of at least 0 for each of 4 images, not all 0" in problem
    assert weights_problem(torch.tensor([0.0, 1, 0, 0]), 4) is None


def test_global_states_there_and_back() -> None:
    seed_everything(3)
    draws()
    random.gauss(0, 1)  # leaves half a pair behind, which is part of the state
    np.random.randn()
    state = global_state()
    first = (draws(), random.gauss(0, 1), np.random.randn())
    set_global_state(state)
    assert (draws(), random.gauss(0, 1), np.random.randn()) == first
    seed_everything(3)
    before = draws()
    seed_everything(3)
    with preserve_random_state():
        draws()
    assert draws() == before


def test_streams_are_apart() -> None:
    seeds = {derived_seed(seed, label) for seed in range(50) for label in ("a", "b", ("c", 1), ("c", 2))}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, "order", 2) == derived_seed(1, "order", 2)


def test_a_grid_holds_the_images(tmp_path) -> None:  # type: ignore[no-untyped-def]
    images = torch.randint(0, 256, (5, 3, 48, 50), dtype=torch.uint8)
    picture = image_grid(images, columns=3)
    assert picture.shape == (3, 2 * 50 + 2, 3 * 52 + 2)
    assert torch.equal(picture[:, 52:100, 54:104], images[4])
    assert (picture[:, 52:100, 106:156] == 255).all(), "the place of a sixth image stays white"
    save_grid(images, tmp_path / "deep" / "x.png", columns=3)
    with Image.open(tmp_path / "deep" / "x.png") as read:
        assert np.array_equal(np.asarray(read), picture.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_that_are_no_colours_lie_side_by_side(channels: int, tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, channels, 48, 50), dtype=torch.uint8)
    save_grid(images, tmp_path / "x.png", columns=2)
    with Image.open(tmp_path / "x.png") as read:
        assert read.mode == "L"
        pixels = np.asarray(read)
    assert pixels.shape == (2 * 50 + 2, 2 * (50 * channels + 2) + 2)
    for channel in range(channels):
        left = 2 + 50 * channels + 2 + 50 * channel
        assert np.array_equal(pixels[2:50, left : left + 50], images[1, channel].numpy())


def test_points_are_drawn_where_they_lie(tmp_path: Path) -> None:
    """Each alone, so that the middle of what is drawn can be measured: to the right for x, upwards for y."""

    def drawn(x: int, y: int) -> tuple[float, float]:
        save_grid(torch.tensor([[x, y]], dtype=torch.uint8)[:, :, None, None], tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as read:
            pixels = np.asarray(read.convert("RGB")).astype(int)
        assert pixels.shape == (550, 550, 3)
        rows, columns = np.nonzero(pixels[:, :, 2] - pixels[:, :, 0] > 30)  # only a dot is blue
        return columns.mean(), rows.mean()

    left, bottom = drawn(0, 0)
    right, top = drawn(255, 255)
    assert right - left == pytest.approx(bottom - top, abs=1), "equal scales"
    assert right - left > 350
    for x, y in ((255, 0), (51, 204), (128, 100)):
        column, row = drawn(x, y)
        assert column == pytest.approx(left + (right - left) * x / 255, abs=1)
        assert row == pytest.approx(bottom - (bottom - top) * y / 255, abs=1)
