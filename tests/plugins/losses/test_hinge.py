"""The hinge loss, against its definition by hand, and its gradient: none beyond the margin."""

from __future__ import annotations

import torch

from ganlab_plugins.losses.hinge import Hinge

REAL = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
FAKE = torch.tensor([0.0, 1.5, -1.5], dtype=torch.float64)


def test_the_definition() -> None:
    assert Hinge().discriminator(REAL, FAKE).item() == (2.0 + 0.5 + 0.0) / 3 + (1.0 + 2.5 + 0.0) / 3
    assert Hinge(margin=2).discriminator(REAL, FAKE).item() == (3.0 + 1.5 + 0.0) / 3 + (2.0 + 3.5 + 0.5) / 3
    assert Hinge().generator(REAL, FAKE).item() == 0.0


def test_what_is_beyond_the_margin_has_no_gradient() -> None:
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    Hinge().discriminator(real, fake).backward()
    assert real.grad.tolist() == [-1 / 3, -1 / 3, 0.0]  # type: ignore[union-attr]
    assert fake.grad.tolist() == [1 / 3, 1 / 3, 0.0]  # type: ignore[union-attr]
