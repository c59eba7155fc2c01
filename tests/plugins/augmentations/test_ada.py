"""ADA, against what its paper says of each change: places against NumPy's turns and SciPy's resampling, colours taken
apart along the grey axis, how often each comes, and p against a plain loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from ganlab import ComponentError
from ganlab.run.records import read_records
from ganlab.testing import check
from ganlab.training.checkpoint import from_bytes, to_bytes
from ganlab_plugins.augmentations.ada import Ada, _geometry, _resample

COUNT = 4000
IMAGES = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def made(images: Tensor, **options: Any) -> Tensor:
    return Ada(adaptive=False, **options).augment(images)


def as_often(share: Any, expected: float) -> None:
    """Holds how often something came against its chance, five deviations wide."""
    share = np.asarray(share, dtype=float)
    assert share.mean() == pytest.approx(expected, abs=5 * math.sqrt(max(expected * (1 - expected), 0) / len(share)))


@pytest.mark.parametrize("channels", [1, 3])
def test_at_zero_images_stay_to_the_bit(channels: int) -> None:
    images = IMAGES[:, :channels]
    assert torch.equal(Ada().augment(images), images)


def test_a_schedule_moves_p_where_it_does_not_adapt() -> None:
    with pytest.raises(ValueError, match="adaptive = false"):
        Ada(p=torch.zeros(()))  # type: ignore[arg-type]
    p = torch.zeros(())
    moved = Ada(p=p, adaptive=False)  # type: ignore[arg-type]
    assert torch.equal(moved.augment(IMAGES), IMAGES)
    p.fill_(1.0)
    torch.manual_seed(0)
    wanted = made(IMAGES, p=1.0)
    torch.manual_seed(0)
    torch.testing.assert_close(moved.augment(IMAGES), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# Places
# ---------------------------------------------------------------------------------------------------------------------


def blits(before: np.ndarray) -> dict[tuple[bool, int, int, int], np.ndarray]:
    """Every result of mirroring, turning by quarters, and moving by up to a pixel, an eighth of the side."""
    results = {}
    for mirrored in (False, True):
        flipped = before[:, :, ::-1] if mirrored else before
        for quarters in range(4):
            turned = np.pad(np.rot90(flipped, quarters, (1, 2)), ((0, 0), (1, 1), (1, 1)), mode="symmetric")
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    results[mirrored, quarters, down, right] = turned[:, 1 - down : 9 - down, 1 - right : 9 - right]
    return results


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize("p", [0.4, 1.0])
def test_blits_are_numpys_and_come_as_often(p: float) -> None:
    images = IMAGES[:400]
    found = []
    for before, after in zip(images.numpy(), made(images, p=p, policy=("blit",)).numpy(), strict=True):
        same = [key for key, wanted in blits(before).items() if np.allclose(wanted, after, atol=1e-5)]
        assert len(same) == 1
        found += same
    mirrored, quarters, down, right = map(np.array, zip(*found, strict=True))
    as_often(mirrored, p / 2)
    for turn in (1, 2, 3):
        as_often(quarters == turn, p / 4)
    # Between -1 and 1, rounded: as often 0 as not.
    for moved in (down, right):
        as_often(moved != 0, p / 2)
        as_often(moved == 1, p / 4)


def test_resampling_is_scipys() -> None:
    """At places of its own choosing, also far outside, of images that are not square."""
    images = IMAGES[:20, :, :6].double()
    places = _geometry(images, torch.ones(()))
    ours = _resample(images, places)
    y, x = np.mgrid[:6, :8]
    at = np.stack([x - 3.5, y - 2.5, np.ones_like(x)]).reshape(3, -1)
    for image, place, after in zip(images.numpy(), places.numpy(), ours.numpy(), strict=True):
        right, down, _ = place @ at
        for channel in range(3):
            wanted = ndimage.map_coordinates(image[channel], [down + 2.5, right + 3.5], order=1, mode="reflect")
            np.testing.assert_allclose(after[channel].ravel(), wanted, atol=1e-9)


def test_geometry_is_scaled_turned_stretched_and_moved_as_the_paper_says() -> None:
    """Taken apart: the determinant is the scale's, the singular values the stretch's, what they leave is the angle."""
    p = 0.3
    images = IMAGES.double()
    forth = np.linalg.inv(_geometry(images, torch.full((), p)).numpy())
    scale = np.log2(np.linalg.det(forth[:, :2, :2])) / 2
    largest, smallest = np.linalg.svd(forth[:, :2, :2])[1].T
    stretch = np.log2(largest / smallest) / 2
    angle = np.arctan2(forth[:, 1, 0], forth[:, 0, 0])
    shift = forth[:, :2, 2] / 8
    for value in (scale, stretch, shift[:, 0], shift[:, 1], angle[abs(stretch) < 1e-9]):
        as_often(abs(value) > 1e-9, p)
    for value, deviation in ((scale, 0.2), (shift[:, 0], 0.125), (shift[:, 1], 0.125)):
        assert stats.kstest(value[abs(value) > 1e-9] / deviation, "norm").pvalue > 1e-3
    assert stats.kstest(stretch[stretch > 1e-9] / 0.2, "halfnorm").pvalue > 1e-3
    once = angle[(abs(stretch) < 1e-9) & (abs(angle) > 1e-9)]
    assert stats.kstest(once / math.pi, "uniform", (-1, 2)).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------------------------------
# Colours
# ---------------------------------------------------------------------------------------------------------------------


def test_colours_are_those_of_the_paper() -> None:
    """Each image's matrix and shift, solved for, against what they do along the grey axis and across it."""
    p = 0.3
    images = IMAGES.double()
    after = made(images, p=p, policy=("color",))
    points = torch.cat([images.flatten(2), torch.ones(COUNT, 1, 64)], 1).mT
    solved = torch.linalg.lstsq(points, after.flatten(2).mT).solution.mT.numpy()
    matrix, shift = solved[:, :, :3], solved[:, :, 3]
    grey = np.ones(3) / math.sqrt(3)
    along = matrix @ grey
    contrast = along @ grey
    assert np.allclose(along, contrast[:, None] * grey), "grey stays grey"
    assert np.allclose(shift, shift.mean(1, keepdims=True))
    brightness = shift.mean(1) / contrast
    # Two axes across; a turn about grey keeps their angle to each other.
    one = np.array([1, -1, 0]) / math.sqrt(2)
    other = np.cross(grey, one)
    cos, sin = matrix @ one @ one, matrix @ one @ other
    saturation = np.log2(np.hypot(cos, sin) / abs(contrast))
    hue = np.arctan2(sin, cos)
    deviations = {"contrast": np.log2(abs(contrast)) / 0.5, "brightness": brightness / 0.2, "saturation": saturation}
    for value in deviations.values():
        as_often(abs(value) > 1e-6, p)
        assert stats.kstest(value[abs(value) > 1e-6], "norm").pvalue > 1e-3
    as_often(contrast < 0, p / 2)
    as_often(abs(hue) > 1e-6, p)
    assert stats.kstest(hue[abs(hue) > 1e-6] / math.pi, "uniform", (-1, 2)).pvalue > 1e-3


