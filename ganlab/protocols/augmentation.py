"""The protocol of an augmentation: a differentiable change of the images that the discriminator sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Augmentation(Protocol):
    """An augmentation's protocol: a differentiable change of each image by itself, before the discriminator.

    Optional methods:
    `observe(real_logits)` is called in each update of the discriminator with the logits (N,) of the augmented real
    images of all processes, detached. State that it keeps of them must be tensors that it changes in place and returns
    from `state_dict`.
    `measures()` returns scalars by name, which are logged.

    Optional attribute `of_pixels`: True declares that its amounts are those of pixels in [-1, 1]. Float32 data outside
    that range are then refused before training.
    """

    def augment(self, images: Tensor, /) -> Tensor:
        """An augmentation's protocol: returns the changed images, (N, C, H, W); each depends on its own image alone."""
        ...
