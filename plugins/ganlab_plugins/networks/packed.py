"""PacGAN (Lin et al. 2018, arXiv:1712.04086): a discriminator that judges several images together.

Where a generator lacks modes, several of its images differ less from each other than several real ones do.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import ComponentError, ImageSpec, NetworkConfig, Register, component, hookimpl


class _Packed(nn.Module):
    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        count = len(images)
        # The last pack is filled from the front.
        members = torch.arange(count + -count % self.size, device=images.device) % count
        packs = images[members].unflatten(0, (-1, self.size)).flatten(1, 2)
        said: Any = self.network(packs, None)
        if not isinstance(said, Tensor):
            raise ComponentError("packed: needs a network that gives bare logits, so without classes")
        return said.repeat_interleave(self.size)[:count]


@frozen
class Packed:
    """A discriminator of packs of images, side by side in its channels. Each image is given its pack's logit.

    A penalty on gradients by images counts that logit once for each image of the pack: `r1` and `r2` are `size` times
    those of packs, and norms are held for each image, not for the pack as in PacWGAN-GP.

    network: the discriminator that judges a pack.
    size: images in a pack (m in the paper; PacGAN2 has 2). It should divide the batch.
    """

    network: NetworkConfig = component("discriminator", default="mlp")
    size: int = field(default=2, validator=[ge(1), le(1024)])

    def build(self, images: ImageSpec) -> nn.Module:
        # A pack has no class, so networks that need one refuse.
        packs = attrs.evolve(images, channels=images.channels * self.size, classes=None)
        return _Packed(self.network.build(packs), self.size)


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("packed", Packed)
