"""pix2pix: translation of paired images (Isola et al. 2017, arXiv:1611.07004), with its discriminator of patches."""

import torch
from attrs import field, frozen
from attrs.validators import ge, lt
from torch import Tensor, nn

import ganlab


class UNet(nn.Module):
    """A small U-Net from images to images; its noise are rows (N, width) in [0, 1], by which channels are dropped."""

    def __init__(self, given: int, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(given, width, 4, 2, 1), nn.LeakyReLU(0.2))
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.InstanceNorm2d(width), nn.ReLU())
        self.dropout = dropout
        self.up = nn.ConvTranspose2d(2 * width, channels, 4, 2, 1)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        features = self.down(images)
        middle = self.middle(features)
        if noise is not None:
            middle = middle * (noise >= self.dropout)[:, :, None, None] / (1 - self.dropout)
        return torch.tanh(self.up(torch.cat([features, middle], 1)))


class Patches(nn.Module):
    """PatchGAN: a map of logits (N, 1, h, w), each of a patch of an image and its condition."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, 1, 1)
        )

    def forward(self, images: Tensor, condition: Tensor) -> Tensor:
        return self.layers(torch.cat([images, condition], 1))


@frozen
class Pix2Pix:
    """A conditional GAN that translates the images that are conditions in `[dataset]` into its images.

    loss: the adversarial loss, of patches.
    absolute: the weight of the generator's absolute error.
    dropout: the generator's dropout, its only noise; samples have it too. It is drawn as latents are.
    width: channels of the networks.
    """

    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    absolute: float = field(default=100.0, validator=ge(0))
    dropout: float = field(default=0.5, validator=[ge(0), lt(1)])
    width: int = field(default=32, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        images = data.images
        if images.condition_shape is None or images.condition_shape[1:] != (images.height, images.width):
            raise ganlab.ComponentError("translates images: [dataset] must have images of the same size as conditions")
        given, channels = images.condition_shape[0], images.channels
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: UNet(given, channels, self.width, self.dropout)),
                "discriminator": ganlab.Network(lambda: Patches(given + channels, self.width)),
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.translate),
            ],
            sampler=ganlab.Sampler(
                networks=("generator",),
                images=lambda networks, noise, condition: networks["generator"](condition, noise),
                latents=lambda networks, count, random, truncation: torch.rand(count, self.width, generator=random),
            ),
        )

    def fake(self, turn: ganlab.Turn) -> Tensor:
        noise = turn.draw(lambda n, r: torch.rand(n, self.width, device=turn.real.device, generator=r))
        return turn.forward("generator", turn.condition, noise).float()

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images, turn.condition).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = self.fake(turn)
        return 0.5 * self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, fake))

    def translate(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        fake = self.fake(turn)
        return {
            "adversarial": self.loss.generator(self.logits(turn, turn.real), self.logits(turn, fake)),
            "absolute": self.absolute * (fake - turn.real).abs().mean(),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_pix2pix", Pix2Pix)
