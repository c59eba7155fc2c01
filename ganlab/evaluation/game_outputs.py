"""`GameOutputs`: what a game makes of the real images of a split, batch by batch, for metrics (`Evaluation.outputs`).

Decisions:
- Networks are in eval mode and averaged where they are sampled, as for samples; each process has its share of a split.
- A sampler whose conditions are images gives an output by itself: "translation" of the conditions of `[dataset]`, or
  "reconstruction" of its images. Its latents are those of one seed, the same for every number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor, nn

from ganlab.data.dataset import ImageDataset
from ganlab.data.pixels import as_input, as_stored
from ganlab.evaluation.network_sampler import GivenNetworks
from ganlab.evaluation.sampling import BATCH
from ganlab.nn.modes import eval_mode
from ganlab.plugin.registry import Registry
from ganlab.protocols import Batch, Dataset, GameConfig, ImageSpec, Rules, map_condition
from ganlab.protocols.condition import Condition
from ganlab.utils import distributed
from ganlab.utils.errors import ComponentError, SamplesNotFinite, UserError, did_you_mean
from ganlab.utils.memory import FittingBatches
from ganlab.utils.rng import derived_seed
from ganlab.viz.data_picture import as_pixels
from ganlab.viz.pairs import columns_of_pairs, side_by_side


@frozen(eq=False)
class GameOutputs:
    """A game's outputs by the present networks; before there are networks (None) they have no batches.

    `game` is its name. `truncation` is that of a sampler's latents, `options` are the sampler's. `about` are entries of
    the protocol of each score that is made of outputs.
    """

    game: str
    rules: Rules
    images: ImageSpec
    networks: Mapping[str, nn.Module] | None = None
    truncation: float | None = None
    about: Mapping[str, Any] = field(factory=dict)
    options: Mapping[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """The names of a game's outputs: its own, and that of its sampler."""
        return list(dict.fromkeys([*self.rules.outputs, *self._of_sampler]))

    @property
    def _of_sampler(self) -> list[str]:
        if self.rules.sampler is None:
            return []
        if self.rules.sampler.source == "dataset":
            return ["reconstruction"]
        condition = self.images.condition_shape or ()
        translates = not self.rules.sampler.source and len(condition) > 1  # no class label, and no row of attributes
        return ["translation"] if translates else []

    def check(self, name: str) -> None:
        """Checks a game's output: ComponentError where it has none of this name."""
        if name not in self.names:
            there = f"has: {', '.join(self.names)}" if self.names else "has none"
            near = did_you_mean(name, self.names)
            raise ComponentError(f"the game {self.game!r} has no output {name!r}; it {there}{near}")

    def check_metric(self, uses_outputs: bool) -> None:
        """Checks that a metric asked for a game's outputs where the game makes no samples: ComponentError if not."""
        if not uses_outputs and (why := self.rules.why_no_samples):
            raise ComponentError(f"scores samples, and {why}; a metric of these asks for them when it prepares")

    def grids(self, dataset: Dataset, count: int, device: torch.device) -> list[tuple[Tensor, int | None]]:
        """Grids of a game's outputs that are images, as pairs with the images of which they are made, and the columns.

        The images lie evenly in the data.
        """
        if dataset.images.ndim != 4:
            return []
        rows = torch.linspace(0, len(dataset.images) - 1, min(count, len(dataset.images))).round().long()
        few = ImageDataset(
            images=dataset.images[rows],
            name=dataset.name,
            split=dataset.split,
            condition=map_condition(lambda of: of[rows], dataset.condition),
        )
        grids: list[tuple[Tensor, int | None]] = []
        for name in self.names:
            made = [output for output, _, _ in self.batches(name, few, device, (0, len(rows)))]
            if all(part.shape[1:] == few.images.shape[1:] and part.is_floating_point() for part in made):
                stored = as_stored(torch.cat(made).cpu(), self.images.dtype)
                shown = [as_pixels(part, self.images.range) for part in (few.images, stored)]
                grids.append((side_by_side(shown), columns_of_pairs(len(rows), len(shown))))
        return grids

    def batches(
        self, name: str, dataset: Dataset, device: torch.device, share: tuple[int, int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Condition]]:
        """Yields a game's output, the images and their conditions, of this process's share of a split, in order.

        `share` is another half-open range of indices. Raises `SamplesNotFinite`.
        """
        if self.networks is None:
            return
        fitting_size = BATCH
        generator = torch.Generator().manual_seed(derived_seed(0, "outputs"))
        first, end = share or distributed.local_share(len(dataset.images))
        for start in range(0, end, BATCH):
            latents = self._latents(name, generator)  # of whole batches, so that they do not depend on the share
            rows = slice(max(first, start), min(start + BATCH, end))
            if rows.start >= rows.stop:
                continue
            images = as_input(dataset.images[rows].to(device))
            condition = map_condition(lambda of, rows=rows: as_input(of[rows].to(device)), dataset.condition)
            z = None if latents is None else latents[rows.start - start : rows.stop - start].to(device)

            def made(part: Tensor, images: Any = images, condition: Any = condition, z: Any = z) -> Tensor:
                given = map_condition(lambda of: of[part], condition)
                return self.of_batch(name, images[part], given, None if z is None else z[part])

            fitting = FittingBatches(made, fitting_size)
            with self.eval_mode():
                output = fitting(torch.arange(len(images), device=device))
            fitting_size = fitting.size
            # Logits may be masked by minus infinity; pixels may not.
            if output.isnan().any() or (output.shape == images.shape and not output.isfinite().all()):
                raise SamplesNotFinite(f"{self._words(name)} is not finite: NaN or infinity")
            yield output, images, condition

    def _latents(self, name: str, generator: torch.Generator) -> Tensor | None:
        """The latents of a whole batch for the output that a game's sampler gives; None for the game's own outputs."""
        if name in self.rules.outputs:
            return None
        with self.eval_mode():
            return self.rules.main_sampler.latents(self._given(name), BATCH, generator, self.truncation)

    def of_batch(self, name: str, images: Tensor, condition: Any, z: Tensor | None) -> Tensor:
        """A game's output for a batch of images, conditions, and latents, which are those of its sampler, or None."""
        networks, sampler = self._given(name), self.rules.main_sampler
        if z is None:
            output: Any = self.rules.outputs[name](networks, images, condition)
        else:
            given = images if sampler.source == "dataset" else condition
            options = sampler.options if self.options is None else self.options
            output = sampler.images(networks, z, given, **options)
        if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != len(images):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ComponentError(
                f"{self._words(name)} is {got} for {len(images)} images; wanted a tensor with a row for each"
            )
        return output

    def _words(self, name: str) -> str:
        return f"the output {name!r}" + (f" of the game {self.game!r}" if self.game else "")

    def _given(self, name: str) -> GivenNetworks:
        assert self.networks is not None
        return GivenNetworks(self.networks, self._words(name), "there are", self.rules.networks)

    def eval_mode(self) -> ExitStack:
        """Puts all networks of a game in eval mode, without gradients, until the stack that it returns is closed."""
        assert self.networks is not None
        with ExitStack() as stack:
            for network in self.networks.values():
                stack.enter_context(eval_mode(network))
            return stack.pop_all()


def check_outputs(rules: Rules, networks: Mapping[str, nn.Module], batch: Batch, images: ImageSpec) -> None:
    """Tries each of a game's own outputs on a batch of its data: UserError for what is refused."""
    outputs = GameOutputs("", rules, images, networks)
    try:
        with outputs.eval_mode():
            for name in rules.outputs:
                outputs.of_batch(name, batch.images, batch.condition, None)
    except ComponentError as error:
        raise UserError(f"game: {error}") from error


def game_outputs(
    registry: Registry,
    game: GameConfig,
    rules: Rules,
    images: ImageSpec,
    networks: Mapping[str, nn.Module] | None = None,
    truncation: float | None = None,
    about: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> GameOutputs:
    """Makes a game's outputs; its name is that under which the registry has it."""
    name = registry.component_of("game", game).name
    return GameOutputs(name, rules, images, networks, truncation, about or {}, options)
