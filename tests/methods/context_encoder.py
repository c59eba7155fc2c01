"""Context encoders: a network fills what a mask hides (Pathak et al. 2016, arXiv:1604.07379)."""

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le
from torch import Tensor, nn

import ganlab


class Filler(nn.Module):
    """A convolutional encoder and decoder, from images with their masks to images."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(images.channels + 1, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, images.channels, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Fills images (N, C, H, W) where the mask (N, 1, H, W) is 1; the other pixels stay."""
        return torch.where(mask > 0, self.layers(torch.cat([images * (1 - mask), mask], 1)), images)


class Discriminator(nn.Module):
    """A convolutional discriminator; it returns logits (N,)."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(images.channels, width, 4, 2, 1), nn.LeakyReLU(0.2))
        self.last = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.layers(images).mean((2, 3))).squeeze(1)


@frozen
class ContextEncoder:
    """A network that fills a random square of each image, trained on the squared error and a discriminator.

    loss: the adversarial loss, of the whole filled images.
    side: the side of the square, as a share of the image's height and width.
    reconstruction, adversarial: the factors of the squared error of the hidden pixels and of the adversarial loss.
    width: channels of the networks.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    side: float = field(default=0.5, validator=[gt(0), le(1)])
    reconstruction: float = field(default=0.999, validator=ge(0))
    adversarial: float = field(default=0.001, validator=ge(0))
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        if data.images.height % 2 or data.images.width % 2:
            raise ganlab.ComponentError(
                f"fills images of even height and width, not {data.images.height} x {data.images.width}"
            )
        return ganlab.Rules(
            networks={
                "filler": ganlab.Network(lambda: Filler(data.images, self.width)),
                "discriminator": ganlab.Network(lambda: Discriminator(data.images, self.width)),
            },
            moves=[
                ganlab.Move("filler", players=("filler",), terms=self.fill),
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
            ],
            sampler=ganlab.Sampler(
                networks=("filler",),
                images=lambda networks, places, images: networks["filler"](images, self.mask(places, images)),
                latents=self.places,
                source="dataset",
            ),
        )

    def places(
        self, networks: Mapping[str, nn.Module], count: int, random: torch.Generator, truncation: float | None
    ) -> Tensor:
        """Places of the squares of samples, which are their latents."""
        return torch.rand(count, 2, generator=random)

    def mask(self, places: Tensor, images: Tensor) -> Tensor:
        """Masks (N, 1, H, W) of images: 1 in the square at a place (N, 2), in [0, 1] of where it can lie."""
        inside = []
        for place, size in zip(places.unbind(1), images.shape[2:], strict=True):
            first = place[:, None] * (1 - self.side)
            middles = (torch.arange(size, device=images.device) + 0.5) / size
            inside.append(((middles >= first) & (middles <= first + self.side)).float())
        return (inside[0][:, :, None] * inside[1][:, None, :])[:, None]

    def fill(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        real = turn.real
        places = turn.draw(lambda count, random: torch.rand(count, 2, device=real.device, generator=random))
        mask = self.mask(places, real)
        filled = turn.forward("filler", real, mask).float()
        turn.kept["filled"] = filled.detach()
        hidden = mask.expand_as(real).flatten(1)
        errors = ((filled - real).square().flatten(1) * hidden).sum(1) / hidden.sum(1).clamp(min=1)
        adversarial = self.loss.generator(self.logits(turn, real), self.logits(turn, filled))
        return {
            "reconstruction": self.reconstruction * errors.mean(),
            "adversarial": self.adversarial * adversarial,
        }

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        return self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, turn.kept["filled"]))


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("context_encoder", ContextEncoder)
