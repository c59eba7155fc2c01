"""ganlab.protocols.augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Augmentation(Protocol):
    """A differentiable change of each image for itself, applied to all that the discriminator sees, real and fake.

    It may also have `observe(real_logits)`: in each update of the discriminator it is given the logits (N,) of the real
    images, as it augmented them, of all processes and without a gradient. What it keeps of them are tensors that it
    changes in place and gives in `state_dict`. It may also have `measures()`: scalars by name that are then logged.
    """

    def augment(self, images: Tensor, /) -> Tensor: ...
