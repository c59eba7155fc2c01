"""The adversarial game as phases: whose turn it is, and what its loss is made of.

Decisions:
- Phases are built once, before step 0, from plain objects; nothing here knows pluggy, names of components or files.
- Real and fake images pass the discriminator together where an image's logit does not depend on the others of its
  batch, which build finds with a probe; else separately: batch statistics over both would leak the label.
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

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from ganlab import ranks
from ganlab.data import Batch
from ganlab.protocols import Augmentation, Loss, Step
from ganlab.updating import Player, Update


@define
class Meters:
    """Sums of what the steps report, kept on the device until somebody reads them.

    A sum stays the same tensor for ever, since a captured step goes on adding to it.
    """

    sums: dict[str, Tensor] = field(factory=dict)
    counts: dict[str, int] = field(factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        if name not in self.sums:
            self.sums[name] = torch.zeros((), device=value.device)
        self.sums[name].add_(value.detach())
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The means since the last reset: the one place where the host waits for the device."""
        names = [name for name, count in self.counts.items() if count]
        if not names:
            return {}
        values = ranks.averaged(torch.stack([self.sums[name] for name in names])).tolist()
        return {name: value / self.counts[name] for name, value in zip(names, values, strict=True)}

    def reset(self) -> None:
        for name, total in self.sums.items():
            total.zero_()
            self.counts[name] = 0


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
        first, end = ranks.share(self.batch_size)
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
            real_logits, fake_logits = (ranks.with_others(logits(output)) for output in (real_output, fake_output))
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
                fake_logits = ranks.with_others(logits(fake_output))
                # A loss that leaves `real` unused is still given a tensor of the right shape.
                real_logits = torch.zeros_like(fake_logits)
                if real_output is not None:
                    real_logits = ranks.with_others(logits(real_output))
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


@frozen
class Phase:
    """A turn in the game. A step takes it `repeats` times, on new images each time where `new_images` says so.

    Only every k-th step takes it, `every` being k; in the others its images are for the phases after it alone.
    `update(real, updates)` is given a batch of real images and the number of updates that this phase made before.
    `terms(updates)` names what that update's loss is made of besides the loss itself.
    """

    name: str
    update: Callable[[Batch, int], None]
    terms: Callable[[int], tuple[str, ...]]
    repeats: int = 1
    every: int = 1
    new_images: bool = False

    def turns(self, step: int) -> list[int | None]:
        """For each of its turns in a step the number of updates before it; None where the turn is not taken."""
        if step % self.every:
            return [None] * self.repeats
        return [step // self.every * self.repeats + repeat for repeat in range(self.repeats)]


def two_player_phases(game: Game, discriminator_steps: int, discriminator_every: int) -> list[Phase]:
    """The discriminator's turn, `discriminator_steps` times on new images, then the generator's on the last of them.

    The discriminator has its turn in every `discriminator_every`-th step only.
    """
    g, d = game.players
    return [
        Phase(d.name, game.discriminator_phase, d.due, discriminator_steps, discriminator_every, new_images=True),
        Phase(g.name, game.generator_phase, g.due),
    ]


@frozen
class Turns:
    """All turns of one step, each player in its turn, and what follows from the generator's update."""

    phases: Sequence[Phase]
    average: Average | None

    @property
    def batches(self) -> int:
        """How many batches of real images a step takes."""
        return sum(phase.repeats for phase in self.phases if phase.new_images)

    def kind(self, step: int) -> Hashable:
        """What the step is made of: steps of one kind do the same work on other numbers."""
        return tuple(
            None if updates is None else phase.terms(updates) for phase in self.phases for updates in phase.turns(step)
        )

    def __call__(self, real: Sequence[Batch], step: int) -> None:
        batches = iter(real)
        for phase in self.phases:
            for updates in phase.turns(step):
                if phase.new_images:
                    batch = next(batches)
                if updates is not None:
                    phase.update(batch, updates)
        if self.average is not None:
            self.average.update()


def logits(output: Any) -> Tensor:
    """The logits, float32 (N,), of what a discriminator returned."""
    tensor: Tensor = output if isinstance(output, Tensor) else output.logits
    return tensor.float()


def _having(method: str, parts: Sequence[object]) -> list[Any]:
    """A method of those parts that have it."""
    return [getattr(part, method) for part in parts if hasattr(part, method)]


@contextmanager
def frozen_parameters(network: nn.Module) -> Iterator[None]:
    """The network's parameters take no gradient in the body, and afterwards take one where they did before."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def decay_of(half_life: float, images: int) -> float:
    """The decay of a step of so many images by which old weights lose half their share in `half_life` images."""
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0


class Average:
    """The exponential moving average of a network's weights; buffers are copied (Yazici et al. 2019, arXiv:1806.04498).

    Batch norm's running statistics are buffers: an average without them would be evaluated with the initial ones.
    """

    def __init__(self, network: nn.Module, average: nn.Module, decay: float, moves: bool = False) -> None:
        """`decay` is that of a step; where it `moves`, `fill` sets it between steps, captured ones too."""
        self.decay = decay
        self.network = average.requires_grad_(False).eval()
        self._averages: list[Tensor] = list(average.parameters())
        self._weights: list[Tensor] = list(network.parameters())
        self._averaged_buffers: list[Tensor] = list(average.buffers())
        self._buffers: list[Tensor] = list(network.buffers())
        self._share = 1.0 - decay
        self._moving_share = torch.full((), self._share, device=self._weights[0].device) if moves else None

    @property
    def moves(self) -> bool:
        return self._moving_share is not None

    def fill(self, decay: float) -> None:
        """Sets the decay of the steps to come, of an average whose decay moves."""
        assert self._moving_share is not None
        self._moving_share.fill_(1.0 - decay)

    @torch.no_grad()
    def update(self) -> None:
        if self._moving_share is not None:
            # A lerp would read its weight back.
            change = torch._foreach_sub(self._weights, self._averages)
            torch._foreach_mul_(change, self._moving_share)
            torch._foreach_add_(self._averages, change)
        else:
            torch._foreach_lerp_(self._averages, self._weights, self._share)
        if self._buffers:
            torch._foreach_copy_(self._averaged_buffers, self._buffers)
