"""The minimax loss of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661, equation 1), whose value is logged."""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen
from torch import Tensor
from torch.nn.functional import logsigmoid

from ganlab import Loss, Register, hookimpl


@frozen
class Minimax:
    """The minimax game V(D, G) = E log D(x) + E log(1 - D(G(z))): D maximises it, G minimises it.

    V is logged as `value`: 0 for a discriminator that is always right, -log 4 for one that cannot tell real from fake.
    The generator's gradient vanishes while the discriminator is confident; `bce` is the non-saturating loss that the
    paper trains with.
    """

    generator_uses_real: ClassVar[bool] = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self._value(real, fake)

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        return logsigmoid(-fake).mean()  # the term of the real images is constant with respect to the generator

    def measures(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {"value": self._value(real, fake)}

    def _value(self, real: Tensor, fake: Tensor) -> Tensor:
        return logsigmoid(real).mean() + logsigmoid(-fake).mean()


@frozen
class Value(Minimax):
    """The former name of `minimax`, kept for experiment files and runs that use it."""


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("minimax", Minimax)
    register("value", Value)
