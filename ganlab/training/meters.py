"""Meters: the means of losses, logits and other scalars over a log interval, summed on the device."""

from __future__ import annotations

import torch
from attrs import define, field
from torch import Tensor

from ganlab.utils import distributed


@define
class Meters:
    """Sums and counts of the scalars that train steps report by name, on the device until they are logged.

    A sum is always the same tensor, since captured steps add to it.
    """

    sums: dict[str, Tensor] = field(factory=dict)
    counts: dict[str, int] = field(factory=dict)

    def add(self, name: str, value: Tensor) -> None:
        if name not in self.sums:
            self.sums[name] = torch.zeros((), device=value.device)
        self.sums[name].add_(value.detach())
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Returns the meters' means of all scalars since the last reset; the host waits for the device."""
        names = [name for name, count in self.counts.items() if count]
        if not names:
            return {}
        values = distributed.all_reduce_mean(torch.stack([self.sums[name] for name in names])).tolist()
        return {name: value / self.counts[name] for name, value in zip(names, values, strict=True)}

    def reset(self) -> None:
        for name, total in self.sums.items():
            total.zero_()
            self.counts[name] = 0
