"""The conformance suite's own tiny game, of a generator and a discriminator, in which their components are checked.

The suite takes the names of networks from here: each is also the name of its table and the kind of its component.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from ganlab.evaluation.network_sampler import sampler_of
from ganlab.nn.judged_output import logits
from ganlab.plugin.fields import component
from ganlab.protocols import (
    DataSpec,
    Loss,
    Move,
    NetworkConfig,
    Rules,
    Turn,
    batch_independent,
    generator_uses_real,
    latent_dim_of,
)

GENERATES = "generator"
"""The tiny game's network that generates images."""

JUDGES = "discriminator"
"""The tiny game's network that returns logits of images."""


@frozen
class TinyGame:
    """The suite's tiny game: one update of each of two networks in a step."""

    generator: NetworkConfig = component("generator", default="tiny_generator")
    discriminator: NetworkConfig = component("discriminator", default="tiny_discriminator")
    loss: Loss = component("loss", default="tiny_loss")

    def build(self, data: DataSpec) -> Rules:
        return Rules(
            networks={GENERATES: self.generator, JUDGES: self.discriminator},
            moves=[
                Move(JUDGES, (JUDGES,), self._judge),
                Move(GENERATES, (GENERATES,), self._generate),
            ],
            sampler=sampler_of(GENERATES),
            loss=self.loss,
        )

    def _fake(self, turn: Turn) -> tuple[Tensor, Tensor]:
        z = turn.normal(latent_dim_of(turn.networks[GENERATES]))
        fake: Tensor = turn.forward(GENERATES, z, turn.condition)
        return fake.float(), z

    def _judge(self, turn: Turn) -> Tensor:
        with torch.no_grad():
            fake, z = self._fake(turn)
        if batch_independent(turn.networks[JUDGES]):
            twice = None if turn.condition is None else torch.cat([turn.condition, turn.condition])
            both = turn.forward(JUDGES, turn.augment(torch.cat([turn.real, fake])), twice)
            real_output, fake_output = both.chunk(2)
        else:
            real_output, fake_output = (
                turn.forward(JUDGES, turn.augment(images), turn.condition) for images in (turn.real, fake)
            )
        real = turn.gather(logits(real_output))
        turn.observe(real)
        self._show(turn, JUDGES, fake, z, real_output, fake_output)
        return self.loss.discriminator(real, turn.gather(logits(fake_output)))

    def _generate(self, turn: Turn) -> Tensor:
        fake, z = self._fake(turn)
        fake_output = turn.forward(JUDGES, turn.augment(fake), turn.condition)
        made = turn.gather(logits(fake_output))
        real_output = None
        if generator_uses_real(self.loss):
            with torch.no_grad():
                real_output = turn.forward(JUDGES, turn.augment(turn.real), turn.condition)
        self._show(turn, GENERATES, fake, z, real_output, fake_output)
        real = torch.zeros_like(made) if real_output is None else turn.gather(logits(real_output))
        return self.loss.generator(real, made)

    def _show(self, turn: Turn, player: str, fake: Tensor, z: Tensor, real_output: object, fake_output: object) -> None:
        turn.show(
            player,
            fake=fake,
            real_logits=real_output,
            fake_logits=fake_output,
            latents=z,
            judge=JUDGES,
            generator=GENERATES,
        )
