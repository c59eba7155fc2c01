"""Binary cross-entropy, against its formula in float64 with an explicit sigmoid, and its gradient's closed form."""

from __future__ import annotations

import pytest
import torch

from ganlab_plugins.losses.bce import BCE

REAL = torch.tensor([-3.0, -0.5, 0.0, 2.0, 7.0], dtype=torch.float64)
FAKE = torch.tensor([-6.0, -1.0, 0.25, 1.0, 4.0], dtype=torch.float64)


def cross_entropy(logits: torch.Tensor, target: float) -> torch.Tensor:
    p = 1 / (1 + torch.exp(-logits))
    return -(target * torch.log(p) + (1 - target) * torch.log(1 - p)).mean()


@pytest.mark.parametrize(("real", "fake"), [(1.0, 0.0), (0.9, 0.0), (0.8, 0.2)])
def test_the_discriminators_halves(real: float, fake: float) -> None:
    expected = cross_entropy(REAL, real) + cross_entropy(FAKE, fake)
    targets = BCE().with_targets(real=real, fake=fake)
    torch.testing.assert_close(targets.discriminator(REAL, FAKE), expected)
    averaged = BCE(reduction="mean").with_targets(real=real, fake=fake)
    torch.testing.assert_close(averaged.discriminator(REAL, FAKE), expected / 2)


def test_the_generators_losses() -> None:
    p = 1 / (1 + torch.exp(-FAKE))
    torch.testing.assert_close(BCE().generator(REAL, FAKE), -torch.log(p).mean())
    torch.testing.assert_close(BCE(saturating=True).generator(REAL, FAKE), torch.log(1 - p).mean())


def test_smoothing_leaves_the_generator_alone() -> None:
    smoothed = BCE().with_targets(real=0.7, fake=0.1)
    assert torch.equal(smoothed.generator(REAL, FAKE), BCE().generator(REAL, FAKE))


@pytest.mark.parametrize("saturating", [False, True])
def test_the_generators_gradient(saturating: bool) -> None:
    """d/dx of -log s(x) is s(x) - 1, of log(1 - s(x)) it is -s(x)."""
    fake = FAKE.clone().requires_grad_()
    BCE(saturating=saturating).generator(REAL, fake).backward()
    p = torch.sigmoid(FAKE)
    torch.testing.assert_close(fake.grad, (-p if saturating else p - 1) / len(FAKE))


def test_extreme_logits_stay_finite() -> None:
    real, fake = torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4])
    for loss in (BCE(), BCE(saturating=True)):
        assert torch.isfinite(loss.discriminator(real, fake))
        assert torch.isfinite(loss.generator(real, fake))


def test_the_equilibrium() -> None:
    """Where the discriminator cannot tell, each half is log 2 (Goodfellow et al. 2014, theorem 1)."""
    zeros = torch.zeros(4, dtype=torch.float64)
    two = torch.log(torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(BCE().discriminator(zeros, zeros), 2 * two)
    torch.testing.assert_close(BCE(saturating=True).generator(zeros, zeros), -two)
