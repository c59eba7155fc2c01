"""The Wasserstein loss (Arjovsky et al. 2017, arXiv:1701.07875).

The discriminator is a critic, which has to be kept Lipschitz: by the penalty `gradient_penalty` (WGAN-GP), or by
spectral norm. Nothing bounds its output, which may drift as a whole.
"""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Loss, Register, hookimpl


@frozen
class Wasserstein:
    """The critic's mean on fake images less its mean on real ones; the generator raises the first.

    drift: weight of the mean square of the critic's output on real images, which keeps it near 0 (Karras et al. 2018,
        arXiv:1710.10196, take 0.001).
    """

    drift: float = field(default=0.0, validator=[ge(0), le(1e6)])

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean() + self.drift * real.square().mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def measures(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The critic's estimate of the distance, without the drift."""
        return {"wasserstein_distance": real.mean() - fake.mean()}


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("wasserstein", Wasserstein)
