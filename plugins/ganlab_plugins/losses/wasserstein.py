"""The Wasserstein loss of WGAN (Arjovsky et al. 2017, arXiv:1701.07875).

The discriminator is a critic, which must be kept Lipschitz: by the penalty `gradient_penalty` (WGAN-GP), by spectral
normalisation, or by clipping its weights (`clip_weights` of the optimiser `rmsprop`), as WGAN did. Its output is
unbounded, and its offset may drift.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Loss, Register, hookimpl


@frozen
class Wasserstein:
    """Wasserstein loss: the critic's mean output on fake images minus that on real images.

    The generator maximises the critic's mean output on its images.

    drift: weight of the critic's mean squared output on real images, which keeps the output near 0 (0.001 in Karras et
        al. 2018, arXiv:1710.10196).
    """

    drift: float = field(default=0.0, validator=[ge(0), le(1e6)])

    generator_uses_real: ClassVar[bool] = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean() + self.drift * real.square().mean()

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def measures(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The critic's estimate of the Wasserstein distance, without the drift term."""
        return {"wasserstein_distance": real.mean() - fake.mean()}


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("wasserstein", Wasserstein)
