"""What a penalty sees, made by hand of one discriminator and of images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ganlab import Step


class Flat(nn.Module):
    """Judges images, taken as vectors, by a network of vectors."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor, condition: Tensor | None) -> Tensor:
        logits: Tensor = self.layers(images.flatten(1)).squeeze(1)
        return logits


def step_of(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    generator: nn.Module | None = None,
    player: str = "discriminator",
) -> Step:
    return Step(
        player=player,
        generator=generator or nn.Identity(),
        discriminator=discriminator,
        real=real,
        fake=fake,
        real_logits=discriminator(real, None),
        fake_logits=discriminator(fake, None),
        condition=None,
        images_seen=torch.zeros((), dtype=torch.int64),
    )
