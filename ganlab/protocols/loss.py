"""ganlab.protocols.loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Loss(Protocol):
    """Both players' objectives on logits. Each method is given both batches of logits, (N,), and returns a scalar.

    `generator` may leave `real` unused: build finds that out, and only where it is used does the step compute it.

    A loss may also have `measures(real, fake)`: scalars by name, of the discriminator's logits at its update, that are
    logged beside the losses.
    """

    def discriminator(self, real: Tensor, fake: Tensor, /) -> Tensor: ...

    def generator(self, real: Tensor, fake: Tensor, /) -> Tensor: ...


@runtime_checkable
class TargetedLoss(Loss, Protocol):
    """A loss that compares the discriminator's logits with a label for real and one for fake."""

    def with_targets(self, *, real: float, fake: float) -> TargetedLoss:
        """A copy whose discriminator is trained towards these labels."""
        ...


@runtime_checkable
class LossWrapper(Protocol):
    """Turns a loss into another. Raises `ComponentError` for a loss that it cannot wrap."""

    def __call__(self, loss: Loss, /) -> Loss: ...
