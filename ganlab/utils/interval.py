"""`Interval`: how often a slow action takes place, in steps or epochs, such as `500` or `"2 epochs"`."""

from __future__ import annotations

import re
from typing import Literal

from attrs import frozen

from ganlab.utils.errors import quote

INTERVAL_SYNTAX = 'a number of steps or "N epochs"'
"""How error messages describe an interval."""

MAX_COUNT = 10**12
"""The longest interval, in steps or epochs; longer than any run."""


@frozen
class Interval:
    """The interval between two logs, checkpoints or other actions: `500` (steps) or `"2 epochs"`; 0 means never.

    An epoch is one pass over the training images of `[dataset]`; incomplete batches are dropped.
    """

    count: int = 0
    unit: Literal["steps", "epochs"] = "steps"

    @classmethod
    def parse(cls, value: object) -> Interval:
        """Parses an interval: a number of steps, or text such as "1 epoch". Raises ValueError."""
        if isinstance(value, Interval):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
            return cls(value)
        if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,12}) (step|epoch)s?", value.strip())):
            return cls(int(match[1]), "epochs" if match[2] == "epoch" else "steps")
        raise ValueError(f"expected {INTERVAL_SYNTAX}, got {quote(value)}")

    def __str__(self) -> str:
        return f"{self.count} {self.unit if self.count != 1 else self.unit[:-1]}"

    def to_toml(self) -> int | str:
        return self.count if self.unit == "steps" else str(self)

    def in_steps(self, steps_per_epoch: float) -> int:
        """Converts the interval to steps: 0 for never, otherwise at least 1."""
        if self.unit == "steps" or self.count == 0:
            return self.count
        return max(1, round(self.count * steps_per_epoch))
