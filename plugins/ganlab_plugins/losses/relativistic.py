"""Relativistic losses (Jolicoeur-Martineau 2018, arXiv:1807.00734): how much more real an image is than its opposites.

The discriminator is trained to tell which side is real, and the generator to turn the answer round. Both gradients
depend on both logits.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor
from torch.nn.functional import softplus

from ganlab import Loss, Register, hookimpl


@frozen
class Relativistic:
    """The logistic loss of the difference of paired logits (RpGAN), R3GAN's too (Huang et al. 2024, 2501.05441)."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(real - fake).mean()


@frozen
class RelativisticAverage:
    """The logistic loss of each logit less the mean logit of the other side (RaGAN), both sides averaged.

    The paper's RaSGAN, halved, so that the loss of a discriminator that cannot tell is log 2, as it is for the pairs.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return (softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.discriminator(fake, real)


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("relativistic", Relativistic)
    register("relativistic_average", RelativisticAverage)
