"""Flips and DiffAugment: what each may do to an image, checked on images where that can be seen, and how often."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganlab_plugins.augmentations.diffaugment import DiffAugment
from ganlab_plugins.augmentations.flip import Flip

IMAGES = torch.rand(400, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_image_is_mirrored_by_chance(probability: float) -> None:
    made = Flip(probability=probability).augment(IMAGES)
    mirrored = [np.array_equal(a, np.flip(b, 2)) for a, b in zip(made.numpy(), IMAGES.numpy(), strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(made.numpy(), IMAGES.numpy(), strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert np.mean(mirrored) == pytest.approx(probability, abs=0.08)


def test_translation_moves_by_whole_pixels_and_fills_with_zero() -> None:
    made = DiffAugment(policy=("translation",), shift=0.25).augment(IMAGES)
    moves = set()
    for before, after in zip(IMAGES.numpy(), made.numpy(), strict=True):
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(
                after, np.roll(np.pad(before, ((0, 0), (2, 2), (2, 2))), (down, right), (1, 2))[:, 2:-2, 2:-2]
            )
        ]
        assert len(found) == 1
        moves.add(found[0])
    assert len(moves) == 25, "every move of up to two pixels comes"


def test_cutout_cuts_one_square() -> None:
    """Of a half of the side, 4 pixels; of less where it lies over the edge."""
    made = DiffAugment(policy=("cutout",)).augment(IMAGES)
    sizes = []
    for before, after in zip(IMAGES, made, strict=True):
        hole = (after == 0).all(0)
        assert torch.equal(after[:, ~hole], before[:, ~hole])
        rows, columns = hole.any(1).sum().item(), hole.any(0).sum().item()
        assert hole.sum() == rows * columns
        sizes.append((rows, columns))
    assert max(sizes) == (4, 4)
    assert min(min(sizes)) >= 2


def test_colour_changes_no_place() -> None:
    """An image of one grey stays of one grey, and moves by at most a half; contrast and saturation leave it alone."""
    grey = torch.full((300, 3, 4, 4), 0.2)
    made = DiffAugment(policy=("color",)).augment(grey)
    shift = made[:, 0, 0, 0] - 0.2
    assert torch.allclose(made, made[:, :1, :1, :1].expand_as(made), atol=1e-6)
    assert shift.min() < -0.45
    assert shift.max() > 0.45
    assert shift.abs().max() <= 0.5
    means = DiffAugment(policy=("color",)).augment(IMAGES).mean((1, 2, 3)) - IMAGES.mean((1, 2, 3))
    assert means.abs().max() <= 0.5 + 1e-5


@pytest.mark.parametrize("part", ["color", "translation", "cutout"])
def test_the_gradient_is_that_of_a_linear_map(part: str) -> None:
    """Given its draws, each is affine in the image: so the gradient is its slope between two images."""
    augmentation = DiffAugment(policy=(part,))  # type: ignore[arg-type]
    one = IMAGES[:20].double().requires_grad_()
    other = IMAGES[20:40].double()
    torch.manual_seed(4)
    made = augmentation.augment(one)
    torch.manual_seed(4)
    difference = augmentation.augment(other) - made
    weights = torch.randn_like(made)
    (gradient,) = torch.autograd.grad((weights * made).sum(), one)
    assert (weights * difference).sum().item() == pytest.approx(((other - one) * gradient).sum().item())
