"""The minimax game, against equation 1 of Goodfellow et al. 2014 with an explicit sigmoid, and against `bce`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ganlab import Batch, Turn
from ganlab_plugins.games._adversary import Adversary
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


def test_the_value_of_patches_is_their_mean() -> None:
    """Not the value of the mean logit, by which a wrong patch of -10 among right ones of 10 would hardly count."""
    maps = torch.tensor([10.0, -10.0, 10.0, 10.0]).reshape(1, 1, 2, 2).double()

    class Patches(nn.Module):
        def forward(self, images: torch.Tensor, condition: None) -> torch.Tensor:
            return maps * images

    logged: dict[str, torch.Tensor] = {}
    ones = torch.ones(2, 1, 1, 1, dtype=torch.float64)
    turn = Turn("discriminator", {"discriminator": Patches()}, Batch(ones), torch.zeros(()), {}, logged.__setitem__)
    loss = Adversary(Minimax()).discriminator_loss(turn, ones, -ones, None)
    sure, unsure = -math.log1p(math.exp(-10)), -math.log1p(math.exp(10))
    assert logged["value"].item() == pytest.approx(2 * (3 * sure + unsure) / 4)
    assert loss.item() == pytest.approx(-logged["value"].item())


def test_value_is_a_former_name_of_minimax() -> None:
    assert isinstance(Value(), Minimax)
    assert torch.equal(Value().discriminator(REAL, FAKE), Minimax().discriminator(REAL, FAKE))
