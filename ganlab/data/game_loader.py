"""The data loader of a game: batches of `[dataset]` together with those of the game's other data sets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from ganlab.data.loader import BatchLoader
from ganlab.data.pixels import as_input
from ganlab.protocols import Batch, Dataset, map_condition
from ganlab.protocols.condition import Condition
from ganlab.utils.rng import derived_seed


@frozen(eq=False)
class GameLoader:
    """Returns training batches by index, of several data sets: each has its own order and its own length.

    `main` is the loader of `[dataset]`, by which epochs are counted. `streams` are the others, by name.
    """

    main: BatchLoader
    streams: Mapping[str, BatchLoader] = field(factory=dict)

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        streams: Mapping[str, Dataset],
        batch_size: int,
        seed: int,
        device: torch.device,
        resident_gb: float | None,
    ) -> GameLoader:
        """Makes the loaders of a game's data sets, each with a shuffled order of its own.

        All together keep at most `resident_gb` on the device; `[dataset]` comes first.
        """
        left = resident_gb

        def load(data: Dataset, seed: int) -> BatchLoader:
            nonlocal left
            loader = BatchLoader.for_dataset(data, batch_size, seed, device, left)
            if left is not None:
                left = max(0.0, left - loader.resident_bytes / 1e9)
            return loader

        main = load(dataset, seed)
        return cls(main, {name: load(stream, derived_seed(seed, "stream", name)) for name, stream in streams.items()})

    @property
    def images(self) -> Tensor:
        return self.main.images

    @property
    def condition(self) -> Condition:
        return self.main.condition

    @property
    def resident_bytes(self) -> dict[str, int]:
        """The bytes that each data set of the game has on the device, by its table; 0 where batches are prefetched."""
        loaders = {"dataset": self.main, **self.streams}
        return {name: loader.resident_bytes for name, loader in loaders.items()}

    @property
    def batch_size(self) -> int:
        return self.main.batch_size

    @property
    def batches_per_epoch(self) -> int:
        return self.main.batches_per_epoch

    def batch(self, number: int) -> Batch:
        """Loads a game's training batch by its index in the whole run; this rank's share under torchrun."""
        batch = self.main.batch(number)
        if not self.streams:
            return batch
        return evolve(batch, streams={name: loader.batch(number) for name, loader in self.streams.items()})

    def close(self) -> None:
        """Stops reading ahead in all of a game's data sets."""
        for loader in (self.main, *self.streams.values()):
            loader.close()


def first_rows(dataset: Dataset, streams: Mapping[str, Dataset], count: int, device: torch.device) -> Batch:
    """The first rows of a game's data sets, as a batch for a trial of what comes with the first one."""
    return Batch(
        as_input(dataset.images[:count].to(device)),
        map_condition(lambda part: as_input(part[:count].to(device)), dataset.condition),
        {name: first_rows(stream, {}, count, device) for name, stream in streams.items()},
    )
