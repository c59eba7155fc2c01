"""Penalties on the discriminator's gradient, against closed forms: of a linear discriminator, whose gradient is its
weight everywhere, and of a quadratic one, whose gradient at x is x; against finite differences of a deep one; and in
bfloat16, where second derivatives would be noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ganlab_plugins.penalties.gradient_penalty import Dragan, GradientPenalty
from ganlab_plugins.penalties.r1_r2 import R1, R2
from penalty_steps import Flat, step_of

SHAPE = (6, 2, 3, 3)
GENERATOR = torch.Generator().manual_seed(0)
REAL, FAKE = (torch.randn(SHAPE, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


class Half(nn.Module):
    """|x|^2 / 2."""

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        return images.flatten(1).square().sum(1) / 2


def linear(norm: float) -> Flat:
    layer = nn.Linear(18, 1).double()
    with torch.no_grad():
        layer.weight.mul_(norm / layer.weight.norm())
    return Flat(layer)


def test_r1_and_r2_of_a_quadratic() -> None:
    step = step_of(Half(), REAL, FAKE)
    assert R1(gamma=3.0).penalty(step).item() == pytest.approx(1.5 * REAL.square().sum().item() / 6)
    assert R2(gamma=3.0).penalty(step).item() == pytest.approx(1.5 * FAKE.square().sum().item() / 6)


@pytest.mark.parametrize("norm", [0.3, 2.5])
def test_of_a_linear_discriminator(norm: float) -> None:
    step = step_of(linear(norm), REAL, FAKE)
    assert R1(gamma=2.0).penalty(step).item() == pytest.approx(norm**2)
    for penalty in (GradientPenalty, Dragan):
        assert penalty(weight=10.0).penalty(step).item() == pytest.approx(10 * (norm - 1) ** 2)
        assert penalty(weight=1.0, norm=0.5).penalty(step).item() == pytest.approx((norm - 0.5) ** 2)
        assert penalty(one_sided=True).penalty(step).item() == pytest.approx(10 * max(0.0, norm - 1) ** 2)


def test_the_points_lie_between_real_and_fake() -> None:
    """Of a quadratic the gradient's norm is that of the point: from 3 to 5 on the line between those."""
    real, fake = torch.zeros(5000, 1, 1, 1), torch.zeros(5000, 1, 1, 1)
    real += 3
    fake += 5
    torch.manual_seed(0)
    value = GradientPenalty(weight=1.0, norm=0.0).penalty(step_of(Half(), real, fake)).item()
    assert value == pytest.approx((5**3 - 3**3) / 3 / 2, rel=0.02), "the mean of x^2 over [3, 5]"


def test_the_noise_of_dragan_is_in_units_of_the_batchs_deviation() -> None:
    real = 7 * torch.randn(3000, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    value = Dragan(weight=1.0, norm=0.0, noise=0.5).penalty(step_of(Half(), real, real)).item()
    assert value == pytest.approx(4 * 49 * (1 + 0.25), rel=0.03)


@pytest.mark.parametrize("penalty", [R1(), R2(), GradientPenalty(), Dragan()], ids=lambda p: type(p).__name__)
def test_the_gradient_by_the_weights_is_right(penalty: R1) -> None:
    torch.manual_seed(3)
    network = Flat(nn.Linear(18, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    step = step_of(network, REAL, FAKE)
    weight = network.layers[0].weight

    def value() -> Tensor:
        torch.manual_seed(5)
        return penalty.penalty(step)

    (gradient,) = torch.autograd.grad(value(), weight)
    for index in ((0, 0), (3, 7)):
        with torch.no_grad():
            weight[index] += 1e-6
        above = value().item()
        with torch.no_grad():
            weight[index] -= 2e-6
        below = value().item()
        with torch.no_grad():
            weight[index] += 1e-6
        assert gradient[index].item() == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-8)


def test_a_dead_discriminator_has_a_finite_gradient() -> None:
    """The norm has no derivative at 0."""
    network = Flat(nn.Linear(18, 1).double())
    nn.init.zeros_(network.layers[0].weight)  # type: ignore[arg-type]
    for penalty in (GradientPenalty(), Dragan(), R1()):
        value = penalty.penalty(step_of(network, REAL, FAKE))
        (gradient,) = torch.autograd.grad(value, network.layers[0].weight)
        assert gradient.isfinite().all()


def test_under_bfloat16_they_are_those_of_float32() -> None:
    torch.manual_seed(0)
    network = Flat(nn.Linear(18, 32), nn.Tanh(), nn.Linear(32, 1))
    real, fake = REAL.float(), FAKE.float()
    for penalty in (R1(), R2(), GradientPenalty(), Dragan()):
        torch.manual_seed(1)
        expected = penalty.penalty(step_of(network, real, fake)).item()
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            step = step_of(network, real, fake)
            assert step.real_logits.dtype == torch.bfloat16
            assert penalty.penalty(step).item() == expected
    assert math.isfinite(expected)
