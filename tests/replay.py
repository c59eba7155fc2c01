"""A recorder that replays without CUDA, as CUDA's graphs do, on the CPU and on the pretend device.

It writes down the operations of a step below autograd, undoes what they did, and replays them on the same memory with
the same numbers, without running any Python of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ganlab.utils.device import random_states, set_random_states


class Recording(TorchDispatchMode):
    """Every operation with its arguments and its results; the memory that it writes to is kept, to be undone."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _written(func, args, kwargs):
            memory = _data(tensor).untyped_storage()
            if memory._cdata not in self.before:
                self.before[memory._cdata] = memory, memory.clone()
        result = func(*args, **kwargs)
        # What changes a tensor's shape in place, as the end of torch.stft does, touches no memory.
        if func.namespace != "profiler" and torch.Tag.inplace_view not in func.tags:
            self.operations.append((func, *_as_they_are((args, kwargs, result))))
        return result


def _as_they_are(values: Any) -> Any:
    """Tensors of the same memory that keep their shapes, whatever becomes of those of the given ones."""
    return tree_map(lambda leaf: torch.ops.aten.alias(leaf) if isinstance(leaf, Tensor) else leaf, values)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that an operation writes to."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    for argument in func._schema.arguments:
        written = argument.alias_info is not None and argument.alias_info.is_write
        # Batch norm's schema does not say that it writes to its running statistics.
        if written or (func is torch.ops.aten.native_batch_norm.default and "running" in argument.name):
            yield from (leaf for leaf in tree_leaves(given.get(argument.name)) if isinstance(leaf, Tensor))


def _data(tensor: Tensor) -> Tensor:
    """A tensor's data, which those of the pretend device keep in another."""
    data: Tensor = getattr(tensor, "data_on_cpu", tensor)
    return data


class ReplayRecorder:
    """A recorder of train steps that does what CUDA's graphs do; `replays` counts."""

    def __init__(self) -> None:
        self.replays = 0

    def run(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        randomness = torch.get_rng_state(), random_states()
        with Recording() as recording:
            work()
        torch.set_rng_state(randomness[0])
        set_random_states(randomness[1])
        for memory, value in recording.before.values():
            memory.copy_(value)

        def replay() -> None:
            self.replays += 1
            with torch.no_grad():
                for func, args, kwargs, kept in recording.operations:
                    for old, new in zip(tree_leaves(kept), tree_leaves(func(*args, **kwargs)), strict=True):
                        if isinstance(old, Tensor) and _data(old).data_ptr() != _data(new).data_ptr():
                            old.copy_(new)

        return replay
