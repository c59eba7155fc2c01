"""The GAN game: the discriminator's and the generator's phase, with their forward passes and losses.

Decisions:
- A game is built once, before step 0, from plain objects; nothing here knows pluggy, names of components or files.
- Real and fake images pass the discriminator in one batch where it declares `batch_independent`; else in two, since
  batch statistics over both would leak the label.
- Fake images are generated for the conditions of the batch of real images: classes are as frequent as in the data, an
  image condition keeps its pair, and no more random numbers are drawn.
- The discriminator is frozen in the generator's phase, which then computes no gradient of its weights (8% fewer
  operations), and the discriminator's phase generates its fake images without a graph.
- On many processes the loss is that of the logits of all of them. Each process has gradients with respect to its own
  logits, and gradients are summed, so the loss of the whole batch is optimised, whatever the loss is. Penalties are
  averaged.
- Nothing is read back from the device: scalars are summed in tensors that are read once a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ganlab.data.batch import Batch
from ganlab.nn.discriminator_output import logits
from ganlab.nn.modes import frozen_parameters
from ganlab.protocols import Augmentation, Loss, Step
from ganlab.training.meters import Meters
from ganlab.training.update import Player, Update
from ganlab.utils import distributed


@define
class Game:
    """The GAN game: the two players, their loss, and all else that their phases need.

    `batch_size` is that of all processes together; it passes in `accumulate` parts.
    `noise` is the random generator of the latents, None for torch's default one.
    Without `fresh_noise` the generator's phase reuses the discriminator's last fake images.
    `uses_real` says whether the generator's loss uses the logits of real images; `joint_pass` whether real and fake
    images pass the discriminator in one batch.
    """

    generator: Player
    discriminator: Player
    loss: Loss
    augmentations: Sequence[Augmentation]
    latent_dim: int
    batch_size: int
    device: torch.device
    uses_real: bool
    joint_pass: bool = False
    accumulate: int = 1
    fresh_noise: bool = True
    autocast: torch.dtype | None = None
    noise: torch.Generator | None = None
    meters: Meters = field(factory=Meters)
    images_seen: Tensor = field(init=False)
    _fakes: list[Tensor] = field(factory=list, init=False)
    _measures: Callable[[Tensor, Tensor], Mapping[str, Tensor]] | None = field(init=False)
    _observers: Sequence[Callable[[Tensor], None]] = field(init=False)
    _augmentation_measures: Sequence[Callable[[], Mapping[str, Tensor]]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._measures = getattr(self.loss, "measures", None)
        self._observers = _optional_methods("observe", self.augmentations)
        self._augmentation_measures = _optional_methods("measures", self.augmentations)
        self.images_seen = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def players(self) -> tuple[Player, Player]:
        return self.generator, self.discriminator

    def generate_fakes(self, parts: Sequence[Batch]) -> Iterator[Tensor]:
        """Yields the game's fake images for the conditions of each part of a real batch, each when it is needed.

        The latents of all parts are drawn at once from the training stream, so that they do not depend on the number
        of parts.
        """
        z = torch.randn(self.batch_size, self.latent_dim, device=self.device, generator=self.noise)
        first, end = distributed.local_share(self.batch_size)
        for part, latents in zip(parts, z[first:end].chunk(len(parts)), strict=True):
            with self._precision():
                images: Tensor = self.generator.network(latents, part.condition)
            yield images.float()

    def discriminate(self, images: Tensor, condition: Tensor | None) -> Any:
        """Passes augmented images through the game's discriminator; returns its output."""
        for augmentation in self.augmentations:
            images = augmentation.augment(images)
        with self._precision():
            return self.discriminator.network(images, condition)

    def discriminate_both(self, real: Tensor, fake: Tensor, condition: Tensor | None) -> tuple[Any, Any]:
        """Passes the game's real and fake images, of the same conditions, to the discriminator, in one pass or two."""
        if not self.joint_pass:
            return self.discriminate(real, condition), self.discriminate(fake, condition)
        twice = None if condition is None else torch.cat([condition, condition])
        real_logits, fake_logits = self.discriminate(torch.cat([real, fake]), twice).split([len(real), len(fake)])
        return real_logits, fake_logits

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    def discriminator_phase(self, real: Batch, updates: int) -> None:
        """The discriminator's phase of the game: one update on a real batch; `updates` counts its earlier ones."""
        parts = real.parts(self.accumulate)
        update = Update(self.discriminator, updates, len(parts), self.meters.add)
        fakes = self.generate_fakes(parts)
        self._fakes = []
        for part in parts:
            with torch.set_grad_enabled(not self.fresh_noise):
                fake = next(fakes)
            if not self.fresh_noise:
                self._fakes.append(fake)
            fake = fake.detach()
            real_output, fake_output = self.discriminate_both(part.images, fake, part.condition)
            real_logits, fake_logits = (
                distributed.all_gather_with_grad(logits(output)) for output in (real_output, fake_output)
            )
            self.meters.add("d_real", real_logits.detach().sigmoid().mean())
            self.meters.add("d_fake", fake_logits.detach().sigmoid().mean())
            if self._measures is not None:
                with torch.no_grad():
                    for name, value in self._measures(real_logits, fake_logits).items():
                        self.meters.add(name, value)
            self._report_to_augmentations(real_logits)
            step = self._step("discriminator", part.images, fake, real_output, fake_output, part.condition)
            update.add(self.loss.discriminator(real_logits, fake_logits), step)
        update.finish()

    @torch.no_grad()
    def _report_to_augmentations(self, real_logits: Tensor) -> None:
        """Passes the game's real logits, of all processes, to augmentations that `observe`; logs their `measures`."""
        for observe in self._observers:
            observe(real_logits.detach())
        for measures in self._augmentation_measures:
            for name, value in measures().items():
                self.meters.add(name, value)

    def generator_phase(self, real: Batch, updates: int) -> None:
        """The generator's phase of the game: one update, discriminator frozen; `updates` counts its earlier ones."""
        parts = real.parts(self.accumulate)
        update = Update(self.generator, updates, len(parts), self.meters.add)
        kept, self._fakes = self._fakes, []
        with frozen_parameters(self.discriminator.network):
            for part, fake in zip(parts, kept or self.generate_fakes(parts), strict=True):
                fake_output = self.discriminate(fake, part.condition)
                real_output = None
                if self.uses_real:
                    with torch.no_grad():
                        real_output = self.discriminate(part.images, part.condition)
                fake_logits = distributed.all_gather_with_grad(logits(fake_output))
                # A loss that does not use real logits is still given a tensor of their shape.
                real_logits = torch.zeros_like(fake_logits)
                if real_output is not None:
                    real_logits = distributed.all_gather_with_grad(logits(real_output))
                real_images = part.images if self.uses_real else None
                step = self._step("generator", real_images, fake, real_output, fake_output, part.condition)
                update.add(self.loss.generator(real_logits, fake_logits), step)
            update.finish()

    def _step(
        self,
        player: str,
        real: Tensor | None,
        fake: Tensor,
        real_output: Any,
        fake_output: Any,
        condition: Tensor | None,
    ) -> Step:
        return Step(
            player=player,
            generator=self.generator.network,
            discriminator=self.discriminator.network,
            real=real,
            fake=fake,
            real_logits=real_output,
            fake_logits=fake_output,
            condition=condition,
            images_seen=self.images_seen,
        )


def _optional_methods(name: str, augmentations: Sequence[object]) -> list[Any]:
    """The augmentations' methods of that name."""
    return [getattr(augmentation, name) for augmentation in augmentations if hasattr(augmentation, name)]
