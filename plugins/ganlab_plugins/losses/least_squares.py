"""The least squares loss of LSGAN (Mao et al. 2017, arXiv:1611.04076)."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Loss, Register, hookimpl


def _target(default: float) -> Any:
    return field(default=default, validator=[ge(-1e6), le(1e6)])


@frozen
class LeastSquares:
    """Least squares: half the squared difference of the discriminator's outputs and label targets (equation 2).

    real_target, fake_target: the discriminator's target labels (b and a in the paper).
    generator_target: the generator's target label for its images (c in the paper).
    """

    real_target: float = _target(1.0)
    fake_target: float = _target(0.0)
    generator_target: float = _target(1.0)

    generator_uses_real: ClassVar[bool] = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.real_target).square().mean() + (fake - self.fake_target).square().mean()) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - self.generator_target).square().mean() / 2

    def with_targets(self, *, real: float, fake: float) -> LeastSquares:
        return attrs.evolve(self, real_target=real, fake_target=fake)


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("least_squares", LeastSquares)
