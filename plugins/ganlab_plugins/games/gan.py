"""The GAN: a generator and a discriminator that play against each other (Goodfellow et al. 2014, arXiv:1406.2661).

Decisions:
- Fake images are generated for the conditions of the batch of real images: classes are as frequent as in the data, an
  image condition keeps its pair, and no more random numbers are drawn.
- The discriminator's move generates its fake images without a graph, unless the generator's move reuses them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from attrs.validators import ge, le, optional
from torch import Tensor, nn

from ganlab import (
    Condition,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    component,
    hookimpl,
    logits_per_image,
    sampler_of,
    train_option,
)
from ganlab_plugins.games._adversary import Adversary, generated


@frozen
class GAN:
    """A generator and a discriminator, whose moves follow each other.

    generator: the network that generates images.
    discriminator: the network that tells real from generated images.
    loss: the losses of both networks.
    discriminator_steps: discriminator updates before each generator update, each on its own batch.
    discriminator_every: update the discriminator only in every k-th step, starting with the first, so that the
        generator has k updates for each discriminator update. This or `discriminator_steps` must be 1.
    stop_discriminator_under, stop_generator_under: skip an update of that player if its loss, without penalties, is
        under this bound: weights and the optimiser's state stay as they are. Batch norm's statistics are updated.
    fresh_noise: draw new latents for the generator's update. `false` reuses the discriminator's last fake images, which
        saves one forward pass of the generator.
    """

    generator: NetworkConfig = component("generator")
    discriminator: NetworkConfig = component("discriminator")
    loss: Loss = component("loss")
    discriminator_steps: int = train_option(1, [ge(1), le(1000)])
    discriminator_every: int = train_option(1, [ge(1), le(1000)])
    stop_discriminator_under: float | None = train_option(None, optional([ge(-1e12), le(1e12)]))
    stop_generator_under: float | None = train_option(None, optional([ge(-1e12), le(1e12)]))
    fresh_noise: bool = train_option(True)

    def __attrs_post_init__(self) -> None:
        if self.discriminator_steps > 1 and self.discriminator_every > 1:
            raise ValueError(
                f"discriminator_every: {self.discriminator_every} together with discriminator_steps = "
                f"{self.discriminator_steps}; one of them must be 1"
            )

    def build(self, data: DataSpec) -> Rules:
        play = _Play(Adversary(self.loss), data.images.shape, self.fresh_noise)
        discriminator = Move(
            "discriminator",
            ("discriminator",),
            play.discriminator_turn,
            repeats=self.discriminator_steps,
            every=self.discriminator_every,
            new_batch=True,
            stop_under=self.stop_discriminator_under,
            unfrozen=() if self.fresh_noise else ("generator",),
        )
        generator = Move("generator", ("generator",), play.generator_turn, stop_under=self.stop_generator_under)
        return Rules(
            networks={"generator": self.generator, "discriminator": self.discriminator},
            moves=[discriminator, generator],
            sampler=sampler_of("generator"),
            judge=_judge,
            loss=self.loss,
            levers=play.adversary.levers,
        )


@frozen
class _Play:
    """The two moves."""

    adversary: Adversary
    shape: tuple[int, ...]
    fresh_noise: bool

    def discriminator_turn(self, turn: Turn) -> Tensor:
        with torch.set_grad_enabled(not self.fresh_noise):
            fake, z = generated(turn, self.shape, turn.condition)
        if not self.fresh_noise:
            turn.kept["fake"] = fake, z
        return self.adversary.discriminator_loss(turn, turn.real, fake.detach(), turn.condition, z)

    def generator_turn(self, turn: Turn) -> Tensor:
        fake, z = turn.kept.pop("fake", None) or generated(turn, self.shape, turn.condition)
        return self.adversary.generator_loss(turn, turn.real, fake, turn.condition, z)


def _judge(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    return logits_per_image(networks["discriminator"](images, condition))


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("gan", GAN)
