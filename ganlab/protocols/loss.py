"""The protocols of a loss, of a loss with label targets, and of a loss wrapper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ganlab.utils.errors import ComponentError, one_line

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Loss(Protocol):
    """A loss's protocol: both players' objectives, each a scalar of the logits (N,) of real and of fake images.

    Optional class attribute `generator_uses_real: ClassVar[bool]`: False declares that the value of `generator` does
    not depend on `real`. The generator's update then computes no logits of real images, and `real` is zeros. Absent
    means True, which is always safe.

    Optional method `measures(real, fake)`: scalars by name of the discriminator's logits at its update, which are
    logged with the losses.
    """

    def discriminator(self, real: Tensor, fake: Tensor, /) -> Tensor:
        """A loss's protocol: returns the discriminator's loss of the logits of real and of fake images."""
        ...

    def generator(self, real: Tensor, fake: Tensor, /) -> Tensor:
        """A loss's protocol: returns the generator's loss. `real` has no gradient."""
        ...


@runtime_checkable
class TargetedLoss(Loss, Protocol):
    """A loss's protocol, with label targets: it compares logits with one label for real and one for fake."""

    def with_targets(self, *, real: float, fake: float) -> TargetedLoss:
        """A loss's protocol: returns a copy whose discriminator is trained towards these labels."""
        ...


@runtime_checkable
class LossWrapper(Protocol):
    """A loss's protocol, for wrappers: maps a loss to another one, such as one with smoothed labels."""

    def __call__(self, loss: Loss, /) -> Loss:
        """A loss's protocol, for wrappers: returns the wrapped loss; raises `ComponentError` where it cannot."""
        ...


def generator_uses_real(loss: Loss) -> bool:
    """A loss's protocol: its `generator_uses_real`, True where absent; raises `ComponentError` if it is not a bool."""
    declared = getattr(loss, "generator_uses_real", True)
    if not isinstance(declared, bool):
        raise ComponentError(f"generator_uses_real is {one_line(repr(declared), 60)}; expected True or False")
    return declared
