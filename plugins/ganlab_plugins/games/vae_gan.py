"""VAE/GAN: a variational autoencoder with an error of learned features (Larsen et al. 2016, arXiv:1512.09300).

The decoder of a variational autoencoder is the generator of a GAN. Reconstructions are compared by a hidden layer of
the discriminator (equation 8) instead of pixel by pixel, and both they and samples of the prior are judged.

Decisions:
- As in algorithm 1 encoder and decoder move together: the encoder on the prior's term and the error of features, the
  decoder on `gamma` times that error and the adversarial loss.
- The layer Dis_l is the last hidden one of the discriminator.
- Half of what is judged as fake are reconstructions and half samples of the prior; their losses are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, le
from torch import Tensor, nn

from ganlab import (
    Condition,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    Network,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    component,
    hookimpl,
    logits_per_image,
    sampler_of,
)
from ganlab_plugins.games._adversary import generated
from ganlab_plugins.games._codes import (
    code_of,
    encoded,
    encoder_of,
    features_of_discriminator,
    judged,
    judged_with_features,
    log_probabilities,
    reconstruction_output,
    reconstruction_sampler,
    with_features,
    without_conditions,
)


@frozen
class VAEGAN:
    """A variational autoencoder and a discriminator, whose features say how far a reconstruction is from its image.

    generator: the decoder, from codes to images.
    discriminator: the network that judges images: `mlp`, `dcgan`, or another one that has `feature_shape`, and returns
        its logits and these features where its third argument is True.
    encoder: the network from images to the means and the log variances of codes.
    loss: the adversarial loss.
    gamma: how much the error of features counts for the decoder, beside the adversarial loss; for the encoder it is 1.
    prior: the weight of the divergence of the codes' distributions from the prior, for the encoder.
    """

    generator: NetworkConfig = component("generator")
    discriminator: NetworkConfig = component("discriminator")
    encoder: NetworkConfig = component("generator", default="mlp_encoder")
    loss: Loss = component("loss", default="bce")
    gamma: float = field(default=0.01, validator=[gt(0), le(1e9)])
    prior: float = field(default=1.0, validator=[ge(0), le(1e9)])

    def build(self, data: DataSpec) -> Rules:
        images, play = without_conditions(data.images), _Play(self, data.images.shape)
        return Rules(
            networks={
                "generator": Network(self.generator, images=images),
                "encoder": encoder_of(self.encoder, images, values=2),
                "discriminator": with_features(self.discriminator, images),
            },
            moves=[
                Move(
                    "discriminator",
                    players=("discriminator",),
                    terms=play.discriminate,
                    unfrozen=("encoder", "generator"),
                ),
                Move("autoencoder", players=("encoder", "generator"), terms=play.reconstruct),
            ],
            sampler=sampler_of("generator"),
            samplers={"reconstruction": reconstruction_sampler(_reconstructed)},
            judge=_judge,
            loss=self.loss,
            outputs={"reconstruction": reconstruction_output(_reconstructed)},
        )


@frozen
class _Made:
    """What encoder and decoder make in a step: codes, their divergence, reconstructions and samples with latents.

    The reconstructions have no gradient with respect to the codes.
    """

    codes: Tensor
    divergence: Tensor
    reconstructions: Tensor
    samples: Tensor
    latents: Tensor


@frozen
class _Play:
    """The two moves."""

    game: VAEGAN
    shape: tuple[int, ...]

    def discriminate(self, turn: Turn) -> Tensor:
        made = turn.kept["made"] = self.made(turn)
        real = judged(turn, turn.real)
        fakes = [judged(turn, images.detach()) for images in (made.reconstructions, made.samples)]
        log_probabilities(turn, real, torch.cat(fakes))
        self.show(turn, "discriminator", made)
        return torch.stack([self.game.loss.discriminator(real, fake) for fake in fakes]).mean()

    def reconstruct(self, turn: Turn) -> dict[str, Tensor]:
        made = turn.kept.pop("made", None) or self.made(turn)
        with torch.no_grad():
            real, wanted = judged_with_features(turn, turn.real)
            if turn.augmentations:  # which would change the image and its reconstruction differently
                wanted = features_of_discriminator(turn, turn.real)
        # The error of features reaches the encoder by codes whose gradient is 1 / gamma times that of the decoder: the
        # term counts gamma for the decoder and 1 for the encoder, which the adversarial loss does not reach.
        codes = made.codes.detach() + (made.codes - made.codes.detach()) / self.game.gamma
        found = features_of_discriminator(turn, generated(turn, self.shape, None, latents=codes)[0])
        fakes = [judged(turn, images) for images in (made.reconstructions, made.samples)]
        self.show(turn, "generator", made)
        return {
            "prior": self.game.prior * made.divergence,
            "features": self.game.gamma * 0.5 * (found - wanted).square().flatten(1).sum(1).mean(),
            "adversarial": torch.stack([self.game.loss.generator(real, fake) for fake in fakes]).mean(),
        }

    def made(self, turn: Turn) -> _Made:
        mean, log_variance = encoded(turn, turn.real).chunk(2, 1)
        codes = mean + (0.5 * log_variance).exp() * turn.normal(mean.shape[1])
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        reconstructions, _ = generated(turn, self.shape, None, latents=codes.detach())
        return _Made(codes, divergence, reconstructions, *generated(turn, self.shape, None))

    def show(self, turn: Turn, player: str, made: _Made) -> None:
        """Shows a player's penalties the samples."""
        fake = made.samples.detach() if player == "discriminator" else made.samples
        turn.show(player, fake=fake, latents=made.latents, judge="discriminator", generator="generator")


def _reconstructed(networks: Mapping[str, nn.Module], images: Tensor) -> Tensor:
    """What the decoder makes of the means."""
    made: Tensor = networks["generator"](code_of(networks, images).chunk(2, 1)[0], None)
    return made


def _judge(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    return logits_per_image(networks["discriminator"](images, None))


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("vae_gan", VAEGAN)
