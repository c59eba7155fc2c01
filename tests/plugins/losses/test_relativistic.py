"""The relativistic pairing loss, against its definition with an explicit sigmoid, and its symmetry."""

from __future__ import annotations

import torch

from ganlab.protocols import generator_uses_real
from ganlab_plugins.losses.relativistic import Relativistic, RelativisticAverage

REAL = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
FAKE = torch.tensor([0.0, 1.5, -0.5], dtype=torch.float64)


def test_the_definition() -> None:
    loss = Relativistic()
    expected = -torch.log(1 / (1 + torch.exp(-(REAL - FAKE)))).mean()
    torch.testing.assert_close(loss.discriminator(REAL, FAKE), expected)
    torch.testing.assert_close(loss.generator(REAL, FAKE), loss.discriminator(FAKE, REAL))


def test_the_generator_looks_at_real_logits() -> None:
    assert generator_uses_real(Relativistic())


def test_the_average_by_its_definition() -> None:
    """RaSGAN with an explicit sigmoid: each side's logits less the other's mean."""

    def d(logits: torch.Tensor) -> torch.Tensor:
        return 1 / (1 + torch.exp(-logits))

    expected = -d(REAL - FAKE.mean()).log().mean() - (1 - d(FAKE - REAL.mean())).log().mean()
    torch.testing.assert_close(RelativisticAverage().discriminator(REAL, FAKE), expected / 2)
    expected = -d(FAKE - REAL.mean()).log().mean() - (1 - d(REAL - FAKE.mean())).log().mean()
    torch.testing.assert_close(RelativisticAverage().generator(REAL, FAKE), expected / 2)
    assert generator_uses_real(RelativisticAverage())


def test_of_one_image_the_average_is_the_pair() -> None:
    torch.testing.assert_close(
        RelativisticAverage().discriminator(REAL[:1], FAKE[:1]), Relativistic().discriminator(REAL[:1], FAKE[:1])
    )
