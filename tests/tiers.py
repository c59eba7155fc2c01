"""Which cases of a parametrised test are in the default tier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

SLOW = (pytest.mark.extended, pytest.mark.slow)


def _as_param(case: Any) -> Any:
    return pytest.param(*case) if isinstance(case, tuple) else pytest.param(case)


def spread(count: int, cases: Iterable[Any]) -> list[Any]:
    """Returns the cases of a test, all but `count` of them, evenly spread, marked for the extended tier."""
    every = [case if hasattr(case, "marks") else _as_param(case) for case in cases]
    kept = {index * len(every) // count for index in range(count)}
    return [
        case if index in kept else pytest.param(*case.values, marks=(*case.marks, *SLOW), id=case.id)
        for index, case in enumerate(every)
    ]
