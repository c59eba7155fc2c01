"""PacGAN (Lin et al. 2018, arXiv:1712.04086): a wrapper by which a discriminator classifies packs of several images.

If a generator lacks modes, several of its images differ less from each other than several real ones do.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, le
from torch import Tensor, nn

from ganlab import ComponentError, ImageSpec, NetworkConfig, Register, component, hookimpl, initialise_network


class _Packed(nn.Module):
    def __init__(self, network: nn.Module, size: int) -> None:
        super().__init__()
        self.network, self.size = network, size
        # In a joined batch, real and fake, a pack would have images of both where `size` does not divide each half, as
        # when a batch passes in parts.
        self.batch_independent = size == 1 and bool(getattr(network, "batch_independent", False))

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        count = len(images)
        # The last pack is filled with images from the start of the batch.
        members = torch.arange(count + -count % self.size, device=images.device) % count
        packs = images[members].unflatten(0, (-1, self.size)).flatten(1, 2)
        logits: Any = self.network(packs, None)
        if not isinstance(logits, Tensor):
            raise ComponentError("packed: needs a network that returns logits only, without a class head")
        return logits.repeat_interleave(self.size)[:count]


@frozen
class Packed:
    """PacGAN: a discriminator of packs of images, concatenated along the channels. An image's logit is its pack's.

    A gradient penalty counts that logit once for each image of the pack: `r1` and `r2` are `size` times those of packs,
    and gradient norms are those of single images, not of packs as in PacWGAN-GP.

    network: the discriminator of packs.
    size: images in a pack (m in the paper; PacGAN2 has 2). It should divide the batch size.
    """

    network: NetworkConfig = component("discriminator", default="mlp")
    size: int = field(default=2, validator=[ge(1), le(1024)])

    def build(self, images: ImageSpec) -> nn.Module:
        # A pack has no class, so a network that needs class labels is refused.
        packs = attrs.evolve(images, channels=images.channels * self.size, classes=None)
        return _Packed(self.network.build(packs), self.size)

    def initialise(self, network: nn.Module) -> None:
        initialise_network(self.network, network.get_submodule("network"))


@hookimpl
def register_discriminators(register: Register[NetworkConfig]) -> None:
    register("packed", Packed)
