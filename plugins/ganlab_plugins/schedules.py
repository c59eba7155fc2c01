"""Schedules: an option that stays, goes straight or goes along a cosine to another value, each after a warm-up."""

from __future__ import annotations

import math

from attrs import field, frozen
from attrs.validators import ge, le

from ganlab import Interval, Register, Schedule, hookimpl


@frozen
class Constant:
    """The option's own value throughout, after a warm-up.

    key: the option, as `--set` names it.
    warmup: over these first steps it rises from nothing to its own value, by equal amounts.
    """

    key: str = "optimizer.lr"
    warmup: Interval = Interval(0)

    def value(self, first: float, step: int, total: int) -> float:
        return first * min(1.0, (step + 1) / max(1, self.warmup.count))


@frozen
class _Going(Constant):
    to: float = field(default=0.0, validator=[ge(-1e12), le(1e12)])
    start: Interval = Interval(0)
    end: Interval = Interval(0)

    def __attrs_post_init__(self) -> None:
        for name, before in (("start", self.start), ("warmup", self.warmup)):
            if self.end.unit == before.unit and 0 < self.end.count <= before.count:
                raise ValueError(f"end: must be after {name}, {before}, got {self.end}")

    def _share(self, step: int, total: int) -> float:
        """How much of the way lies behind, from 0 to 1. Nobody sets out before being warm."""
        start = max(self.start.count, self.warmup.count)
        end = self.end.count or total
        return min(1.0, max(0.0, (step - start) / max(1, end - start)))

    def _between(self, first: float, step: int, total: int, share: float) -> float:
        # Written so that at the end it is the other value to the last bit.
        return Constant.value(self, first, step, total) * (1 - share) + self.to * share


@frozen
class Linear(_Going):
    """From the option's own value in equal steps to another, where it stays.

    key: the option, as `--set` names it.
    warmup: over these first steps it rises from nothing to its own value, by equal amounts.
    to: the other value.
    start: when it sets out.
    end: when it arrives; 0 for the end of the run.
    """

    def value(self, first: float, step: int, total: int) -> float:
        return self._between(first, step, total, self._share(step, total))


@frozen
class Cosine(_Going):
    """From the option's own value to another, where it stays, slowly at both ends: half a period of a cosine.

    The shape of Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.

    key: the option, as `--set` names it.
    warmup: over these first steps it rises from nothing to its own value, by equal amounts.
    to: the other value.
    start: when it sets out.
    end: when it arrives; 0 for the end of the run.
    """

    def value(self, first: float, step: int, total: int) -> float:
        return self._between(first, step, total, (1 - math.cos(math.pi * self._share(step, total))) / 2)


@hookimpl
def register_schedules(register: Register[Schedule]) -> None:
    register("constant", Constant)
    register("linear", Linear)
    register("cosine", Cosine)
