"""Schedules of an option's value: constant, linear or cosine, each with a warm-up."""

from __future__ import annotations

import math

from attrs import field, frozen
from attrs.validators import ge, le

from ganlab import Interval, Register, Schedule, hookimpl


@frozen
class Constant:
    """Constant schedule: the option's own value, after a warm-up.

    key: the option's path, as in `--set`.
    warmup: the first steps, over which the value rises linearly from 0 to the option's own value.
    """

    key: str = "optimizer.lr"
    warmup: Interval = Interval(0)

    def value(self, first: float, step: int, total: int) -> float:
        return first * min(1.0, (step + 1) / max(1, self.warmup.count))


@frozen
class _Ramp(Constant):
    to: float = field(default=0.0, validator=[ge(-1e12), le(1e12)])
    start: Interval = Interval(0)
    end: Interval = Interval(0)

    def __attrs_post_init__(self) -> None:
        for name, before in (("start", self.start), ("warmup", self.warmup)):
            if self.end.unit == before.unit and 0 < self.end.count <= before.count:
                raise ValueError(f"end: must be after {name}, {before}, got {self.end}")

    def _progress(self, step: int, total: int) -> float:
        """The progress of a schedule from its start to its end, from 0 to 1. It starts after the warm-up."""
        start = max(self.start.count, self.warmup.count)
        end = self.end.count or total
        return min(1.0, max(0.0, (step - start) / max(1, end - start)))

    def _interpolate(self, first: float, step: int, total: int, progress: float) -> float:
        # In this form the result at the end is exactly the final value.
        return Constant.value(self, first, step, total) * (1 - progress) + self.to * progress


@frozen
class Linear(_Ramp):
    """Linear schedule: from the option's own value to another in equal steps; constant afterwards.

    key: the option's path, as in `--set`.
    warmup: the first steps, over which the value rises linearly from 0 to the option's own value.
    to: the final value.
    start: when the change starts.
    end: when the final value is reached; 0 for the end of the run.
    """

    def value(self, first: float, step: int, total: int) -> float:
        return self._interpolate(first, step, total, self._progress(step, total))


@frozen
class Cosine(_Ramp):
    """Cosine schedule: from the option's own value to another along half a period of a cosine; constant afterwards.

    As in Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.

    key: the option's path, as in `--set`.
    warmup: the first steps, over which the value rises linearly from 0 to the option's own value.
    to: the final value.
    start: when the change starts.
    end: when the final value is reached; 0 for the end of the run.
    """

    def value(self, first: float, step: int, total: int) -> float:
        return self._interpolate(first, step, total, (1 - math.cos(math.pi * self._progress(step, total))) / 2)


@hookimpl
def register_schedules(register: Register[Schedule]) -> None:
    register("constant", Constant)
    register("linear", Linear)
    register("cosine", Cosine)
