"""The samplers of a game with their networks and the conditions of their samples; grids of what they sample.

Decisions:
- A grid of samples whose conditions are images shows pairs: input and output, and the target where there is one, which
  is the image of the same entry of `[dataset]`.
- The grids of all samplers of a run are one picture, the main one first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import frozen
from torch import Tensor, nn

from ganlab.data.condition_sampler import UNCONDITIONAL, ConditionSampler
from ganlab.data.pixels import condition_as_input
from ganlab.evaluation.network_sampler import NetworkSampler
from ganlab.evaluation.sampling import generate_images, sample_grid, sample_inputs
from ganlab.protocols import Dataset, Rules, Sampler
from ganlab.viz.image_grid import image_grid
from ganlab.viz.pairs import columns_of_pairs, side_by_side, stacked


@frozen(eq=False)
class GameSampler:
    """One of a game's samplers: its networks, and the conditions of its samples.

    `data` is the data set that images come from which are conditions, None for other conditions.
    """

    network: NetworkSampler
    conditions: ConditionSampler
    data: Dataset | None = None

    @property
    def parts(self) -> int:
        """How many images of a sampler's pair lie side by side: 1 where conditions are no images."""
        if self.data is None or self.conditions.known is None or self.conditions.known.ndim != 4:
            return 1
        return 2 if self.network.sampler.source else 3

    def grid(
        self, count: int, seed: int, device: torch.device, truncation: float | None = None
    ) -> tuple[Tensor, int | None]:
        """Samples for a grid: uint8 images (N, C, H, W) on the CPU, or pairs as one image each, and the columns.

        The samples are those of `sample`, or of `sample_grid` for classes.
        """
        known, data = self.conditions.known, self.data
        if self.parts == 1 or known is None or data is None:
            return sample_grid(self.network, count, seed, device, self.conditions, truncation)
        every = ConditionSampler(torch.arange(len(known)))  # draws which entries of the data, as they would be drawn
        pairs = []
        for z, chosen in sample_inputs(self.network, count, seed, every, truncation=truncation):
            assert chosen is not None
            (made,) = generate_images(self.network, z, device, condition_as_input(known[chosen]))
            targets = [] if self.network.sampler.source else [data.images[chosen]]
            pairs.append(side_by_side([known[chosen], made.cpu(), *targets]))
        return torch.cat(pairs), columns_of_pairs(count, self.parts)


def sampled_conditions(
    sampler: Sampler, dataset: Dataset, streams: Mapping[str, Dataset], conditional: bool
) -> ConditionSampler:
    """The conditions of a game's sampler: of `[dataset]`, or the images of its source; none if networks use none."""
    if sampler.source:
        return ConditionSampler({"dataset": dataset, **streams}[sampler.source].images)
    return ConditionSampler.of(dataset) if conditional else UNCONDITIONAL


def game_samplers(
    rules: Rules,
    networks: Mapping[str, nn.Module],
    dataset: Dataset,
    streams: Mapping[str, Dataset],
    conditional: bool,
) -> dict[str, GameSampler]:
    """The samplers of a game by name; the main one comes first, under the empty name."""
    found = {}
    for name, sampler in {"": rules.sampler, **rules.samplers}.items():
        conditions = sampled_conditions(sampler, dataset, streams, conditional)
        data = {"dataset": dataset, **streams}[sampler.source or "dataset"]
        found[name] = GameSampler(NetworkSampler(sampler, networks), conditions, data)
    return found


def picture_of_grids(grids: list[tuple[Tensor, int | None]]) -> Tensor:
    """One picture, uint8 (C, H, W), of the grids of several samplers of a game."""
    return stacked([image_grid(images, columns) for images, columns in grids])
