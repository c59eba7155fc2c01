"""The samplers of a game with their networks and the conditions of their samples; grids of what they sample.

Decisions:
- A grid of samples whose conditions are images shows pairs: input and output, and the target where there is one, which
  is the image of the same entry of `[dataset]`.
- The grids of all samplers of a run are one picture, the main one first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.pixels import as_input
from ganlab.evaluation.network_sampler import NetworkSampler, draw_latents
from ganlab.evaluation.sampling import generate_images, sample_grid, sample_inputs
from ganlab.nn.modes import eval_mode
from ganlab.protocols import Dataset, DataSpec, ImageSpec, Rules, Sampler, map_condition, named_conditions
from ganlab.utils.errors import ComponentError, InvalidRules, UserError
from ganlab.utils.files import write_whole
from ganlab.viz.data_picture import Limits, as_pixels, save_picture
from ganlab.viz.image_grid import encode_png, image_grid
from ganlab.viz.pairs import columns_of_pairs, side_by_side, stacked


@frozen(eq=False)
class GameSampler:
    """One of a game's samplers: its networks, and the conditions of its samples.

    `data` is the data set that conditions come from, None where they are only counted classes. `limits` are the lowest
    and highest value of what is sampled, for pictures of float data.
    """

    network: NetworkSampler
    conditions: ConditionSampler
    data: Dataset | None = None
    limits: Limits = None

    @property
    def parts(self) -> int:
        """How many pictures of a sampler's pair lie side by side: 1 where conditions are no images."""
        if self.data is None or self._inputs is None:
            return 1
        return 2 if self.network.sampler.source else 3

    @property
    def _inputs(self) -> Tensor | None:
        """The images or signals that a sampler is given as conditions, or the only images of several conditions.

        None beside rows of a table, which are no pictures.
        """
        found = [part for part in named_conditions(self.conditions.known).values() if part.ndim == 4]
        if self.network.sampler.source and isinstance(self.conditions.known, Tensor):
            found = [self.conditions.known] if self.conditions.known.ndim in (3, 4) else []
        if len(found) != 1 or (self.data is not None and self.data.images.ndim < 3):
            return None
        return found[0]

    def grid(
        self, count: int, seed: int, device: torch.device, truncation: float | None = None
    ) -> tuple[Tensor, int | None]:
        """Samples for a grid: images (N, C, H, W) on the CPU, or pairs as one uint8 image each, and the columns.

        The samples are those of `sample`, or of `sample_grid` for classes.
        """
        inputs, data = self._inputs, self.data
        if inputs is None or data is None:
            return sample_grid(self.network, count, seed, device, self.conditions, truncation)
        every = ConditionSampler(torch.arange(len(inputs)))  # draws which entries of the data, as they would be drawn
        found: list[list[Tensor]] = [[], [], []]
        for z, chosen in sample_inputs(self.network, count, seed, every, truncation=truncation):
            assert isinstance(chosen, Tensor)
            given = map_condition(lambda part, chosen=chosen: as_input(part[chosen]), self.conditions.known)
            (made,) = generate_images(self.network, z, device, given)
            for part, images in zip(found, (inputs[chosen], made.cpu(), data.images[chosen]), strict=True):
                part.append(images)
        given, made, targets = (torch.cat(part) for part in found)
        shown = [as_pixels(given), as_pixels(made, self.limits), as_pixels(targets, self.limits)][: self.parts]
        return side_by_side(shown), columns_of_pairs(count, self.parts)


def sampled_conditions(
    sampler: Sampler | None, dataset: Dataset, streams: Mapping[str, Dataset], conditional: bool
) -> ConditionSampler:
    """The conditions of a game's sampler: of `[dataset]`, or the images of its source; none if networks use none."""
    if sampler is None:
        return UNCONDITIONAL
    if sampler.source:
        return ConditionSampler({"dataset": dataset, **streams}[sampler.source].images)
    return ConditionSampler.of(dataset) if conditional else UNCONDITIONAL


def game_samplers(
    rules: Rules,
    networks: Mapping[str, nn.Module],
    specs: DataSpec,
    dataset: Dataset,
    streams: Mapping[str, Dataset],
    conditional: bool,
) -> dict[str, GameSampler]:
    """The samplers of a game by name; the main one comes first, under the empty name."""
    found, data = {}, {"": dataset, "dataset": dataset, **streams}
    for name, sampler in rules.all_samplers.items():
        makes = specs.streams[sampler.makes] if sampler.makes else specs.images
        network = NetworkSampler(sampler, networks, makes.dtype)
        conditions = sampled_conditions(sampler, dataset, streams, conditional)
        found[name] = GameSampler(network, conditions, data[sampler.source], makes.range)
    return found


def check_sampled_images(
    sampler: NetworkSampler, name: str, images: ImageSpec, device: torch.device, condition: Any
) -> None:
    """Tries a sampler of a game: InvalidRules unless it makes finite images of the shape of the data set that it says.

    What the sampler itself refuses is a UserError.
    """
    of = f"the sampler {name!r} " if name else ""
    count = min([2, *map(len, named_conditions(condition).values())])  # of a batch of one image there is one
    try:
        with eval_mode(sampler):
            z: Any = draw_latents(sampler, count, torch.Generator().manual_seed(0))
            if not isinstance(z, Tensor) or z.shape[:1] != (count,):
                raise InvalidRules(f"game: {of}draws latents {_shape(z)} for a count of {count}; expected {count} rows")
            if sampler.sampler.styles and z.ndim != 3:
                raise InvalidRules(f"game: {of}draws latents {_shape(z)} as styles; expected (count, layers, dim)")
            made = sampler(z.to(device), map_condition(lambda part: part[:count], condition))
    except ComponentError as error:
        raise UserError(f"game: {error}") from error
    wanted = (count, *images.shape)
    if _shape(made) != wanted:
        raise InvalidRules(f"game: {of}samples images of shape {_shape(made)}; the data set's are {wanted}")
    if not made.isfinite().all():
        raise InvalidRules(f"game: {of}samples images that are not finite, before the first update")


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def save_grids(grids: Sequence[tuple[Tensor, int | None]], limits: Sequence[Limits], path: Path) -> None:
    """Writes the grids of a game's samplers as one PNG file, the main one first; of tables only that of the main one.

    `limits` are those of each sampler.
    """
    drawn = [
        image_grid(as_pixels(images, of), columns)
        for (images, columns), of in zip(grids, limits, strict=True)
        if images.ndim > 2
    ]
    if len(grids) == 1 or len(drawn) < len(grids):
        save_picture(grids[0][0], path, grids[0][1], limits[0])
    else:
        write_whole(path, encode_png(stacked(drawn)))
