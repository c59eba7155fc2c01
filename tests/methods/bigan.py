"""BiGAN: a discriminator of pairs of image and latent (Donahue et al. 2017, arXiv:1605.09782; 1606.00704 is alike)."""

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor, nn

import ganlab


class Encoder(nn.Module):
    """A fully connected encoder of images (N, C, H, W) to latents (N, latent_dim)."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.2), nn.Linear(width, latent_dim)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class Discriminator(nn.Module):
    """A fully connected discriminator of pairs of image and latent; it returns logits (N,)."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Linear(pixels + latent_dim, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        return self.layers(torch.cat([images.flatten(1), z], 1)).squeeze(1)


@frozen
class BiGAN:
    """A GAN whose discriminator tells pairs (image, its encoding) from pairs (generated image, its latent).

    generator: the network that generates images.
    loss: the adversarial loss; generator and encoder minimise it together, with the two kinds of pairs exchanged.
    width: units of the hidden layers of encoder and discriminator.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    width: int = field(default=256, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        def of_pairs(network: type[Encoder | Discriminator]) -> ganlab.Network:
            return ganlab.Network(
                lambda generator: network(data.images, ganlab.latent_dim_of(generator), self.width),
                given=("generator",),
            )

        return ganlab.Rules(
            networks={
                "generator": self.generator,
                "encoder": of_pairs(Encoder),
                "discriminator": of_pairs(Discriminator),
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("generator", players=("generator", "encoder"), terms=self.fool),
            ],
            sampler=ganlab.sampler_of("generator"),
            outputs={
                "reconstruction": lambda networks, images, condition: networks["generator"](
                    networks["encoder"](images), condition
                )
            },
        )

    def logits(self, turn: ganlab.Turn) -> tuple[Tensor, Tensor]:
        """The logits of pairs with real images, and of pairs with generated ones."""
        z = turn.normal(ganlab.latent_dim_of(turn.networks["generator"]))
        fake = turn.forward("generator", z, turn.condition).float()
        code = turn.forward("encoder", turn.real).float()
        real_logits = turn.forward("discriminator", turn.real, code)
        fake_logits = turn.forward("discriminator", fake, z)
        return turn.gather(real_logits.float()), turn.gather(fake_logits.float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        return self.loss.discriminator(*self.logits(turn))

    def fool(self, turn: ganlab.Turn) -> Tensor:
        """Both players move on inverse labels: log D of generated pairs and log (1 - D) of real ones (section 3.4)."""
        real_logits, fake_logits = self.logits(turn)
        return self.loss.discriminator(fake_logits, real_logits)


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_bigan", BiGAN)
