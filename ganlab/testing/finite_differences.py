"""Checks a gradient against finite differences in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ganlab.testing.check_result import Fault
from ganlab.testing.fixed_inputs import fixed_noise
from ganlab.utils.errors import one_line
from ganlab.utils.rng import seed_everything

_STEPS = ((1e-6, 1e-3), (1e-4, 1e-3), (1e-2, 2e-2))
"""Step sizes and their relative tolerances; the larger steps are for code that rounds to float32 on its way."""

_DTYPE = re.compile(r"dtype|scalar type|[Ii]nput type")


def check_gradient(
    value: Callable[[], Tensor], leaves: Sequence[Tensor], of: str, at: str, stopped: bool = False
) -> str | None:
    """Checks the gradient of `value` with respect to float64 leaves against central finite differences.

    Both are taken along one random direction. `value` must not depend on earlier calls; it draws the same random
    numbers in each call. Raises Fault where they differ, or returns a note where the author declares that gradients are
    `stopped` on purpose. Returns a note where the code does not support float64.
    """

    def seeded() -> Tensor:
        seed_everything(0)
        return value()

    for leaf in leaves:
        leaf.requires_grad_(True)
    try:
        gradients = torch.autograd.grad(seeded(), leaves, allow_unused=True)
    except RuntimeError as error:
        if not _DTYPE.search(str(error)):
            raise
        return f"not checked, since the code does not support float64: {one_line(error, limit=120)}"
    directions = [fixed_noise(*leaf.shape, seed=number, dtype=leaf.dtype) for number, leaf in enumerate(leaves, 1)]
    # Of length 1, so that a small step stays on one side of a kink however many leaves there are.
    length = float(sum(direction.square().sum() for direction in directions)) ** 0.5
    directions = [direction / length for direction in directions]
    pairs = zip(gradients, directions, strict=True)
    slope = float(sum((gradient * direction).sum() for gradient, direction in pairs if gradient is not None))
    seen = 0.0
    for size, tolerance in _STEPS:
        ends = []
        for sign in (1, -1):
            _move(leaves, directions, sign * size)
            ends.append(float(seeded().detach()))
            _move(leaves, directions, -sign * size)
        difference = (ends[0] - ends[1]) / (2 * size)
        if abs(slope - difference) <= tolerance * max(abs(slope), abs(difference)) + 1e-9:
            return "stops_gradient is True, and this gradient is not stopped" if stopped else None
        seen = seen or difference
    values = f"along a random direction it is {slope:.6g}, by finite differences {seen:.6g}"
    if stopped:
        return f"the gradient of {of} is stopped on purpose: {values}"
    raise Fault(
        f"the gradient of {of} is wrong: {values}; where it is stopped on purpose (detach), declare "
        "stops_gradient: ClassVar[bool] = True",
        at,
    )


@torch.no_grad()
def _move(leaves: Sequence[Tensor], directions: Sequence[Tensor], by: float) -> None:
    for leaf, direction in zip(leaves, directions, strict=True):
        leaf.add_(direction, alpha=by)
