"""BiGAN: a discriminator of pairs of image and latent (Donahue et al. 2017, 1605.09782; ALI, 1606.00704, is alike).

The discriminator tells pairs (x, E(x)) of a real image and its code from pairs (G(z), z) of a latent and its image
(equation 2). At the optimum the encoder inverts the generator, though no reconstruction is ever compared.

Decisions:
- Generator and encoder minimise the discriminator's own loss with the two kinds of pairs exchanged: the "inverse"
  objective of section 3.4, whose gradient does not vanish. Label smoothing so smooths their labels too.
- The discriminator's condition is the latent. It has no penalties: they would judge images of one kind of pair with
  the latents of the other.
"""

from __future__ import annotations

import torch
from attrs import frozen
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
    hookimpl,
    sampler_of,
)
from ganlab_plugins.games._adversary import generated
from ganlab_plugins.games._codes import (
    decoded,
    encoded,
    encoder_of,
    judged,
    log_probabilities,
    network_of,
    reconstruction_output,
    reconstruction_sampler,
    without_conditions,
)


@frozen
class BiGAN:
    """A GAN of pairs: a generator from latents to images, and an encoder from images to latents.

    generator: the network that generates images.
    encoder: the network from images to latents.
    discriminator: the network that judges images together with latents, which are its condition, such as `mlp_joint`.
    loss: the adversarial loss; generator and encoder minimise it together, with the two kinds of pairs exchanged.
    """

    generator: NetworkConfig = component("generator")
    encoder: NetworkConfig = component("generator", default="mlp_encoder")
    discriminator: NetworkConfig = component("discriminator", default="mlp_joint")
    loss: Loss = component("loss", default="bce")

    def build(self, data: DataSpec) -> Rules:
        images, play = without_conditions(data.images), _Play(self.loss, data.images.shape)

        def pairs(latent_dim: int) -> ImageSpec:
            return ImageSpec.of(
                images.shape, images.dtype, None, (latent_dim,), condition_dtype="float32", range=images.range
            )

        return Rules(
            networks={
                "generator": Network(self.generator, images=images),
                "encoder": encoder_of(self.encoder, images),
                "discriminator": network_of(self.discriminator, pairs),
            },
            moves=[
                Move("discriminator", players=("discriminator",), terms=play.discriminate),
                Move("generator", players=("generator", "encoder"), terms=play.fool),
            ],
            sampler=sampler_of("generator"),
            samplers={"reconstruction": reconstruction_sampler(decoded)},
            loss=self.loss,
            outputs={"reconstruction": reconstruction_output(decoded)},
        )


@frozen
class _Play:
    """The two moves."""

    loss: Loss
    shape: tuple[int, ...]

    def discriminate(self, turn: Turn) -> Tensor:
        with torch.no_grad():
            code, fake, z = self.pairs(turn)
        real_logits, fake_logits = judged(turn, turn.real, code), judged(turn, fake, z)
        log_probabilities(turn, real_logits, fake_logits)
        return self.loss.discriminator(real_logits, fake_logits)

    def fool(self, turn: Turn) -> Tensor:
        code, fake, z = self.pairs(turn)
        turn.show("generator", fake=fake, latents=z)
        real_logits, fake_logits = judged(turn, turn.real, code), judged(turn, fake, z)
        return self.loss.discriminator(fake_logits, real_logits)

    def pairs(self, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """The codes E(x) of the real images, and generated images G(z) with their latents z."""
        return encoded(turn, turn.real), *generated(turn, self.shape, None)


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("bigan", BiGAN)
