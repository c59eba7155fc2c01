"""Adversarial autoencoder: a discriminator of codes in the place of a divergence (Makhzani et al. 2016, 1511.05644).

The codes of an autoencoder shall be distributed as a prior, from which its decoder can generate then. Each step has the
two phases of section 2: reconstruction, in which encoder and decoder minimise the squared error; and regularisation, in
which a discriminator learns to tell codes of the prior, the real ones, from those of images, and the encoder to fool
it.

Decisions:
- The decoder is the table `[generator]`, as in a GAN of the same networks. The discriminator is built for rows of a
  table: the codes.
- The encoder is deterministic, or random where it takes noise (`latent_dim` of `mlp_encoder`): the paper's universal
  approximator posterior.
- Both phases change the encoder by one optimiser, so `adversarial` weighs them.
"""

from __future__ import annotations

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le
from torch import Tensor

from ganlab import (
    DataSpec,
    GameConfig,
    ImageSpec,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    component,
    generator_uses_real,
    hookimpl,
    logits_per_image,
    sampler_of,
)
from ganlab_plugins.games._adversary import generated
from ganlab_plugins.games._codes import (
    decoded,
    encoded,
    encoder_of,
    log_probabilities,
    network_of,
    reconstruction_output,
    reconstruction_sampler,
    without_conditions,
)


@frozen
class AAE:
    """An adversarial autoencoder: encoder and decoder, and a discriminator of codes.

    generator: the decoder, from codes to images.
    encoder: the network from images to codes.
    discriminator: the network that tells codes of the prior from those of images: rows of a table.
    loss: the adversarial loss, of codes.
    deviation: the standard deviation of the prior, a normal distribution; 5 in the paper's likelihoods of MNIST.
    adversarial: the weight of the encoder's adversarial loss, beside the mean squared error of pixels in [-1, 1].
    """

    generator: NetworkConfig = component("generator")
    encoder: NetworkConfig = component("generator", default="mlp_encoder")
    discriminator: NetworkConfig = component("discriminator", default="mlp")
    loss: Loss = component("loss", default="bce")
    deviation: float = field(default=1.0, validator=[gt(0), le(1e9)])
    adversarial: float = field(default=1.0, validator=[ge(0), le(1e9)])

    def build(self, data: DataSpec) -> Rules:
        images, play = without_conditions(data.images), _Play(self, data.images.shape)
        normal = sampler_of("generator")
        return Rules(
            networks={
                "generator": Network(self.generator, images=images),
                "encoder": encoder_of(self.encoder, images),
                "discriminator": network_of(
                    self.discriminator, lambda latent_dim: ImageSpec.of((latent_dim,), "float32")
                ),
            },
            moves=[
                Move("autoencoder", players=("encoder", "generator"), terms=play.reconstruct),
                Move("discriminator", players=("discriminator",), terms=play.discriminate),
                Move("encoder", players=("encoder",), terms=play.regularise),
            ],
            sampler=attrs.evolve(
                normal, images=lambda networks, z, _: normal.images(networks, self.deviation * z, None)
            ),
            samplers={"reconstruction": reconstruction_sampler(decoded)},
            loss=self.loss,
            outputs={"reconstruction": reconstruction_output(decoded)},
        )


@frozen
class _Play:
    """The moves of the two phases."""

    game: AAE
    shape: tuple[int, ...]

    def reconstruct(self, turn: Turn) -> Tensor:
        made, z = generated(turn, self.shape, None, latents=encoded(turn, turn.real))
        turn.show("generator", fake=made, latents=z)
        return (made - turn.real).square().mean()

    def discriminate(self, turn: Turn) -> Tensor:
        with torch.no_grad():
            codes = encoded(turn, turn.real)
        prior = self.prior(turn, codes)
        real, fake = self.logits(turn, prior), self.logits(turn, codes)
        log_probabilities(turn, real, fake)
        turn.show("discriminator", real=prior, fake=codes, real_logits=real, fake_logits=fake)
        return self.game.loss.discriminator(real, fake)

    def regularise(self, turn: Turn) -> Tensor:
        codes = encoded(turn, turn.real)
        fake = self.logits(turn, codes)
        real = torch.zeros_like(fake)
        if generator_uses_real(self.game.loss):
            real = self.logits(turn, self.prior(turn, codes))
        return self.game.adversarial * self.game.loss.generator(real, fake)

    def prior(self, turn: Turn, codes: Tensor) -> Tensor:
        return self.game.deviation * turn.normal(codes.shape[1])

    def logits(self, turn: Turn, codes: Tensor) -> Tensor:
        return turn.gather(logits_per_image(turn.forward("discriminator", codes, None)).float())


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("aae", AAE)
