"""Penalties on the discriminator's gradient norm: WGAN-GP's between real and fake images, DRAGAN's near real images."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Penalty, Register, Step, hookimpl


@frozen
class _GradientNorm:
    weight: float = field(default=10.0, validator=[ge(0), le(1e9)])
    norm: float = field(default=1.0, validator=[ge(0), le(1e9)])
    one_sided: bool = False
    every: int = field(default=1, validator=[ge(1), le(10**12)])
    _player: str | None = None

    @property
    def player(self) -> str:
        return self._player or "discriminator"

    def _penalty(self, step: Step, images: Tensor) -> Tensor:
        excess = torch.linalg.vector_norm(step.gradient_at(images).flatten(1), dim=1) - self.norm
        squares: Tensor = (excess.relu() if self.one_sided else excess).square()
        return self.weight * squares.mean()


@frozen
class GradientPenalty(_GradientNorm):
    """WGAN-GP: gradient norm at random points between real and fake images (Gulrajani et al. 2017, arXiv:1704.00028).

    weight: the factor (lambda in the paper).
    norm: the target norm of the gradient.
    one_sided: penalise only norms above the target (Petzka et al. 2018, arXiv:1709.08894).
    every: add the term on every k-th update, times k.
    player: the name of the network whose loss it is added to, or of a table; "discriminator" unless given.
    """

    def penalty(self, step: Step) -> Tensor:
        each = [1] * (step.real.ndim - 1)
        share = torch.rand(len(step.real), *each, device=step.real.device, dtype=step.real.dtype)
        return self._penalty(step, torch.lerp(step.fake, step.real, share))


@frozen
class Dragan(_GradientNorm):
    """DRAGAN: gradient norm at noisy real images (Kodali et al. 2017, arXiv:1705.07215), with `bce` as the loss.

    weight: the factor (lambda in the paper).
    norm: the target norm of the gradient (k in the paper).
    one_sided: penalise only norms above the target.
    noise: the noise's standard deviation, in units of the standard deviation of the batch's pixels. The noise is
        normal, as in the paper's text; the authors' code draws it uniformly, from 0 to 0.5 of that unit.
    every: add the term on every k-th update, times k.
    player: the name of the network whose loss it is added to, or of a table; "discriminator" unless given.
    """

    noise: float = field(default=0.5, validator=[ge(0), le(1e6)])

    def penalty(self, step: Step) -> Tensor:
        near = step.real + self.noise * step.real.std() * torch.randn_like(step.real)
        return self._penalty(step, near)


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("gradient_penalty", GradientPenalty)
    register("dragan", Dragan)
