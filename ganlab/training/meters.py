"""ganlab.training.meters."""

from __future__ import annotations

import torch
from attrs import define, field
from torch import Tensor

from ganlab.utils import distributed


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
        values = distributed.all_reduce_mean(torch.stack([self.sums[name] for name in names])).tolist()
        return {name: value / self.counts[name] for name, value in zip(names, values, strict=True)}

    def reset(self) -> None:
        for name, total in self.sums.items():
            total.zero_()
            self.counts[name] = 0
