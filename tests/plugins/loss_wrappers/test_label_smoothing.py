"""Label smoothing, against the loss with its targets set by hand, and refused where there are none."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen

from ganlab import ComponentError
from ganlab_plugins.loss_wrappers.label_smoothing import LabelSmoothing
from ganlab_plugins.losses.bce import BCE


def test_one_sided_by_default() -> None:
    assert LabelSmoothing()(BCE()) == BCE(real_target=0.9, fake_target=0.0)
    assert LabelSmoothing(real=0.8, fake=0.1)(BCE(reduction="mean")) == BCE("mean", False, 0.8, 0.1)


def test_the_optimum_of_the_smoothed_loss() -> None:
    """With real label a, the discriminator that cannot tell outputs a / 2 (Salimans et al. 2016, section 3.4)."""
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=100, tolerance_grad=1e-12)
    loss = LabelSmoothing(real=0.9)(BCE())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss.discriminator(logit.expand(3), logit.expand(3))
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.sigmoid(logit).item() == pytest.approx(0.45, abs=1e-6)


def test_a_loss_without_targets_is_refused() -> None:
    @frozen
    class Bare:
        def discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
            return fake.mean() - real.mean()

        def generator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
            return -fake.mean()

    with pytest.raises(ComponentError, match="Bare has no label targets to smooth"):
        LabelSmoothing()(Bare())
