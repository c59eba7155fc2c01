"""Rings and grids of Gaussians, held against their means, the normal distribution, and what rounding does to it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ganlab import ComponentError, ImageDataset, Places, to_float
from ganlab_plugins.datasets.gaussians import Grid, Ring

PLACES = Places(Path("/nowhere"), Path("/nowhere"))
DEFAULTS = [Ring(), Grid()]


def built(config: Ring | Grid, split: str = "train") -> tuple[ImageDataset, np.ndarray, np.ndarray]:
    """The data set, its points in the plane (N, 2), and their labels."""
    dataset = config.build(PLACES, split)
    assert dataset.condition is not None
    return dataset, to_float(dataset.images).flatten(1).numpy() * config.scale, dataset.condition.numpy()


def test_the_means_are_the_papers() -> None:
    eighth = math.sqrt(0.5)
    ring = [
        (1, 0),
        (eighth, eighth),
        (0, 1),
        (-eighth, eighth),
        (-1, 0),
        (-eighth, -eighth),
        (0, -1),
        (eighth, -eighth),
    ]
    assert np.allclose(Ring().centres, ring)
    assert Grid().centres == [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]
    assert Grid(side=2).centres == [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    assert np.allclose(Ring(modes=2).centres, [(1, 0), (-1, 0)])


@pytest.mark.parametrize("config", DEFAULTS, ids=["ring", "grid"])
def test_each_mode_is_a_gaussian_that_was_rounded(config: Ring | Grid) -> None:
    dataset, points, labels = built(config)
    assert dataset.images.shape == (100_000, 2, 1, 1)
    assert dataset.classes == tuple(str(mode) for mode in range(len(config.centres)))
    level = 2 / 255 * config.scale
    # Sheppard: rounding to levels adds a twelfth of their square to a variance.
    rounded_std = math.sqrt(config.std**2 + level**2 / 12)
    offsets = points - np.array(config.centres)[labels]
    for mode in range(len(config.centres)):
        mine = offsets[labels == mode]
        assert np.abs(mine.mean(0)).max() < 5 * rounded_std / math.sqrt(len(mine))
        assert mine.std(0) == pytest.approx(rounded_std, rel=0.05)
    assert np.mean(np.linalg.norm(offsets, axis=1) <= 3 * rounded_std) == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert stats.chisquare(np.bincount(labels)).pvalue > 0.001, "modes of equal weight"


@pytest.mark.parametrize("config", DEFAULTS, ids=["ring", "grid"])
def test_each_level_has_its_share_of_the_normal_distribution(config: Ring | Grid) -> None:
    dataset, _, labels = built(config)
    edges = ((np.arange(255) + 0.5) / 127.5 - 1) * config.scale
    for mode, centre in enumerate(config.centres):
        mine = dataset.images.flatten(1).numpy()[labels == mode]
        for axis in range(2):
            inner = stats.norm(centre[axis], config.std).cdf(edges)
            expected = len(mine) * np.diff(inner, prepend=0, append=1)
            often = expected >= 5
            observed = np.bincount(mine[:, axis], minlength=256)
            counts = np.append(observed[often], observed[~often].sum())
            wanted = np.append(expected[often], expected[~often].sum())
            assert stats.chisquare(counts, wanted).pvalue > 1e-4


def test_a_level_is_as_wide_as_the_docstring_says() -> None:
    for config, width, wider in ((Ring(), 0.83, 0.028), (Grid(), 0.67, 0.019)):
        level = 2 / 255 * config.scale / config.std
        assert level == pytest.approx(width, abs=0.005)
        assert math.sqrt(1 + level**2 / 12) - 1 == pytest.approx(wider, abs=0.0005)


@pytest.mark.parametrize("config", [*DEFAULTS, Ring(modes=3, std=0.3), Grid(side=2, std=1)])
def test_nothing_is_clipped_and_little_is_left_over(config: Ring | Grid) -> None:
    """The levels 0 and 255 would hold what was beyond the edge."""
    images = config.build(PLACES, "train").images
    assert 0 < images.amin() < images.amax() < 255
    outermost = np.abs(config.centres).max() + 6 * config.std
    assert config.scale == pytest.approx(outermost)


def test_the_mode_of_a_point_is_the_nearest() -> None:
    for config in DEFAULTS:
        _, points, labels = built(config, "test")
        distances = np.linalg.norm(points[:, None] - np.array(config.centres), axis=2)
        assert np.array_equal(distances.argmin(1), labels)


def test_splits_and_seeds_are_different_points_and_equal_ones_are_the_same() -> None:
    first = Ring(count=1000).build(PLACES, "train")
    assert first.fingerprint == Ring(count=1000).build(PLACES, "train").fingerprint
    others = [Ring(count=1000).build(PLACES, "test"), Ring(count=1000, seed=1).build(PLACES, "train")]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 3
    for other in others:
        assert (other.images == first.images).all(dim=1).float().mean() < 0.2
    assert Ring(modes=5, count=1000).build(PLACES, "train").classes == tuple("01234")


def test_the_points_are_frozen() -> None:
    """The stream is numpy's legacy one, which never changes; another would change every score against it."""
    images = Ring(count=4).build(PLACES, "train").images.flatten(1).tolist()
    random = np.random.RandomState([0, 0])
    labels = random.randint(8, size=4, dtype=np.int64)
    angles = labels * math.pi / 4
    points = np.stack([np.cos(angles), np.sin(angles)], 1) + 0.01 * random.standard_normal((4, 2))
    assert images == np.rint((points / 1.06 + 1) * 127.5).astype(int).tolist()


def test_there_is_no_third_split() -> None:
    with pytest.raises(ComponentError, match="grid: no split 'valid'; there are 'train' and 'test'"):
        Grid().build(PLACES, "valid")


@pytest.mark.parametrize(
    "options", [{"modes": 1}, {"std": 0.0}, {"count": 0}, {"seed": -1}, {"seed": 2**32}, {"count": 10**9}]
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Ring(**options)
