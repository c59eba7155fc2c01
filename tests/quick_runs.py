"""What each run of a process would compute again with the same result, computed once: the digits, a loss's optimum.

For the tests' own processes and those that are forked from them. scikit-learn parses its digits from text whenever they
are loaded, and a run calls its loss some hundred times to find its optimum: a twentieth of a second each, where a small
run takes a few tenths. The loss of a plugin's file is probed in each run.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import sklearn.datasets
import torch

from ganlab.run import loss_optimum
from ganlab.run.callbacks import log

_load_digits = functools.cache(sklearn.datasets.load_digits)
_find_gap = loss_optimum.optimal_gap
_gaps: dict[tuple[str, torch.device], float | None] = {}


def _digits(**options: Any) -> Any:
    return copy.deepcopy(_load_digits(**options))  # whoever changes its own changes no other


def _gap_of_a_bundled_loss_once(loss: Any, device: torch.device = loss_optimum.CPU) -> float | None:
    if not type(loss).__module__.startswith("ganlab_plugins."):
        return _find_gap(loss, device)
    said = f"{type(loss)} {loss!r}", device  # with all its options
    if said not in _gaps:
        _gaps[said] = _find_gap(loss, device)
    return _gaps[said]


sklearn.datasets.load_digits = _digits
log.optimal_gap = _gap_of_a_bundled_loss_once
