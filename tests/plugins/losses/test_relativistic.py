"""The relativistic pairing loss, against its definition with an explicit sigmoid, and its symmetry."""

from __future__ import annotations

import torch

from ganlab.levers import uses_real
from ganlab_plugins.losses.relativistic import Relativistic

REAL = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
FAKE = torch.tensor([0.0, 1.5, -0.5], dtype=torch.float64)


def test_the_definition() -> None:
    loss = Relativistic()
    expected = -torch.log(1 / (1 + torch.exp(-(REAL - FAKE)))).mean()
    torch.testing.assert_close(loss.discriminator(REAL, FAKE), expected)
    torch.testing.assert_close(loss.generator(REAL, FAKE), loss.discriminator(FAKE, REAL))


def test_the_generator_looks_at_real_logits() -> None:
    assert uses_real(Relativistic())
