"""The adversarial game as phases: whose turn it is, what its loss is made of, and one update of it.

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
from ganlab.protocols import Augmentation, Loss, Penalty, Step


@frozen
class Player:
    """A network, its optimiser, and the penalties of its loss, each with the name it is logged under."""

    name: str
    network: nn.Module
    optimizer: torch.optim.Optimizer
    penalties: Sequence[tuple[str, Penalty]] = ()

    @property
    def loss_name(self) -> str:
        return f"loss_{self.name}"

    def due(self, updates: int) -> tuple[str, ...]:
        """The names of the penalties that count in the update after so many."""
        return tuple(name for name, penalty in self.penalties if updates % penalty.every == 0)


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

    `batch_size` is that of all processes together. `noise` is the latents' stream where that is not the default one.
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
    fresh_noise: bool = True
    autocast: torch.dtype | None = None
    noise: torch.Generator | None = None
    meters: Meters = field(factory=Meters)
    images_seen: Tensor = field(init=False)
    _fake: Tensor | None = field(default=None, init=False)
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

    def fake(self, condition: Tensor | None) -> Tensor:
        """Generated images from new latents of the training stream, for the condition of a batch of real ones."""
        z = torch.randn(self.batch_size, self.latent_dim, device=self.device, generator=self.noise)
        first, end = ranks.share(self.batch_size)
        z = z[first:end]
        with self._precision():
            images: Tensor = self.generator.network(z, condition)
        return images.float()

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
        if self.fresh_noise:
            with torch.no_grad():
                fake = self.fake(real.condition)
        else:
            self._fake = self.fake(real.condition)
            fake = self._fake.detach()
        real_output, fake_output = self.judged_both(real.images, fake, real.condition)
        real_logits, fake_logits = (ranks.with_others(logits(output)) for output in (real_output, fake_output))
        self.meters.add("d_real", real_logits.detach().sigmoid().mean())
        self.meters.add("d_fake", fake_logits.detach().sigmoid().mean())
        if self._measures is not None:
            with torch.no_grad():
                for name, value in self._measures(real_logits, fake_logits).items():
                    self.meters.add(name, value)
        self._show_augmentations(real_logits)
        step = self._step("discriminator", real.images, fake, real_output, fake_output, real.condition)
        self._update(self.discriminator, self.loss.discriminator(real_logits, fake_logits), step, updates)

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
        with frozen_parameters(self.discriminator.network):
            fake = self.fake(real.condition) if self._fake is None else self._fake
            self._fake = None
            fake_output = self.judged(fake, real.condition)
            real_output = None
            if self.uses_real:
                with torch.no_grad():
                    real_output = self.judged(real.images, real.condition)
            fake_logits = ranks.with_others(logits(fake_output))
            # A loss that leaves `real` unused is still given a tensor of the right shape.
            real_logits = torch.zeros_like(fake_logits)
            if real_output is not None:
                real_logits = ranks.with_others(logits(real_output))
            shown = real.images if self.uses_real else None
            step = self._step("generator", shown, fake, real_output, fake_output, real.condition)
            self._update(self.generator, self.loss.generator(real_logits, fake_logits), step, updates)

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

    def _update(self, player: Player, loss: Tensor, step: Step, updates: int) -> None:
        self.meters.add(player.loss_name, loss)
        total = loss
        due = player.due(updates)
        for name, penalty in player.penalties:
            if name in due:
                term = penalty.penalty(step)
                self.meters.add(name, term)
                weight = penalty.every / ranks.world()
                total = total + (term if weight == 1 else weight * term)
        player.optimizer.zero_grad(set_to_none=True)
        total.backward()
        ranks.sum_gradients(player.network.parameters())
        player.optimizer.step()


@frozen
class Phase:
    """A turn in the game. A step takes it `repeats` times, on new images each time where `new_images` says so.

    `update(real, updates)` is given a batch of real images and the number of updates that this phase made before.
    `terms(updates)` names what that update's loss is made of besides the loss itself.
    """

    name: str
    update: Callable[[Batch, int], None]
    terms: Callable[[int], tuple[str, ...]]
    repeats: int = 1
    new_images: bool = False


def two_player_phases(game: Game, discriminator_steps: int) -> list[Phase]:
    """The discriminator's turn, `discriminator_steps` times on new images, then the generator's on the last of them."""
    g, d = game.players
    return [
        Phase(d.name, game.discriminator_phase, d.due, repeats=discriminator_steps, new_images=True),
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
            phase.terms(step * phase.repeats + repeat) for phase in self.phases for repeat in range(phase.repeats)
        )

    def __call__(self, real: Sequence[Batch], step: int) -> None:
        batches = iter(real)
        for phase in self.phases:
            for repeat in range(phase.repeats):
                if phase.new_images:
                    batch = next(batches)
                phase.update(batch, step * phase.repeats + repeat)
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


class Average:
    """The exponential moving average of a network's weights; buffers are copied (Yazici et al. 2019, arXiv:1806.04498).

    Batch norm's running statistics are buffers: an average without them would be evaluated with the initial ones.
    """

    def __init__(self, network: nn.Module, average: nn.Module, decay: float) -> None:
        self.network = average.requires_grad_(False).eval()
        self._averages: list[Tensor] = list(average.parameters())
        self._weights: list[Tensor] = list(network.parameters())
        self._averaged_buffers: list[Tensor] = list(average.buffers())
        self._buffers: list[Tensor] = list(network.buffers())
        self._share = 1.0 - decay

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self._averages, self._weights, self._share)
        if self._buffers:
            torch._foreach_copy_(self._averaged_buffers, self._buffers)
