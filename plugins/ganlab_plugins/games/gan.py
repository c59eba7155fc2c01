"""The GAN: a generator and a discriminator that play against each other (Goodfellow et al. 2014, arXiv:1406.2661).

Decisions:
- Real and fake images pass the discriminator in one batch where it declares `batch_independent`; else in two, since
  batch statistics over both would leak the label.
- Fake images are generated for the conditions of the batch of real images: classes are as frequent as in the data, an
  image condition keeps its pair, and no more random numbers are drawn.
- The discriminator's move generates its fake images without a graph, unless the generator's move reuses them.
- A discriminator may return logits of any shape, and several tensors of them: the losses of several are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from attrs.validators import ge, le, optional
from torch import Tensor, nn

from ganlab import (
    ComponentError,
    Condition,
    DataSpec,
    GameConfig,
    Loss,
    Move,
    NetworkConfig,
    Register,
    Rules,
    Turn,
    all_logits,
    batch_independent,
    component,
    generator_uses_real,
    hookimpl,
    latent_dim_of,
    logits_per_image,
    map_condition,
    sampler_of,
    train_option,
)


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
        images = data.images
        play = _Play(
            self.loss,
            images.shape,
            generator_uses_real(self.loss),
            self.fresh_noise,
            getattr(self.loss, "measures", None),
        )
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
            levers=lambda networks: {"joined": batch_independent(networks["discriminator"])},
        )


@frozen
class _Play:
    """The two moves. `uses_real`: the generator's loss uses the logits of real images."""

    loss: Loss
    shape: tuple[int, ...]
    uses_real: bool
    fresh_noise: bool
    measures: Callable[[Tensor, Tensor], Mapping[str, Tensor]] | None

    def generated(self, turn: Turn) -> tuple[Tensor, Tensor]:
        """Fake images and their latents."""
        z = turn.normal(latent_dim_of(turn.networks["generator"]))
        images = turn.forward("generator", z, turn.condition)
        if not isinstance(images, Tensor):
            raise ComponentError(f"generator: returns {type(images).__name__}; expected a tensor of images")
        if images.shape[1:] != self.shape:
            shapes = (len(z), *images.shape[1:]), (len(z), *self.shape)
            raise ComponentError(f"generator: makes images of shape {shapes[0]}; the data set's are {shapes[1]}")
        return images.float(), z

    def discriminator_turn(self, turn: Turn) -> Tensor:
        with torch.set_grad_enabled(not self.fresh_noise):
            fake, z = self.generated(turn)
        if not self.fresh_noise:
            turn.kept["fake"] = fake, z
        fake = fake.detach()
        real_output, fake_output = _discriminated_both(turn, fake)
        real, fake_logits = _gathered(turn, real_output), _gathered(turn, fake_output)
        turn.log("d_real", _mean_probability(real))
        turn.log("d_fake", _mean_probability(fake_logits))
        if self.measures is not None:
            with torch.no_grad():
                for name, value in self.measures(logits_per_image(real), logits_per_image(fake_logits)).items():
                    turn.log(name, value)
        turn.observe(logits_per_image(real))
        self._show(turn, "discriminator", fake, real_output, fake_output, z)
        return _sum(self.loss.discriminator(*pair) for pair in zip(real, fake_logits, strict=True))

    def generator_turn(self, turn: Turn) -> Tensor:
        fake, z = turn.kept.pop("fake", None) or self.generated(turn)
        fake_output = _discriminated(turn, fake, turn.condition)
        real_output = None
        if self.uses_real:
            with torch.no_grad():
                real_output = _discriminated(turn, turn.real, turn.condition)
        fake_logits = _gathered(turn, fake_output)
        # A loss that does not use real logits is still given tensors of their shape.
        real = [torch.zeros_like(part) for part in fake_logits]
        if real_output is not None:
            real = _gathered(turn, real_output)
        self._show(turn, "generator", fake, real_output, fake_output, z)
        return _sum(self.loss.generator(*pair) for pair in zip(real, fake_logits, strict=True))

    def _show(self, turn: Turn, player: str, fake: Tensor, real_output: Any, fake_output: Any, z: Tensor) -> None:
        turn.show(
            player,
            fake=fake,
            real_logits=real_output,
            fake_logits=fake_output,
            latents=z,
            judge="discriminator",
            generator="generator",
        )


def _discriminated(turn: Turn, images: Tensor, condition: Condition) -> Any:
    return turn.forward("discriminator", turn.augment(images), condition)


def _discriminated_both(turn: Turn, fake: Tensor) -> tuple[Any, Any]:
    """Passes real and fake images, of the same conditions, to the discriminator, in one pass or two."""
    real, condition = turn.real, turn.condition
    if not batch_independent(turn.networks["discriminator"]):
        return _discriminated(turn, real, condition), _discriminated(turn, fake, condition)
    twice = map_condition(lambda part: torch.cat([part, part]), condition)
    output = _discriminated(turn, torch.cat([real, fake]), twice)
    if not isinstance(output, Tensor):
        raise ComponentError(
            f"discriminator: batch_independent is True, and it returns {type(output).__name__}; expected a tensor of "
            "logits"
        )
    real_logits, fake_logits = output.split([len(real), len(fake)])
    return real_logits, fake_logits


def _gathered(turn: Turn, output: Any) -> list[Tensor]:
    """A discriminator's logits, float32, of all processes; one tensor, or several."""
    try:
        found = all_logits(output)
    except ComponentError as error:
        raise ComponentError(f"discriminator: {error}") from None
    return [turn.gather(part.float()) for part in found]


def _mean_probability(logits: Sequence[Tensor]) -> Tensor:
    return logits_per_image(logits).detach().sigmoid().mean()


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    total: Tensor = sum(others, start=first)
    return total


def _judge(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
    return logits_per_image(networks["discriminator"](images, condition))


@hookimpl
def register_games(register: Register[GameConfig]) -> None:
    register("gan", GAN)
