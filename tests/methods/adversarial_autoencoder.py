"""Adversarial autoencoder: a discriminator of its codes (Makhzani et al. 2016, arXiv:1511.05644)."""

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor, nn

import ganlab


class Encoder(nn.Module):
    """A fully connected encoder of images (N, C, H, W) to codes (N, latent_dim)."""

    def __init__(self, images: ganlab.ImageSpec, latent_dim: int, width: int) -> None:
        super().__init__()
        pixels = images.channels * images.height * images.width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, latent_dim))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class CodeDiscriminator(nn.Module):
    """A fully connected discriminator of codes; it returns logits (N,)."""

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, codes: Tensor) -> Tensor:
        return self.layers(codes).squeeze(1)


@frozen
class AdversarialAutoencoder:
    """An autoencoder whose codes a discriminator compares with a normal prior: reconstruction, then regularisation.

    generator: the decoder, from codes to images.
    loss: the adversarial loss, of codes.
    deviation: the standard deviation of the prior.
    width: units of the hidden layers of encoder and discriminator.
    """

    generator: ganlab.NetworkConfig = ganlab.component("generator")
    loss: ganlab.Loss = ganlab.component("loss", default="bce")
    deviation: float = field(default=1.0, validator=gt(0))
    width: int = field(default=256, validator=ge(1))

    def build(self, data: ganlab.DataSpec) -> ganlab.Rules:
        return ganlab.Rules(
            networks={
                "decoder": ganlab.Network(self.generator, table="generator"),
                "encoder": ganlab.Network(
                    lambda decoder: Encoder(data.images, ganlab.latent_dim_of(decoder), self.width), given=("decoder",)
                ),
                "discriminator": ganlab.Network(
                    lambda decoder: CodeDiscriminator(ganlab.latent_dim_of(decoder), self.width), given=("decoder",)
                ),
            },
            moves=[
                ganlab.Move("reconstruction", players=("encoder", "decoder"), terms=self.reconstruct),
                ganlab.Move("discriminator", players=("discriminator",), terms=self.judge),
                ganlab.Move("encoder", players=("encoder",), terms=self.fool),
            ],
            sampler=ganlab.Sampler(
                networks=("decoder",),
                images=lambda networks, z, condition: networks["decoder"](self.deviation * z, condition),
                latents=ganlab.sampler_of("decoder").latents,
            ),
            outputs={
                "reconstruction": lambda networks, images, condition: networks["decoder"](
                    networks["encoder"](images), condition
                )
            },
        )

    def reconstruct(self, turn: ganlab.Turn) -> Tensor:
        images = turn.forward("decoder", turn.forward("encoder", turn.real), turn.condition)
        return (images.float() - turn.real).square().mean()

    def logits(self, turn: ganlab.Turn, codes: Tensor) -> Tensor:
        return turn.gather(turn.forward("discriminator", codes).float())

    def judge(self, turn: ganlab.Turn) -> Tensor:
        """Codes of the prior are the real ones."""
        with torch.no_grad():
            codes = turn.forward("encoder", turn.real)
        prior = self.deviation * turn.normal(codes.shape[1])
        return self.loss.discriminator(self.logits(turn, prior), self.logits(turn, codes))

    def fool(self, turn: ganlab.Turn) -> Tensor:
        codes = turn.forward("encoder", turn.real)
        prior = self.deviation * turn.normal(codes.shape[1])
        return self.loss.generator(self.logits(turn, prior), self.logits(turn, codes))


@ganlab.hookimpl
def register_games(register: ganlab.Register[ganlab.GameConfig]) -> None:
    register("adversarial_autoencoder", AdversarialAutoencoder)