def test_grey_images_are_brightened_contrasted_and_inverted() -> None:
    images = IMAGES[:, :1].double()
    after = made(images, p=0.3, policy=("color",)).flatten(1)
    before = images.flatten(1)
    deviation = before - before.mean(1, keepdim=True)
    slope = ((after * deviation).sum(1) / deviation.square().sum(1)).numpy()
    shift = (after.mean(1).numpy() / slope) - before.mean(1).numpy()
    assert torch.allclose(after, torch.from_numpy(slope)[:, None] * (before + torch.from_numpy(shift)[:, None]))
    as_often(slope < 0, 0.15)
    as_often(abs(abs(slope) - 1) > 1e-6, 0.3)
    as_often(abs(shift) > 1e-6, 0.3)


def test_images_of_other_channels_are_refused_before_anything_is_made(
    ganlab: Callable[..., tuple[int, str, str]], table: dict[str, Any], write: Callable[..., Path]
) -> None:
    four = torch.zeros(2, 4, 8, 8)
    with pytest.raises(ComponentError, match="images of 1 or 3 channels, got 4; leave it out of policy"):
        Ada().augment(four)
    assert Ada(policy=("blit", "geometry")).augment(four).shape == four.shape
    table |= {"dataset": {"name": "ring", "count": 100}, "augmentation": ["flip", "ada"]}
    code, _, err = ganlab("run", write(table), "--out", "r")
    assert code == 2
    assert err.count("\n") == 1
    assert 'tiny.toml: augmentation[1]: ada: "color" needs images of 1 or 3 channels, got 2' in err
    assert not Path("r").exists()


