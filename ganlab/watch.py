"""Which plugin's code a captured step could not hold: a watch over the operations of a step, on any device.

A captured step repeats the operations of one step, with the same Python numbers, and without running Python. So code
in the step must not read a value back, must not take its shapes from values, and must do in each step of a kind what
it did in the last. `Watch` writes down what a step does; `unfit` compares two steps and names the first line at fault.

Decisions:
- Two layers are watched: operations below autograd, so that backward passes and optimisers are seen too, and calls of
  a tensor's methods above it, because on the CPU some of them read memory without an operation.
- The line at fault is the innermost one that is neither torch's nor the core's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_READING = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
_CORE = f"{Path(__file__).parent}{os.sep}"
_NOT_PLUGINS = (_CORE, str(Path(torch.__file__).parent))  # torch, and torchvision and others whose names begin so


@frozen
class Place:
    """A line of a file; no file where none but torch's and the core's own was at work."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "the step"


@frozen
class Operation:
    """One operation: its name, its arguments that are no tensors' values, where it was asked for, what is wrong."""

    name: str
    arguments: tuple[str, ...]
    place: Place = field(eq=False)
    fault: str | None = None


@frozen
class Fault:
    """Why a step cannot be captured, and where that is."""

    place: Place
    what: str


@define
class Watch:
    """Writes down the operations that are done in its body."""

    device: torch.device
    operations: list[Operation] = field(factory=list)
    _modes: list[Any] = field(factory=list, init=False)

    def __enter__(self) -> Watch:
        self._modes = [_Calls(self), _Operations(self)]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, at)


def unfit(one: Watch, other: Watch) -> Fault | None:
    """What keeps a step from being captured, seen in two steps of one kind."""
    for watch in (one, other):
        for operation in watch.operations:
            if operation.fault:
                return Fault(operation.place, operation.fault)
    for before, after in zip(one.operations, other.operations, strict=False):
        if before != after:
            return Fault(after.place, f"does not do the same in each step: {_difference(before, after)}")
    if len(one.operations) != len(other.operations):
        longer = max(one.operations, other.operations, key=len)
        extra = longer[min(len(one.operations), len(other.operations))]
        return Fault(extra.place, f"does not do the same in each step: {extra.name} is not in every one")
    return None


def _difference(before: Operation, after: Operation) -> str:
    if before.name != after.name:
        return f"{before.name}, then {after.name}"
    pairs = zip(before.arguments, after.arguments, strict=False)
    one, other = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return f"{before.name} of {one or 'fewer values'}, then of {other or 'fewer values'}"


class _Operations(TorchDispatchMode):
    """Below autograd: every operation of every pass."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "profiler":  # torch's optimisers note what they do for a profiler
            return result
        given = tree_leaves((args, kwargs or {}))
        arguments = tuple(_described(value) for value in given)
        tensors = [value for value in given if isinstance(value, Tensor)]
        fault = self._fault(func, tensors, result)
        if func is torch.ops.aten.lift_fresh.default and tensors[0].device.type == "cpu":
            arguments = (*arguments, str(tensors[0].tolist()))
        self.watch.operations.append(Operation(str(func), arguments, _place(), fault))
        return result

    def _fault(self, func: Any, given: Sequence[Tensor], result: Any) -> str | None:
        aten = torch.ops.aten
        if func is aten._local_scalar_dense.default:
            return "reads a value back from the device (item, bool, float or int of a tensor)"
        if func is aten.lift_fresh.default and given[0].device.type == self.watch.device.type:
            return "makes a tensor from Python values, which the device must wait for; make it once, or use torch.full"
        if torch.Tag.dynamic_output_shape in func.tags and (
            func is not aten.index.Tensor or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        ):
            return f"takes a shape from values ({func.overloadpacket.__name__})"
        made = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
        if func in (aten._to_copy.default, aten.copy_.default):
            devices = {tensor.device.type for tensor in (*given, *made)}
            if len(devices) > 1:
                return f"copies between {' and '.join(sorted(devices))}"
        return None


class _Calls(TorchFunctionMode):
    """Above autograd: calls of a tensor's methods."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READING:
            fault = f"reads values back from the device (Tensor.{func.__name__})"
            self.watch.operations.append(Operation(func.__name__, (), _place(), fault))
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> str:
    """An argument without a tensor's values; of a generator, that it is one."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.device}"
    return type(value).__name__ if isinstance(value, torch.Generator) else repr(value)


def _place() -> Place:
    """The innermost line that is neither torch's nor the core's."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_NOT_PLUGINS) and not file.startswith("<"):
            return Place(file, frame.f_lineno) if _in_step(frame) else Place()
        frame = frame.f_back
    return Place()


def _in_step(frame: Any) -> bool:
    """Whether a frame is called by the core: below a plugin's code in the step the core's own must come."""
    frame = frame.f_back
    while frame is not None:
        if frame.f_code.co_filename.startswith(_CORE):
            return True
        frame = frame.f_back
    return False
