"""Checks whether code draws from the global random number generators of torch, Python and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ganlab.testing.state_comparison import states_equal
from ganlab.utils.rng import global_state, seed_everything

_OWNERS = {"torch": "torch's", "python": "Python's", "numpy": "NumPy's"}


def global_generators_used(work: Callable[[], Any]) -> str:
    """Checks whose global random number generators `work` advances, such as "torch's and NumPy's"; empty for none."""
    seed_everything(0)
    before = global_state()
    work()
    after = global_state()
    return " and ".join(owner for name, owner in _OWNERS.items() if not states_equal(before[name], after[name]))