# ---------------------------------------------------------------------------------------------------------------------
# p
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "parts"), [(64, 1), (64, 4), (100, 1)])
def test_p_is_that_of_a_plain_loop(batch: int, parts: int) -> None:
    """Also where a batch is shown in parts; up, down, and held at both ends."""
    ada = Ada(ramp=3000)
    p, signs = 0.0, []
    path = []
    for update in range(200):
        logits = torch.randn(batch) + 3 * math.sin(update / 20)
        for part in logits.split(batch // parts):
            ada.observe(part)
        signs += logits.sign().tolist()
        if len(signs) >= 256:
            p += (1 if np.mean(signs) > 0.6 else -1) * len(signs) / 3000
            p, signs = min(max(p, 0.0), 1.0), []
        path.append(p)
        assert ada.measures()["ada_p"].item() == pytest.approx(p, abs=1e-5)
    assert {0.0, 1.0} <= set(path)
    assert len(set(path)) > 10


def test_a_fixed_p_stays() -> None:
    ada = Ada(p=0.25, adaptive=False)
    for _ in range(100):
        ada.observe(torch.ones(1000))
    assert ada.state_dict()["p"] == 0.25
    torch.manual_seed(0)
    wanted = made(IMAGES, p=0.25)
    torch.manual_seed(0)
    assert torch.equal(ada.augment(IMAGES), wanted)


def test_its_state_stays_the_same_tensors_and_goes_where_the_images_are() -> None:
    ada, other = Ada(interval=10, ramp=100), Ada()
    tensors = ada.state_dict()
    ada.observe(torch.ones(15))
    assert tensors["p"].item() == pytest.approx(0.15)
    ada.load_state_dict(from_bytes(to_bytes(other.state_dict())))
    assert tensors["p"] == 0
    assert all(ada.state_dict()[name] is tensor for name, tensor in tensors.items())
    assert ada.augment(torch.empty(2, 3, 8, 8, device="meta")).device.type == "meta"
    ada.observe(torch.empty(2, device="meta"))
    assert {tensor.device.type for tensor in ada.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("p", [1.0, pytest.param(0.0, marks=[pytest.mark.extended, pytest.mark.slow])])
def test_conforms_at_either_end(p: float) -> None:
    """At 1 its gradient, too, is held against differences; from 0 on p moves, and a resumed training has to have it."""
    found = check(Ada(p=p, interval=16, ramp=64), "augmentation")
    assert not [str(one) for one in found if one.result != "passed"]


def test_in_a_run_p_moves_and_is_logged(
    ganlab: Callable[..., tuple[int, str, str]], table: dict[str, Any], write: Callable[..., Path]
) -> None:
    table["augmentation"] = [{"name": "ada", "interval": 48, "ramp": 400, "p": 0.5}]
    table["train"] |= {"steps": 13, "log_every": 1}
    assert ganlab("run", write(table), "--out", "r")[0] == 0
    # 16 images a step: p is moved, by 48 / 400, in each third update of the discriminator.
    steps = np.diff([0.5, *(record["ada_p"] for record in read_records(Path("r/log.jsonl")))])
    wanted = [0.12 if number % 3 == 0 else 0 for number in range(1, 14)]
    assert np.allclose(abs(steps), wanted, atol=1e-6)
