"""VAE/GAN: a variational autoencoder with an error of learned features (Larsen et al. 2016, arXiv:1512.09300)."""

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Encoder(nn.Module):
    """A fully connected encoder of images to the means and log variances of latents, each (N, latent_dim)."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * latent_dim))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(images).chunk(2, 1)
        return mean, log_variance


class Discriminator(nn.Module):
    """A convolutional discriminator that returns its logits (N,) and the features of an inner layer (N, C, H, W)."""

    def __init__(self, images: ganlab.ImageSpec, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(images.channels, width, 3, 1, 1), nn.LeakyReLU(0.2))
        self.inner = nn.Conv2d(width, width, 4, 2, 1)
        self.last = nn.Linear(width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.inner(self.first(images))
        return self.last(nn.functional.leaky_relu(features, 0.2).mean((2, 3))).squeeze(1), features


@frozen
class VAEGAN:
    """A VAE whose decoder is the generator of a GAN; encoder and decoder move together (algorithm 1).

    generator: the decoder, from latents to images.
    loss: the adversarial loss. Reconstructions and samples of the prior are both fakes.
    gamma: how much of the decoder's loss is the error of features; in the encoder's loss that error counts fully.
    prior_weight: the factor of the divergence of the encodings from the prior.
    width: units and channels of encoder and discriminator.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    gamma: float = field(default=0.01, validator=gt(0))
    prior_weight: float = field(default=1.0, validator=ge(0))
    width: int = field(default=64, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "decoder": ganlab.Network(self.generator, table="generator"),
                "encoder": ganlab.Network(
                    lambda decoder: Encoder(data.images, ganlab.latent_dim_of(decoder), self.width), given=("decoder",)
                ),
                "discriminator": ganlab.Network(lambda: Discriminator(data.images, self.width)),
            },
            moves=[
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("autoencoder", players=("encoder", "decoder"), terms=self.reconstruct),
            ],
            sampler=ganlab.sampler_of("decoder"),
            outputs={
                "reconstruction": lambda networks, images, condition: networks["decoder"](
                    networks["encoder"](images)[0], condition
                )
            },
        )

    def encode(self, turn: ganlab.Turn) -> tuple[Tensor, Tensor]:
        """Latents of the real images, and the divergence of their distributions from the prior."""
        mean, log_variance = (part.float() for part in turn.forward("encoder", turn.real))
        z = mean + (0.5 * log_variance).exp() * turn.normal(mean.shape[1])
        return z, -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()

    def fakes(self, turn: ganlab.Turn, z: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions, and samples of the prior."""
        latents = (z, turn.normal(z.shape[1]))
        first, second = (turn.forward("decoder", part, turn.condition).float() for part in latents)
        return first, second

    def logits(self, turn: ganlab.Turn, images: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", images)[0].float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        with torch.no_grad():
            fakes = self.fakes(turn, self.encode(turn)[0])
        real = self.logits(turn, turn.real)
        return torch.stack([self.loss.discriminator(real, self.logits(turn, fake)) for fake in fakes]).mean()

    def reconstruct(self, turn: ganlab.Turn) -> dict[str, Tensor]:
        z, divergence = self.encode(turn)
        real = turn.forward("discriminator", turn.real)
        # The error of features reaches the encoder through latents whose gradient is 1 / gamma of the decoder's: the
        # term counts gamma for the decoder and 1 for the encoder, which the adversarial term does not reach.
        through = z.detach() + (z - z.detach()) / self.gamma
        features = turn.forward("discriminator", turn.forward("decoder", through, turn.condition))[1]
        error = 0.5 * (features.float() - real[1].float().detach()).square().flatten(1).sum(1).mean()
        real_logits = turn.gather(real[0].float())
        fooled = [self.loss.generator(real_logits, self.logits(turn, fake)) for fake in self.fakes(turn, z.detach())]
        return {
            "prior": self.prior_weight * divergence,
            "features": self.gamma * error,
            "adversarial": torch.stack(fooled).mean(),
        }


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("small_vae_gan", VAEGAN)
