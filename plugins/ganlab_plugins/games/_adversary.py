"""What adversarial games share: generated images, and what a discriminator and its loss add to the moves of both sides.

Decisions:
- Real and fake images pass the discriminator in one batch where it declares `batch_independent`; else in two, since
  batch statistics over both would leak the label.
- A discriminator may return logits of any shape, and several tensors of them: the losses of several are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab import (
    ComponentError,
    Condition,
    DataSpec,
    Loss,
    Turn,
    all_logits,
    batch_independent,
    generator_uses_real,
    latent_dim_of,
    logits_per_image,
    map_condition,
)


def generated(
    turn: Turn,
    shape: tuple[int, ...],
    condition: Condition,
    name: str = "generator",
    latents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) float32 that an adversarial game's generator makes, by name, and their latents.

    The latents are drawn unless they are given. Raises `ComponentError` for another shape (C, H, W), which a loss might
    broadcast.
    """
    z = turn.normal(latent_dim_of(turn.networks[name])) if latents is None else latents
    images = turn.forward(name, z, condition)
    if not isinstance(images, Tensor):
        raise ComponentError(f"{name}: returns {type(images).__name__}; expected a tensor of images")
    if images.shape[1:] != shape:
        shapes = (len(z), *images.shape[1:]), (len(z), *shape)
        raise ComponentError(f"{name}: makes images of shape {shapes[0]}; the data set's are {shapes[1]}")
    return images.float(), z


Output = Callable[[Mapping[str, nn.Module], Tensor, "Condition"], Tensor]


def translations(data: DataSpec, name: str) -> dict[str, Output]:
    """An adversarial game's outputs where it translates `[source]` by a generator without pairs: "translation".

    It is made of the conditions of `[dataset]`, the partners of its images that the game itself never sees, without
    latents. There is none where the data set has no such conditions.
    """
    if data.images.condition_shape != data.streams["source"].shape:
        return {}

    def translated(networks: Mapping[str, nn.Module], images: Tensor, condition: Condition) -> Tensor:
        made: Tensor = networks[name](images.new_zeros(len(images), latent_dim_of(networks[name])), condition)
        return made

    return {"translation": translated}


@frozen
class Adversary:
    """An adversary in a game: a discriminator, by its name, with the loss of both sides.

    suffix: of the names under which its probabilities are logged, where a game has several.

    Both methods are given the real and the fake images (n, C, H, W), the condition of the discriminator, the latents of
    the fake images, the name of the generator, and what that was given if it is not the condition.
    """

    loss: Loss
    name: str = "discriminator"
    suffix: str = ""

    def levers(self, networks: Mapping[str, nn.Module]) -> dict[str, bool]:
        """Whether real and fake images pass this adversary's discriminator in one batch (`Rules.levers`)."""
        return {f"joined{self.suffix}": batch_independent(networks[self.name])}

    def discriminator_loss(
        self,
        turn: Turn,
        real: Tensor,
        fake: Tensor,
        condition: Condition,
        latents: Tensor | None = None,
        generator: str = "generator",
        given: Condition = None,
    ) -> Tensor:
        """An adversary's loss in its own move; `fake` has no gradient. Shows its penalties this turn."""
        real_output, fake_output = self._judged_both(turn, real, fake, condition)
        real_logits, fake_logits = self._gathered(turn, real_output), self._gathered(turn, fake_output)
        turn.log(f"d_real{self.suffix}", _mean_probability(real_logits))
        turn.log(f"d_fake{self.suffix}", _mean_probability(fake_logits))
        if measures := getattr(self.loss, "measures", None):
            with torch.no_grad():
                found = [measures(*pair) for pair in zip(real_logits, fake_logits, strict=True)]
                for name in found[0]:
                    turn.log(f"{name}{self.suffix}", _sum(values[name] for values in found))
        turn.observe(logits_per_image(real_logits))
        seen = condition if given is None else given
        self._show(turn, self.name, (real, fake), (real_output, fake_output), latents, seen, generator)
        return _sum(self.loss.discriminator(*pair) for pair in zip(real_logits, fake_logits, strict=True))

    def generator_loss(
        self,
        turn: Turn,
        real: Tensor,
        fake: Tensor,
        condition: Condition,
        latents: Tensor | None = None,
        generator: str = "generator",
        given: Condition = None,
    ) -> Tensor:
        """An adversary's loss of the generator, in whose move it is. Shows the generator's penalties this turn."""
        fake_output = self._judged(turn, fake, condition)
        real_output = None
        if generator_uses_real(self.loss):
            with torch.no_grad():
                real_output = self._judged(turn, real, condition)
        fake_logits = self._gathered(turn, fake_output)
        # A loss that does not use real logits is still given tensors of their shape.
        real_logits = [torch.zeros_like(part) for part in fake_logits]
        if real_output is not None:
            real_logits = self._gathered(turn, real_output)
        seen = condition if given is None else given
        self._show(turn, generator, (real, fake), (real_output, fake_output), latents, seen, generator)
        return _sum(self.loss.generator(*pair) for pair in zip(real_logits, fake_logits, strict=True))

    def _show(
        self,
        turn: Turn,
        player: str,
        images: tuple[Tensor, Tensor],
        outputs: tuple[Any, Any],
        latents: Tensor | None,
        condition: Condition,
        generator: str,
    ) -> None:
        """Shows a player's penalties an adversary's turn: the real and the fake images, and what it made of each."""
        (real, fake), (real_output, fake_output) = images, outputs
        turn.show(
            player,
            fake=fake,
            real=real,
            real_logits=real_output,
            fake_logits=fake_output,
            latents=latents,
            condition=condition,
            judge=self.name,
            generator=generator,
        )

    def _judged(self, turn: Turn, images: Tensor, condition: Condition) -> Any:
        return turn.forward(self.name, turn.augment(images), condition)

    def _judged_both(self, turn: Turn, real: Tensor, fake: Tensor, condition: Condition) -> tuple[Any, Any]:
        """Passes real and fake images, of the same conditions, to an adversary, in one pass or two."""
        if not batch_independent(turn.networks[self.name]):
            return self._judged(turn, real, condition), self._judged(turn, fake, condition)
        twice = map_condition(lambda part: torch.cat([part, part]), condition)
        output = self._judged(turn, torch.cat([real, fake]), twice)
        if not isinstance(output, Tensor):
            raise ComponentError(
                f"{self.name}: batch_independent is True, and it returns {type(output).__name__}; expected a tensor of "
                "logits"
            )
        real_logits, fake_logits = output.split([len(real), len(fake)])
        return real_logits, fake_logits

    def _gathered(self, turn: Turn, output: Any) -> list[Tensor]:
        """An adversary's logits, float32, of all processes; one tensor, or several."""
        try:
            found = all_logits(output)
        except ComponentError as error:
            raise ComponentError(f"{self.name}: {error}") from None
        return [turn.gather(part.float()) for part in found]


def _mean_probability(logits: Sequence[Tensor]) -> Tensor:
    return logits_per_image(logits).detach().sigmoid().mean()


def _sum(terms: Iterable[Tensor]) -> Tensor:
    first, *others = terms
    total: Tensor = sum(others, start=first)
    return total
