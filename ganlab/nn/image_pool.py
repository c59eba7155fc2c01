"""`ImagePool`: generated images of earlier steps, with which a game's discriminator is trained besides the latest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganlab.protocols import ImageSpec, Turn
from ganlab.utils import distributed
from ganlab.utils.errors import ComponentError


class ImagePool:
    """A pool of generated images (Shrivastava et al. 2017, arXiv:1612.07828): half of each batch is exchanged.

    It belongs into a game's `Rules.state`, so that a run resumes to the bit. On several processes all have the same
    pool, of the images of all.
    """

    def __init__(self, size: int, images: ImageSpec) -> None:
        """An image pool of `size` images of this shape, at least as many as there are in a batch."""
        self.images = torch.zeros(size, *images.shape)
        self.filled = torch.zeros((), dtype=torch.int64)

    def exchange(self, turn: Turn, fake: Tensor) -> Tensor:
        """Returns a batch of generated images (n, C, H, W) with about half of them exchanged for some of the pool.

        An exchanged image takes the place of the one that is returned for it. Until the pool is full, images are put
        into it and returned as they are. Raises `ComponentError` for a batch larger than the pool.
        """
        every = turn.gather(fake.detach())
        count, size, device = len(every), len(self.images), fake.device
        if count > size:
            raise ComponentError(f"an image pool of {size} images is smaller than a batch of {count}")
        if self.images.device != device:
            self.images, self.filled = self.images.to(device), self.filled.to(device)
        full = self.filled >= size
        random_places = torch.rand(size, device=device, generator=turn.noise).argsort()[:count]
        places = torch.where(full, random_places, (self.filled + torch.arange(count, device=device)) % size)
        exchanged = (torch.rand(count, device=device, generator=turn.noise) < 0.5) & full
        old = self.images[places]
        each = (len(places), *[1] * (every.ndim - 1))
        self.images[places] = torch.where((exchanged | ~full).view(each), every, old)
        self.filled.add_(count).clamp_(max=size)
        first, end = distributed.local_share(count)
        return torch.where(exchanged.view(each), old, every)[first:end]

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": self.images, "filled": self.filled}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.images.copy_(state["images"])
        self.filled.copy_(state["filled"])
