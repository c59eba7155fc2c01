"""AC-GAN's class loss, against NumPy's cross-entropy of both players' images."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from ganlab import ComponentError, Judged, Step
from ganlab_plugins.penalties.class_loss import ClassLoss

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.tensor([0, 2, 1, 2])
REAL, FAKE = (torch.randn(4, 3, generator=GENERATOR, dtype=torch.float32) for _ in range(2))


def cross_entropy(logits: torch.Tensor) -> float:
    p = np.exp(logits.numpy().astype(np.float64))
    p /= p.sum(1, keepdims=True)
    return float(-np.log(p[np.arange(4), LABELS.numpy()]).mean())


def step(player: str, networks: tuple[str, str] = ("generator", "discriminator")) -> Step:
    images, bare = torch.zeros(4, 1, 2, 2), torch.zeros(4)
    none = torch.zeros((), dtype=torch.int64)
    judged = (Judged(bare, REAL), Judged(bare, FAKE))
    return Step(
        player,
        {name: nn.Identity() for name in networks},
        real=images,
        fake=images,
        real_logits=judged[0],
        fake_logits=judged[1],
        condition=LABELS,
        images_seen=none,
    )


def test_the_cross_entropies() -> None:
    both = cross_entropy(REAL) + cross_entropy(FAKE)
    assert ClassLoss(weight=2.0).penalty(step("discriminator")).item() == pytest.approx(2 * both, rel=1e-6)
    assert ClassLoss(real_only=True).penalty(step("discriminator")).item() == pytest.approx(cross_entropy(REAL))
    assert ClassLoss(player="generator").penalty(step("generator")).item() == pytest.approx(cross_entropy(FAKE))


def test_players_of_other_names() -> None:
    """The network that judges has the terms of both, whatever its name."""
    names, both = ("maker", "critic"), cross_entropy(REAL) + cross_entropy(FAKE)
    assert ClassLoss("critic").penalty(step("critic", names)).item() == pytest.approx(both, rel=1e-6)
    assert ClassLoss("maker").penalty(step("maker", names)).item() == pytest.approx(cross_entropy(FAKE))


def test_a_discriminator_without_class_logits_is_told() -> None:
    plain = attrs.evolve(step("discriminator"), real_logits=torch.zeros(4), fake_logits=torch.zeros(4))
    with pytest.raises(ComponentError, match='a discriminator with head = "class_logits"'):
        ClassLoss().penalty(plain)
