"""The hinge loss (Lim and Ye 2017, arXiv:1705.02894; Tran et al. 2017, arXiv:1702.08896), used by SNGAN and BigGAN."""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen
from attrs.validators import gt, le
from torch import Tensor

from ganlab import Loss, Register, hookimpl


@frozen
class Hinge:
    """Hinge loss: only logits within the margin or on the wrong side of 0 contribute to the discriminator's loss.

    The generator maximises the mean logit of its images.

    margin: the distance from 0 beyond which a correct logit contributes nothing to the discriminator's loss.
    """

    margin: float = field(default=1.0, validator=[gt(0), le(1e6)])

    generator_uses_real: ClassVar[bool] = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (self.margin - real).relu().mean() + (self.margin + fake).relu().mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("hinge", Hinge)
