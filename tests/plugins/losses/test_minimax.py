"""The minimax game, against equation 1 of Goodfellow et al. 2014 with an explicit sigmoid, and against `bce`."""

from __future__ import annotations

import math

import pytest
import torch

from ganlab_plugins.losses.bce import BCE
from ganlab_plugins.losses.minimax import Minimax, Value

REAL = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
FAKE = torch.tensor([0.0, 1.5, -0.5], dtype=torch.float64)


def test_the_equation() -> None:
    d_real, d_fake = (1 / (1 + torch.exp(-logits)) for logits in (REAL, FAKE))
    v = d_real.log().mean() + (1 - d_fake).log().mean()
    torch.testing.assert_close(Minimax().measures(REAL, FAKE)["value"], v)
    torch.testing.assert_close(Minimax().discriminator(REAL, FAKE), -v)
    torch.testing.assert_close(Minimax().generator(REAL, FAKE), (1 - d_fake).log().mean())


def test_it_is_the_saturating_cross_entropy() -> None:
    bce = BCE(saturating=True)
    torch.testing.assert_close(Minimax().discriminator(REAL, FAKE), bce.discriminator(REAL, FAKE))
    torch.testing.assert_close(Minimax().generator(REAL, FAKE), bce.generator(REAL, FAKE))


def test_the_value_at_the_games_solution() -> None:
    """-log 4 (theorem 1)."""
    assert Minimax().measures(torch.zeros(5), torch.zeros(5))["value"].item() == pytest.approx(-math.log(4))


def test_value_is_a_former_name_of_minimax() -> None:
    assert isinstance(Value(), Minimax)
    assert torch.equal(Value().discriminator(REAL, FAKE), Minimax().discriminator(REAL, FAKE))
