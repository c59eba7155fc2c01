"""Relativistic losses (Jolicoeur-Martineau 2018, arXiv:1807.00734), on the difference of real and fake logits.

The discriminator is trained to make real logits larger than fake ones, the generator to do the opposite. Both losses
depend on the real and the fake logits.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor
from torch.nn.functional import softplus

from ganlab import Loss, Register, hookimpl


@frozen
class Relativistic:
    """Relativistic pairing loss (RpGAN): logistic, of paired logits' difference. Used by R3GAN (arXiv:2501.05441)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(real - fake).mean()


@frozen
class RelativisticAverage:
    """Relativistic average loss (RaSGAN): logistic, of each logit minus the mean logit of the other kind.

    Half of the paper's sum, so that a discriminator that cannot tell real from fake has loss log 2, as with pairs.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.discriminator(fake, real)


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("relativistic", Relativistic)
    register("relativistic_average", RelativisticAverage)
