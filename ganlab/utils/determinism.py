"""Deterministic algorithms on CUDA (`train.deterministic`): torch's settings for them, restored after the run.

Decisions:
- It is an option because it is slower. On the CPU, runs are bitwise reproducible without it; on CUDA, atomic additions,
  cuDNN's choice of algorithm and cuBLAS's workspaces are not.
- An operation without a deterministic implementation ends the run with one line that names the operation and its
  caller. A warning would leave a run that claims to be reproducible and is not.
- `fill_uninitialized_memory` is off: it fills new memory with NaN to expose reads of uninitialised memory, which writes
  all memory twice and otherwise does not change results.
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
"""The values of CUBLAS_WORKSPACE_CONFIG with which cuBLAS is deterministic."""

_CORE_AND_TORCH = (f"{PACKAGE}{os.sep}", str(Path(torch.__file__).parent))


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Makes torch use deterministic algorithms in the body if `wanted`; otherwise changes nothing.

    Enter it before anything runs on CUDA, since cuBLAS and torch read the workspace setting only once. Raises
    NotDeterministic if an operation in the body has no deterministic implementation.
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
        with _raise_not_deterministic():
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=only_warns)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before
        if workspaces is None:
            del os.environ[CUBLAS]
        else:
            os.environ[CUBLAS] = workspaces


@contextmanager
def _raise_not_deterministic() -> Iterator[None]:
    """Turns torch's error about an operation without a deterministic implementation into NotDeterministic."""
    try:
        yield
    except RuntimeError as error:
        refused = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if refused is None:
            raise
        raise NotDeterministic(
            f"train.deterministic: torch has no deterministic implementation of {refused[1]}{_caller(error)}; "
            "use another operation, or set train.deterministic to false"
        ) from error


def _caller(error: RuntimeError) -> str:
    """Names what broke determinism: the caller of the operation, in the innermost frame outside torch and the core.

    In a backward pass there is none.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_CORE_AND_TORCH):
            return f", which {frame.filename}:{frame.lineno} calls"
    return ", which is called by torch itself, as in a backward pass"
