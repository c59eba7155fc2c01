"""Random horizontal flips."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor

from ganlab import Augmentation, ComponentError, Register, hookimpl


@frozen
class Flip:
    """Flips each image, real or fake, horizontally with a given probability.

    probability: of a flip. At 1/2 the discriminator cannot tell mirrored images, so generated images may be mirrored.
    """

    probability: float = field(default=0.5, validator=[ge(0), le(1)])

    def augment(self, images: Tensor) -> Tensor:
        if images.ndim != 4:
            raise ComponentError(
                f"a flip is of images (N, C, H, W); got data (N, {', '.join(map(str, images.shape[1:]))})"
            )
        mirrored = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
        return torch.where(mirrored, images.flip(3), images)


@hookimpl
def register_augmentations(register: Register[Augmentation]) -> None:
    register("flip", Flip)
