"""The schedules, against torch's own schedulers of the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from ganlab import Interval
from ganlab_plugins.schedules import Constant, Cosine, Linear

FIRST, TOTAL = 2e-4, 40


def by_torch(make: Callable[[torch.optim.Optimizer], LRScheduler]) -> list[float]:
    """The learning rate of each step under a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=FIRST)
    scheduler = make(optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warm_then(then: Callable[[Any], LRScheduler]) -> Callable[[Any], LRScheduler]:
    """Eight steps up, the first of them an eighth of the rate, and then another scheduler."""
    return lambda o: SequentialLR(o, [LinearLR(o, 1 / 8, total_iters=7), then(o)], milestones=[8])


CASES: dict[str, tuple[Any, Callable[[Any], LRScheduler]]] = {
    "linear": (Linear(), lambda o: LinearLR(o, 1, 0, TOTAL)),
    "linear, to a tenth, early": (Linear(to=FIRST / 10, end=Interval(25)), lambda o: LinearLR(o, 1, 0.1, 25)),
    "linear, late": (
        Linear(start=Interval(10), end=Interval(30)),
        lambda o: SequentialLR(o, [ConstantLR(o, 1), LinearLR(o, 1, 0, 20)], milestones=[10]),
    ),
    "cosine": (Cosine(), lambda o: CosineAnnealingLR(o, TOTAL)),
    "cosine, to a tenth": (Cosine(to=FIRST / 10), lambda o: CosineAnnealingLR(o, TOTAL, eta_min=FIRST / 10)),
    "constant, warmed": (Constant(warmup=Interval(8)), warm_then(lambda o: ConstantLR(o, 1))),
    "cosine, warmed": (Cosine(warmup=Interval(8)), warm_then(lambda o: CosineAnnealingLR(o, TOTAL - 8))),
}


@pytest.mark.parametrize("case", CASES)
def test_rates_are_those_of_torch(case: str) -> None:
    schedule, make = CASES[case]
    ours = [schedule.value(FIRST, step, TOTAL) for step in range(TOTAL)]
    assert ours == pytest.approx(by_torch(make), rel=1e-9, abs=1e-16)


@pytest.mark.parametrize("cls", [Linear, Cosine])
def test_at_its_end_it_is_the_other_value_and_stays(cls: type[Linear | Cosine]) -> None:
    schedule = cls(to=0.3, end=Interval(10))
    assert [schedule.value(0.1, step, TOTAL) for step in (0, 10, 39)] == [0.1, 0.3, 0.3]


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(ValueError, match="end: must be after start, 20 steps, got 10 steps"):
        Linear(start=Interval(20), end=Interval(10))
    mixed = Linear(start=Interval(20), end=Interval(1, "epochs"))
    with pytest.raises(ValueError, match="end: must be after start"):
        attrs.evolve(mixed, end=Interval(10))
