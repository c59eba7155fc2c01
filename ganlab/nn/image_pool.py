"""`ImagePool`: generated images of earlier steps, with which a game's discriminator is trained besides the latest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from ganlab.protocols import ImageSpec, Turn
from ganlab.utils.errors import ComponentError


class ImagePool:
    """A pool of generated images (Shrivastava et al. 2017, arXiv:1612.07828): half of each batch is exchanged.

    It belongs into a game's `Rules.state`, so that a run resumes to the bit. On several processes all have the same
    pool, of the images of all. `train.accumulate` changes nothing: all parts of a batch see the pool before the update.
    """

    def __init__(self, size: int, images: ImageSpec) -> None:
        """An image pool of `size` images of this shape."""
        self.images = torch.zeros(size, *images.shape)
        self.filled = torch.zeros((), dtype=torch.int64)

    def exchange(self, turn: Turn, fake: Tensor) -> Tensor:
        """Returns a batch of generated images (n, C, H, W) with about half of them exchanged for some of the pool.

        An exchanged image takes the place of the one that is returned for it. Until the pool is full, images are put
        into it and returned as they are. Of a batch larger than the pool only as many images as it has take part.
        Raises `ComponentError` for images that are not one or several for each real image.
        """
        size, device = len(self.images), fake.device
        each, rest = divmod(len(fake), len(turn.real))
        if rest or not each:
            raise ComponentError(
                f"an image pool exchanges a batch of {len(turn.real)} images, or several; got {len(fake)}"
            )
        if self.images.device != device:
            self.images, self.filled = self.images.to(device), self.filled.to(device)

        def places(count: int, generator: torch.Generator | None) -> Tensor:
            """Different places of the pool for the images of a batch, and `size` for those that find none."""
            drawn = torch.rand(size, device=device, generator=generator).argsort()[: count * each]
            return pad(drawn, (0, count * each - len(drawn)), value=size).view(count, each)

        place = turn.draw(places).flatten()
        chance = turn.draw(lambda count, random: torch.rand(count, each, device=device, generator=random)).flatten()
        number = turn.draw(lambda count, _: torch.arange(count * each, device=device).view(count, each)).flatten()
        full = self.filled >= size
        exchanged = (chance < 0.5) & full & (place < size)

        def put(latest: Tensor, place: Tensor, exchanged: Tensor, number: Tensor) -> None:
            """Puts the images of a whole batch into the pool."""
            to = torch.where(full, place, torch.where(number < size, (self.filled + number) % size, size))
            # Those that find no place are put behind its end.
            target = self.images if len(latest) <= size else torch.cat([self.images, self.images[:1]])
            kept = (exchanged.bool() | ~full).view(len(latest), *[1] * (latest.ndim - 1))
            target[to] = torch.where(kept, latest, target[to])
            if target is not self.images:
                self.images.copy_(target[:size])
            self.filled.add_(len(latest)).clamp_(max=size)

        turn.update_state(put, fake, place, exchanged.long(), number)
        old = self.images[place.clamp(max=size - 1)]
        return torch.where(exchanged.view(len(fake), *[1] * (fake.ndim - 1)), old, fake.detach())

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": self.images, "filled": self.filled}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.images.copy_(state["images"])
        self.filled.copy_(state["filled"])
