"""R1 and R2: zero-centred gradient penalties at real and at fake images (Mescheder et al. 2018, arXiv:1801.04406)."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Penalty, Register, Step, hookimpl


@frozen
class _ZeroCentred:
    """Base of R1 and R2: gamma / 2 times the mean over images of the discriminator's squared gradient norm.

    gamma: the factor (10 in the paper's experiments).
    every: add the term on every k-th update, times k (16 in StyleGAN2).
    player: the name of the network whose loss it is added to, or of a table; "discriminator" unless given.
    """

    gamma: float = field(default=10.0, validator=[ge(0), le(1e9)])
    every: int = field(default=1, validator=[ge(1), le(10**12)])
    _player: str | None = None

    @property
    def player(self) -> str:
        return self._player or "discriminator"

    def _penalty(self, step: Step, images: Tensor) -> Tensor:
        return self.gamma / 2 * step.gradient_at(images).square().flatten(1).sum(1).mean()


@frozen
class R1(_ZeroCentred):
    """R1: gamma / 2 times the mean over real images of the squared norm of the discriminator's gradient.

    gamma: the factor (10 in the paper's experiments).
    every: add the term on every k-th update, times k (16 in StyleGAN2).
    player: the name of the network whose loss it is added to, or of a table; "discriminator" unless given.
    """

    def penalty(self, step: Step) -> Tensor:
        return self._penalty(step, step.real)


@frozen
class R2(_ZeroCentred):
    """R2: gamma / 2 times the mean over fake images of the squared norm of the discriminator's gradient.

    gamma: the factor (10 in the paper's experiments).
    every: add the term on every k-th update, times k.
    player: the name of the network whose loss it is added to, or of a table; "discriminator" unless given.
    """

    def penalty(self, step: Step) -> Tensor:
        return self._penalty(step, step.fake)


@hookimpl
def register_penalties(register: Register[Penalty]) -> None:
    register("r1", R1)
    register("r2", R2)
