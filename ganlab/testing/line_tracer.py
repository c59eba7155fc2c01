"""Finds the line of a component under check where a tensor became NaN or infinite, or random numbers were drawn."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganlab.testing.tensor_checks import is_finite


class LineTracer(TorchDispatchMode):
    """Traces the line of a component under check where a tensor was first not finite, or random numbers were drawn."""

    def __init__(self, file: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.file = file
        self.not_finite = self.random = ""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.random = self.random or self._line()
        if not self.not_finite and not all(map(is_finite, tree_leaves(result))):
            self.not_finite = self._line()
        return result

    def _line(self) -> str:
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename == self.file:
                return f"{self.file}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        return ""
