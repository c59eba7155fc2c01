"""`Turn`: what a move of a game is given of one update, or of one part of its batch (`train.accumulate`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from ganlab.protocols.augmentation import Augmentation
from ganlab.protocols.batch import Batch
from ganlab.protocols.penalty import Step
from ganlab.utils.errors import ComponentError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ganlab.protocols.condition import Condition


@define
class StateUpdate:
    """A change of a game's state, which the parts of a turn ask for: what makes it, and the values of each part."""

    update: Callable[..., None]
    values: list[list[Tensor]] = field(factory=list)

    def make(self) -> None:
        """Makes the change that the parts of a turn have asked for, with what all of them have on all processes."""
        import torch

        from ganlab.utils import distributed

        with torch.no_grad():
            whole = []
            for parts in zip(*self.values, strict=True):
                if parts[0].ndim:
                    whole.append(distributed.all_gather_with_grad(torch.cat(parts)))
                else:
                    whole.append(distributed.all_reduce_mean(torch.stack(parts).mean(0)))
            self.update(*whole)


@define(eq=False)
class Turn:
    """A turn of a game's move: the networks, the batch, and what the core does for a move.

    Tensors are on the run's device; images are float32 (n, C, H, W) in [-1, 1], other data as in `Batch`.

    `networks` are those of the game, by name. Only those that the move trains have parameters that require a gradient.
    `batch` has the real images, their condition, and the other data sets (`batch.streams`).
    `kept` is a dict that all moves of one step share: what one leaves there, a later one may use.
    `images_seen` is a 0-dim int64 tensor that the loop fills, not a Python number, so that a step can be captured.
    `log(name, value)` logs a scalar tensor, as a mean over the steps between two records.
    """

    move: str
    networks: Mapping[str, nn.Module]
    batch: Batch
    images_seen: Tensor
    kept: dict[str, Any]
    log: Callable[[str, Tensor], None]
    augmentations: Sequence[Augmentation] = ()
    autocast: torch.dtype | None = None
    noise: torch.Generator | None = None
    batch_size: int = 1
    part: int = 0
    parts: int = 1
    draws: list[Sequence[Tensor]] = field(factory=list)
    state_updates: list[StateUpdate] = field(factory=list)
    shown: dict[str, Step] = field(factory=dict, init=False)
    _drawn: int = field(default=0, init=False)
    _updated: int = field(default=0, init=False)

    @property
    def real(self) -> Tensor:
        """A turn's real images (n, C, H, W)."""
        return self.batch.images

    @property
    def condition(self) -> Condition:
        """A turn's conditions of the real images: class labels int64 (n,), another tensor, several by name, or None."""
        return self.batch.condition

    def forward(self, network: str, *inputs: Any) -> Any:
        """A turn's pass through a network, by its name, in the run's precision (`train.precision`)."""
        if self.autocast is None:
            return self.networks[network](*inputs)
        import torch

        with torch.autocast(self.images_seen.device.type, dtype=self.autocast):
            return self.networks[network](*inputs)

    def draw(self, make: Callable[[int, torch.Generator | None], Tensor]) -> Tensor:
        """A turn's random rows (n, …), one for each image: its share of what `make(count, generator)` returns.

        They are drawn once for the whole batch of all processes, so that they do not depend on `train.accumulate` and
        on the number of processes. A `generator` of None is torch's default one.
        """
        if self._drawn == len(self.draws):
            from ganlab.utils import distributed

            first, end = distributed.local_share(self.batch_size)
            made: Any = make(self.batch_size, self.noise)
            if not hasattr(made, "shape") or tuple(made.shape[:1]) != (self.batch_size,):
                what = f"a tensor of shape {tuple(made.shape)}" if hasattr(made, "shape") else type(made).__name__
                raise ComponentError(f"turn.draw: make(count, generator) returned {what}; expected count rows")
            self.draws.append(made[first:end].chunk(self.parts))
        rows: Tensor = self.draws[self._drawn][self.part]
        self._drawn += 1
        return rows

    def normal(self, *shape: int) -> Tensor:
        """A turn's standard normal noise (n, …) of this shape, as latents."""
        import torch

        device = self.images_seen.device
        return self.draw(lambda count, random: torch.randn(count, *shape, device=device, generator=random))

    def augment(self, images: Tensor) -> Tensor:
        """A turn's images (n, C, H, W) after the experiment's augmentations, which are differentiable."""
        for augmentation in self.augmentations:
            images = augmentation.augment(images)
        return images

    def observe(self, real_logits: Tensor) -> None:
        """Gives a turn's logits (N,) of augmented real images to augmentations that adapt to them; logs what they log.

        Call it in each update of a discriminator, with the logits of all processes (`gather`).
        """
        import torch

        with torch.no_grad():
            for augmentation in self.augmentations:
                if observe := getattr(augmentation, "observe", None):
                    observe(real_logits.detach())
            for augmentation in self.augmentations:
                if measures := getattr(augmentation, "measures", None):
                    for name, value in measures().items():
                        self.log(name, value)

    def gather(self, rows: Tensor) -> Tensor:
        """A turn's rows (n, …) of all processes, (N, …), for a term that depends on the whole batch.

        Terms are averaged over processes. A term that is a mean over images need not gather: it is right as it is. One
        that sums, sorts or compares images is that of the whole batch where it is computed from gathered rows.
        """
        from ganlab.utils import distributed

        return distributed.all_gather_with_grad(rows)

    def update_state(self, update: Callable[..., None], *values: Tensor) -> None:
        """Changes state of the game's own once in an update, of which a turn is one part (`train.accumulate`).

        `update(*values)` is called after the last part, without gradient, with those of the whole batch of all
        processes: a scalar is averaged, and rows (n, …) are all rows (N, …). Until then every part sees the old state.
        """
        if self._updated == len(self.state_updates):
            self.state_updates.append(StateUpdate(update))
        self.state_updates[self._updated].values.append([value.detach() for value in values])
        self._updated += 1

    def mean_of_all(self, value: Tensor) -> Tensor:
        """A turn's average of a tensor over all processes, detached, for state that must be equal in all."""
        from ganlab.utils import distributed

        return distributed.all_reduce_mean(value.detach().clone())

    def show(
        self,
        player: str,
        *,
        fake: Tensor,
        real: Tensor | None = None,
        real_logits: Any = None,
        fake_logits: Any = None,
        latents: Tensor | None = None,
        condition: Condition = None,
        judge: str = "",
        generator: str = "",
    ) -> None:
        """Shows a player's penalties this part of a turn; a player that a move does not show has no penalties.

        `real` are the batch's images and `condition` its condition unless given. `judge` and `generator` are the names
        of the networks behind the step's `judge` and `generate`, which are called with an input and the condition.
        """
        if player not in self.networks:
            self.networks[player]  # refuses the name, as it does that of any network
        self.shown[player] = Step(
            player=player,
            networks=self.networks,
            real=self.real if real is None else real,
            fake=fake,
            real_logits=real_logits,
            fake_logits=fake_logits,
            condition=self.condition if condition is None else condition,
            images_seen=self.images_seen,
            latents=latents,
            judged_by=judge or player,
            generated_by=generator or player,
            streams=self.batch.streams,
        )
