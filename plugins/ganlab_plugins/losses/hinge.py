"""The hinge loss (Lim and Ye 2017, arXiv:1705.02894; Tran et al. 2017, arXiv:1702.08896), SNGAN's and BigGAN's."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import gt, le
from torch import Tensor

from ganlab import Loss, Register, hookimpl


@frozen
class Hinge:
    """The discriminator learns from logits on the wrong side of the margin only; the generator raises its own.

    margin: how far beyond 0 a logit must lie until it costs the discriminator nothing.
    """

    margin: float = field(default=1.0, validator=[gt(0), le(1e6)])

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (self.margin - real).relu().mean() + (self.margin + fake).relu().mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("hinge", Hinge)
