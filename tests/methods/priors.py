"""Priors of latents besides the normal one, for a fully convolutional generator as DCGAN's (arXiv:1511.06434)."""

from collections.abc import Mapping
from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Generator(nn.Module):
    """A fully convolutional generator, from latents (N, latent_dim, 1, 1)."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(latent_dim, width, (-(-images.height // 4), -(-images.width // 4))),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, 2, 1),
            nn.ReLU(),
            nn.Upsample((images.height, images.width)),
            nn.Conv2d(width, images.channels, 3, 1, 1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


@frozen
class Priors:
    """A GAN with a prior to choose, and latents (N, latent_dim, 1, 1).

    discriminator: the network that tells real from generated images.
    loss: the adversarial loss.
    prior: "uniform" in [-1, 1], "truncated": a normal distribution within [-2, 2], or a "mixture" of normal
        distributions of equal weights, whose means are `distance` from 0 in a direction each.
    components: normal distributions in the mixture.
    distance: of their means from 0.
    latent_dim: size of the latent.
    width: channels of the generator.
    """

    discriminator: ganlab.NetworkConfig = ganlab.component("discriminator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    prior: Literal["uniform", "truncated", "mixture"] = "uniform"
    components: int = field(default=10, validator=ge(1))
    distance: float = field(default=3.0, validator=gt(0))
    latent_dim: int = field(default=100, validator=ge(1))
    width: int = field(default=64, validator=ge(1))

    def __attrs_post_init__(self) -> None:
        if self.prior == "mixture" and self.components > self.latent_dim:
            raise ValueError(f"components: {self.components} are more than the {self.latent_dim} of latent_dim")

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "generator": ganlab.Network(lambda: Generator(data.images, self.latent_dim, self.width)),
                "discriminator": self.discriminator,
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("generator",), terms=self.fool),
            ],
            sampler=ganlab.Sampler(("generator",), lambda networks, z, _: networks["generator"](z), self.sample),
        )

    def sample(
        self, networks: Mapping[str, nn.Module], count: int, random: torch.Generator, truncation: float | None
    ) -> Tensor:
        if truncation is not None:
            raise ganlab.ComponentError(f"truncation is of a normal prior; this one is {self.prior!r}")
        return self.drawn(count, random, torch.device("cpu"))

    def drawn(self, count: int, random: torch.Generator | None, device: torch.device) -> Tensor:
        z = torch.empty(count, self.latent_dim, 1, 1, device=device)
        if self.prior == "uniform":
            return z.uniform_(-1, 1, generator=random)
        if self.prior == "truncated":
            return nn.init.trunc_normal_(z, generator=random)
        chosen = torch.randint(self.components, (count, 1, 1, 1), device=device, generator=random)
        means = chosen == torch.arange(self.latent_dim, device=device)[:, None, None]
        return z.normal_(generator=random) + self.distance * means

    def fake(self, turn: ganlab.Turn) -> Tensor:
        z = turn.draw(lambda count, random: self.drawn(count, random, turn.real.device))
        return turn.forward("generator", z).float()

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        output = turn.forward("discriminator", turn.augment(images), turn.condition)
        return turn.gather(ganlab.logits_per_image(output).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fake = self.fake(turn)
        return self.loss.discriminator(self.logits(turn, turn.real), self.logits(turn, fake))

    def fool(self, turn: ganlab.Turn) -> Tensor:
        return self.loss.generator(self.logits(turn, turn.real), self.logits(turn, self.fake(turn)))


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("priors", Priors)
