"""What a machine can do at most, measured: products of matrices in each precision, and copies in its memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ganlab.utils.device import synchronize

PRECISIONS = ("float32", "tf32", "bfloat16")
"""As `train.precision` names them."""


@attrs.frozen
class Ceilings:
    """Operations per second of matrix products, by precision, and bytes per second that a copy reads and writes."""

    products: Mapping[str, float]
    memory: float


def measure(device: torch.device, precisions: tuple[str, ...], small: bool) -> Ceilings:
    """Measures the ceilings: the best of several rounds of some products and copies."""
    size, count = (512, 2**22) if small else (8192, 2**28)
    products = {}
    for precision in precisions:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        with _tf32(precision == "tf32"):
            products[precision] = 2 * size**3 / _best(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
    numbers = torch.zeros(count, device=device)
    other = torch.zeros_like(numbers)
    return Ceilings(products, 2 * numbers.nbytes / _best(lambda: other.copy_(numbers), device))


@contextmanager
def _tf32(wanted: bool) -> Iterator[None]:
    matmul: Any = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32" if wanted else "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _best(work: Callable[[], object], device: torch.device, rounds: int = 5, times: int = 4) -> float:
    """The seconds that one call takes, in the best round."""
    found = []
    for _ in range(rounds + 1):  # the first warms up
        synchronize(device)
        began = time.perf_counter()
        for _ in range(times):
            work()
        synchronize(device)
        found.append((time.perf_counter() - began) / times)
    return min(found[1:])


class LeastTime(TorchDispatchMode):
    """Adds up the least time that each operation of a step can take: its operations or its memory, which is longer.

    An operation reads its arguments and writes its results once; views take none.
    """

    def __init__(self, ceilings: Ceilings, precision: str) -> None:
        super().__init__()
        self.ceilings, self.precision = ceilings, precision
        self.seconds = self.operations = self.bytes = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.is_view or func.namespace == "profiler":
            return result
        moved = sum(one.nbytes for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor))
        counted = flop_registry.get(func.overloadpacket)
        operations = counted(*args, **(kwargs or {}), out_val=result) if counted else 0
        self.bytes += moved
        self.operations += operations
        rate = self.ceilings.products[self.precision]
        self.seconds += max(operations / rate, moved / self.ceilings.memory)
        return result
