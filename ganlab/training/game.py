"""The adversarial game as phases: whose turn it is, and what its loss is made of.

Decisions:
- Phases are built once, before step 0, from plain objects; nothing here knows pluggy, names of components or files.
- Real and fake images pass the discriminator in one batch where it declares `batch_independent`; else in two, since
  batch statistics over both would leak the label.
- Generated images are asked for the condition of the batch of real ones that they are held against: so classes come as
  often as in the data, an image condition keeps its partner, and nothing more is drawn at random.
- The discriminator is frozen in the generator's phase, which then computes no gradient for its weights (8% fewer
  operations), and the discriminator's phase draws its fake images without a graph.
- On many processes the loss is taken of all their logits, each process sending gradients through its own, and the
  gradients are summed: what is optimised is the loss of the whole batch, whatever the loss makes of it. Penalties are
  averaged.
- Nothing is read back from the device: terms are summed into tensors that the loop reads once a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from ganlab.data.batch import Batch
from ganlab.nn.modes import frozen_parameters
from ganlab.nn.outputs import logits
from ganlab.protocols import Augmentation, Loss, Step
from ganlab.training.meters import Meters
from ganlab.training.update import Player, Update
from ganlab.utils import distributed


@define
class Game:
    """Two players, their loss, and what an update needs besides: all that a phase refers to.

    `batch_size` is that of all processes together, and `accumulate` in how many parts it passes.
    `noise` is the latents' stream where that is not the default one.
    `fresh_noise` False lets the generator's phase use the discriminator's last fake images again.
    `uses_real` says whether the generator's loss looks at the logits of real images; `joined` whether real and fake
    ones may pass the discriminator together.
    """

    generator: Player
    discriminator: Player
    loss: Loss
    augmentations: Sequence[Augmentation]
    latent_dim: int
    batch_size: int
    device: torch.device
    uses_real: bool
    joined: bool = False
    accumulate: int = 1
    fresh_noise: bool = True
    autocast: torch.dtype | None = None
    noise: torch.Generator | None = None
    meters: Meters = field(factory=Meters)
    images_seen: Tensor = field(init=False)
    _fakes: list[Tensor] = field(factory=list, init=False)
    _measures: Callable[[Tensor, Tensor], Mapping[str, Tensor]] | None = field(init=False)
    _observing: Sequence[Callable[[Tensor], None]] = field(init=False)
    _told: Sequence[Callable[[], Mapping[str, Tensor]]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._measures = getattr(self.loss, "measures", None)
        self._observing, self._told = (_having(name, self.augmentations) for name in ("observe", "measures"))
        self.images_seen = torch.zeros((), dtype=torch.int64, device=self.device)

    @property
    def players(self) -> tuple[Player, Player]:
        return self.generator, self.discriminator

    def fakes(self, parts: Sequence[Batch]) -> Iterator[Tensor]:
        """Generated images for the condition of each part of a batch of real ones, as each is asked for.

        The latents, from the training stream, are drawn for all parts at once, so that they do not depend on how many
        there are.
        """
        z = torch.randn(self.batch_size, self.latent_dim, device=self.device, generator=self.noise)
        first, end = distributed.local_share(self.batch_size)
        for part, latents in zip(parts, z[first:end].chunk(len(parts)), strict=True):
            with self._precision():
                images: Tensor = self.generator.network(latents, part.condition)
            yield images.float()

    def judged(self, images: Tensor, condition: Tensor | None) -> Any:
        """What the discriminator says of images, augmented as all that it sees."""
        for augmentation in self.augmentations:
            images = augmentation.augment(images)
        with self._precision():
            return self.discriminator.network(images, condition)

    def judged_both(self, real: Tensor, fake: Tensor, condition: Tensor | None) -> tuple[Any, Any]:
        """What the discriminator says of real and of fake images of one condition."""
        if not self.joined:
            return self.judged(real, condition), self.judged(fake, condition)
        twice = None if condition is None else torch.cat([condition, condition])
        real_logits, fake_logits = self.judged(torch.cat([real, fake]), twice).split([len(real), len(fake)])
        return real_logits, fake_logits

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    # ----------------------------------------------------------------------------------------------------------------
    # The two phases
    # ----------------------------------------------------------------------------------------------------------------

    def discriminator_phase(self, real: Batch, updates: int) -> None:
        """One update of the discriminator on a batch of real images; `updates` counts those before it."""
        parts = real.parts(self.accumulate)
        update = Update(self.discriminator, updates, len(parts), self.meters.add)
        fakes = self.fakes(parts)
        self._fakes = []
        for part in parts:
            with torch.set_grad_enabled(not self.fresh_noise):
                fake = next(fakes)
            if not self.fresh_noise:
                self._fakes.append(fake)
            fake = fake.detach()
            real_output, fake_output = self.judged_both(part.images, fake, part.condition)
            real_logits, fake_logits = (
                distributed.all_gather_with_grad(logits(output)) for output in (real_output, fake_output)
            )
            self.meters.add("d_real", real_logits.detach().sigmoid().mean())
            self.meters.add("d_fake", fake_logits.detach().sigmoid().mean())
            if self._measures is not None:
                with torch.no_grad():
                    for name, value in self._measures(real_logits, fake_logits).items():
                        self.meters.add(name, value)
            self._show_augmentations(real_logits)
            step = self._step("discriminator", part.images, fake, real_output, fake_output, part.condition)
            update.add(self.loss.discriminator(real_logits, fake_logits), step)
        update.finish()

    @torch.no_grad()
    def _show_augmentations(self, real_logits: Tensor) -> None:
        """Shows those that observe them the logits of all processes' real images, and logs what any tells of itself."""
        for observe in self._observing:
            observe(real_logits.detach())
        for measures in self._told:
            for name, value in measures().items():
                self.meters.add(name, value)

    def generator_phase(self, real: Batch, updates: int) -> None:
        """One update of the generator against the frozen discriminator."""
        parts = real.parts(self.accumulate)
        update = Update(self.generator, updates, len(parts), self.meters.add)
        kept, self._fakes = self._fakes, []
        with frozen_parameters(self.discriminator.network):
            for part, fake in zip(parts, kept or self.fakes(parts), strict=True):
                fake_output = self.judged(fake, part.condition)
                real_output = None
                if self.uses_real:
                    with torch.no_grad():
                        real_output = self.judged(part.images, part.condition)
                fake_logits = distributed.all_gather_with_grad(logits(fake_output))
                # A loss that leaves `real` unused is still given a tensor of the right shape.
                real_logits = torch.zeros_like(fake_logits)
                if real_output is not None:
                    real_logits = distributed.all_gather_with_grad(logits(real_output))
                shown = part.images if self.uses_real else None
                step = self._step("generator", shown, fake, real_output, fake_output, part.condition)
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


def _having(method: str, parts: Sequence[object]) -> list[Any]:
    """A method of those parts that have it."""
    return [getattr(part, method) for part in parts if hasattr(part, method)]
