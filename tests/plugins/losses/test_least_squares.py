"""Least squares, against equation 2 of Mao et al. 2017 written out in float64."""

from __future__ import annotations

import torch

from ganlab_plugins.losses.least_squares import LeastSquares

REAL = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
FAKE = torch.tensor([0.0, 1.5, -0.5], dtype=torch.float64)


def test_the_equation() -> None:
    discriminator = 0.5 * (4.0 + 0.25 + 1.0) / 3 + 0.5 * (0.0 + 2.25 + 0.25) / 3
    generator = 0.5 * (1.0 + 0.25 + 2.25) / 3
    assert LeastSquares().discriminator(REAL, FAKE).item() == discriminator
    assert LeastSquares().generator(REAL, FAKE).item() == generator


def test_the_papers_other_labels_and_smoothing() -> None:
    """a = -1, b = 1, c = 0, which minimises Pearson's chi squared divergence (section 3.2)."""
    loss = LeastSquares(real_target=1.0, fake_target=-1.0, generator_target=0.0)
    torch.testing.assert_close(loss.generator(REAL, FAKE), 0.5 * FAKE.square().mean())
    assert loss.with_targets(real=0.9, fake=-1.0) == LeastSquares(0.9, -1.0, 0.0)
