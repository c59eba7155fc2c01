"""Samples conditions (class labels or images) for generated images, for sample grids and scores.

Decisions:
- Networks that do not use conditions get none, whatever the data set has.
- Conditions are drawn from the data set's own, so classes have the data's frequencies. Labels are sorted, so that the
  class counts in run.json are enough to draw the same conditions for a loaded run.
- Conditions have their own random stream, so they do not change the latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from ganlab.data.pixels import condition_as_input
from ganlab.protocols import Dataset
from ganlab.utils.errors import UserError

MAX_GRID_ROWS = 32
"""The most classes of a sample grid, one row each."""


@frozen(eq=False)
class ConditionSampler:
    """A sampler of a data set's conditions: sorted class labels int64 (N,), images uint8 (N, C, H, W), or None."""

    known: Tensor | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> ConditionSampler:
        condition = dataset.condition
        return cls(condition.sort().values if condition is not None and condition.ndim == 1 else condition)

    @classmethod
    def counted(cls, counts: Sequence[int]) -> ConditionSampler:
        """Makes a condition sampler from class counts; unconditional if there are none."""
        return cls(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) if counts else None)

    def record(self) -> Any:
        """Returns the condition sampler's entry in run.json: the class counts, "images", or None."""
        return None if self.known is None else self.counts or "images"

    def of_class(self, label: int) -> ConditionSampler:
        """Returns a condition sampler of one class. Raises UserError if there is no such class."""
        if not self.counts:
            raise UserError(f"--label {label}: the networks of this run know no classes")
        if not 0 <= label < len(self.counts):
            raise UserError(
                f"--label {label}: expected one of the {len(self.counts)} classes, 0 to {len(self.counts) - 1}"
            )
        return ConditionSampler(torch.tensor([label]))

    @property
    def counts(self) -> list[int]:
        """The condition sampler's number of images of each class; empty if the condition is not a class label."""
        return self.known.bincount().tolist() if self.known is not None and self.known.ndim == 1 else []

    def drawn(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Samples random conditions as network inputs: labels (count,) or images (count, C, H, W)."""
        if self.known is None:
            return None
        return condition_as_input(self.known[torch.randint(len(self.known), (count,), generator=generator)])

    def rows(self, count: int) -> Tensor | None:
        """Samples conditions for a grid: class labels (rows, columns), a class per row, at most `count`; or None."""
        rows = min(len(self.counts), MAX_GRID_ROWS, count)
        return torch.arange(rows)[:, None].expand(rows, count // rows) if rows else None


UNCONDITIONAL = ConditionSampler()
