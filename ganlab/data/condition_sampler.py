"""What generated images are of where no batch of real ones says it: in samples and scores.

Decisions:
- There are none for networks that do not look at them, whatever the data set has.
- A condition is drawn from the data set's own, so classes come as often as in the data. Labels are kept in order, so
  that how often each class comes, which run.json holds, is all that a run that is read back needs.
- The draws have a stream of their own: what a generator without classes makes does not depend on them.
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
"""Classes of which a sample grid has a row."""


@frozen(eq=False)
class ConditionSampler:
    """The conditions there are: class labels int64 (N,) in order, images uint8 (N, C, H, W), or None."""

    known: Tensor | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> ConditionSampler:
        condition = dataset.condition
        return cls(condition.sort().values if condition is not None and condition.ndim == 1 else condition)

    @classmethod
    def counted(cls, counts: Sequence[int]) -> ConditionSampler:
        """Class labels of which each comes so often; no labels at all for no counts."""
        return cls(torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) if counts else None)

    def record(self) -> Any:
        """For run.json: how often each class comes, "images", or None."""
        return None if self.known is None else self.counts or "images"

    def of_class(self, label: int) -> ConditionSampler:
        """One class alone. Raises UserError where there is no such class."""
        if not self.counts:
            raise UserError(f"--label {label}: the networks of this run know no classes")
        if not 0 <= label < len(self.counts):
            raise UserError(
                f"--label {label}: expected one of the {len(self.counts)} classes, 0 to {len(self.counts) - 1}"
            )
        return ConditionSampler(torch.tensor([label]))

    @property
    def counts(self) -> list[int]:
        """How often each class comes; empty where the condition is no class."""
        return self.known.bincount().tolist() if self.known is not None and self.known.ndim == 1 else []

    def drawn(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Random conditions as networks take them: (count,) or (count, C, H, W)."""
        if self.known is None:
            return None
        return condition_as_input(self.known[torch.randint(len(self.known), (count,), generator=generator)])

    def rows(self, count: int) -> Tensor | None:
        """Class labels (rows, columns) of a grid of at most `count` images, a class a row; None without classes."""
        rows = min(len(self.counts), MAX_GRID_ROWS, count)
        return torch.arange(rows)[:, None].expand(rows, count // rows) if rows else None


UNCONDITIONAL = ConditionSampler()
