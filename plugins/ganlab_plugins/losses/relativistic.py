"""The relativistic pairing loss, RpGAN (Jolicoeur-Martineau 2018, arXiv:1807.00734), R3GAN's loss (arXiv:2501.05441).

Each real image is judged against one fake image: the discriminator is trained to tell which of the two is real, and the
generator to turn the answer round. Both gradients depend on both logits.
"""

from __future__ import annotations

from attrs import frozen
from torch import Tensor
from torch.nn.functional import softplus

from ganlab import Loss, Register, hookimpl


@frozen
class Relativistic:
    """The logistic loss of the difference of paired logits."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(real - fake).mean()


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("relativistic", Relativistic)
