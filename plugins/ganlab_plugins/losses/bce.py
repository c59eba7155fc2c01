"""Binary cross-entropy on logits: the loss of the first GAN (Goodfellow et al. 2014, arXiv:1406.2661)."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from ganlab import Loss, Register, hookimpl


@frozen
class BCE:
    """Binary cross-entropy of the discriminator's logits with label targets.

    reduction: whether the discriminator's terms for real and fake images are summed ("sum") or averaged ("mean").
    saturating: if False, the generator maximises log D(G(z)); if True, it minimises log(1 - D(G(z))), the minimax loss,
        whose gradient vanishes while the discriminator is confident.
    real_target, fake_target: the discriminator's target labels. The generator's target label is always 1.
    """

    reduction: Literal["sum", "mean"] = "sum"
    saturating: bool = False
    real_target: float = field(default=1.0, validator=[ge(0), le(1)])
    fake_target: float = field(default=0.0, validator=[ge(0), le(1)])

    generator_uses_real: ClassVar[bool] = False

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        total = _cross_entropy(real, self.real_target) + _cross_entropy(fake, self.fake_target)
        return total if self.reduction == "sum" else total / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        # log(1 - sigmoid(x)) = -softplus(x), and -log sigmoid(x) = softplus(-x).
        return -softplus(fake).mean() if self.saturating else softplus(-fake).mean()

    def with_targets(self, *, real: float, fake: float) -> BCE:
        return attrs.evolve(self, real_target=real, fake_target=fake)


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    # A schedule may replace the target by a tensor; `new_full` would copy its value to the host.
    return binary_cross_entropy_with_logits(logits, (logits.new_ones(()) * target).expand_as(logits))


@hookimpl
def register_losses(register: Register[Loss]) -> None:
    register("bce", BCE)
