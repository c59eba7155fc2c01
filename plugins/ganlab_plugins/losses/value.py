"""The minimax game of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661, equation 1), with its value logged."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor
from torch.nn.functional import logsigmoid

from ganlab import Loss, Register, hookimpl


@frozen
class Value:
    """V(D, G) = E log D(x) + E log(1 - D(G(z))), which one player raises and the other lowers.

    It is logged as `value`: 0 for a discriminator that is always right, -log 4 where it cannot tell. The generator's
    gradient vanishes while the discriminator is sure; `bce` has the loss that the paper itself trains with.
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self._value(real, fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return logsigmoid(-fake).mean()  # the real images' half is a constant to it

    def measures(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"value": self._value(real, fake)}

    def _value(self, real: Tensor, fake: Tensor) -> Tensor:
        return logsigmoid(real).mean() + logsigmoid(-fake).mean()


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("value", Value)
