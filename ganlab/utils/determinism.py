"""Runs that repeat to the bit on CUDA too (`train.deterministic`): torch's settings for that, put back after the run.

Decisions:
- On the CPU runs repeat to the bit without it. On CUDA sums by atomic addition, cuDNN's choice among its algorithms and
  cuBLAS's workspaces do not, and what repeats is slower, so it has to be asked for.
- An operation that torch has no deterministic implementation of ends the run, in one line that names it and who called
  it: a warning would leave a run that says of itself that it repeats, and does not.
- New memory is not filled with NaN, as torch otherwise does in this mode: it finds operations that read what nobody
  wrote, at the cost of writing all memory twice, and gives the same numbers where there is none.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ganlab.utils.errors import NotDeterministic
from ganlab.utils.paths import PACKAGE

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
REPEATING = (":4096:8", ":16:8")
"""The workspaces with which cuBLAS repeats its results, as NVIDIA and torch name them."""

_ELSEWHERE = (f"{PACKAGE}{os.sep}", str(Path(torch.__file__).parent))


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Whatever the body computes it computes the same way every time, where that is `wanted`; else nothing is changed.

    Enter it before anything runs on CUDA: cuBLAS and torch read the workspaces' setting once. Raises NotDeterministic
    where an operation in the body cannot.
    """
    if not wanted:
        yield
        return
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    enabled = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    before = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    workspaces = os.environ.get(CUBLAS)
    if workspaces not in REPEATING:
        os.environ[CUBLAS] = REPEATING[0]
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    memory.fill_uninitialized_memory = False
    try:
        with _named():
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=only_warns)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before
        if workspaces is None:
            del os.environ[CUBLAS]
        else:
            os.environ[CUBLAS] = workspaces


@contextmanager
def _named() -> Iterator[None]:
    """An operation that torch refuses in the body, because it has no deterministic implementation, is named."""
    try:
        yield
    except RuntimeError as error:
        refused = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if refused is None:
            raise
        raise NotDeterministic(
            f"train.deterministic: torch has no deterministic implementation of {refused[1]}{_caller(error)}; "
            "put another operation in its place, or set train.deterministic to false"
        ) from error


def _caller(error: RuntimeError) -> str:
    """The innermost line that is neither torch's nor the core's; in a backward pass there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_ELSEWHERE):
            return f", which {frame.filename}:{frame.lineno} calls"
    return ", which is called by torch itself, as in a backward pass"
