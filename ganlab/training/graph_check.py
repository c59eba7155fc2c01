"""Which plugin's code a captured step could not hold: a watch over the operations of a step, on any device.

A captured step repeats the operations of one step, with the same Python numbers, and without running Python. So code
in the step must not read a value back, must not take its shapes from values, must not draw Python's random numbers,
must not keep a tensor of one step for the next, and must do in each step of a kind what it did in the last. `Watch`
writes down what a step does; `unfit` compares two steps and names the first line at fault.

Decisions:
- Two layers are watched: operations below autograd, so that backward passes and optimisers are seen too, and calls of
  a tensor's methods above it, because on the CPU some of them read memory without an operation.
- The line at fault is the innermost one that is neither torch's nor the core's own.
- torch's own optimisers count their updates on the device where they are `capturable`, which on the CPU they cannot be:
  what such an optimiser does there says nothing and is left out.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganlab.utils.paths import PACKAGE

_READING = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__}
_CORE = f"{PACKAGE}{os.sep}"
_TORCH = str(Path(torch.__file__).parent)  # and torchvision and others whose names begin so
_STEP = tuple(str(Path(__file__).with_name(name)) for name in ("game.py", "turns.py", "cuda_graphs.py"))


@frozen
class Place:
    """A line of a file, and the files that called it; no file where none but torch's and the core's own was at work."""

    file: str = ""
    line: int = 0
    callers: tuple[str, ...] = field(default=(), eq=False)


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
    """Writes down the operations that are done in its body.

    `before` is the watch of an earlier step: a tensor that was made in it and is read in this one is a fault.
    """

    device: torch.device
    before: Watch | None = None
    operations: list[Operation] = field(factory=list)
    made: dict[int, StorageWeakRef] = field(factory=dict)
    kept: set[int] = field(factory=set, init=False)
    _modes: list[Any] = field(factory=list, init=False)
    _busy: bool = field(default=False, init=False)
    _numpy: str = field(default="", init=False)
    _profiler: Any = field(default=None, init=False)

    def __enter__(self) -> Watch:
        if self.before is not None:
            # A weak reference keeps the number of a storage from being given to another one.
            self.kept = {number for number, storage in self.before.made.items() if not storage.expired()}
        self._modes = [_Calls(self), _Operations(self)]
        for mode in self._modes:
            mode.__enter__()
        self._numpy = _numpy_state()
        self._profiler = sys.getprofile()
        sys.setprofile(self._look_at_randomness)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sys.setprofile(self._profiler)
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, at)
        if self.before is not None:
            self.before.made.clear()

    def blame(self, name: str, place: Place, fault: str) -> None:
        self.operations.append(Operation(name, (), place, fault))

    def _look_at_randomness(self, frame: FrameType, event: str, argument: Any) -> None:
        # A call of NumPy's is not told, but what it leaves behind is seen when its caller returns. To look takes 40 us,
        # and torch's and the core's own code returns ten thousand times a step, so it is passed over.
        if event == "c_call" and isinstance(getattr(argument, "__self__", None), random.Random):
            self.blame("random", _place(frame), "draws Python's random numbers, which a graph would draw once")
        elif (
            event == "return"
            and not frame.f_code.co_filename.startswith((_CORE, _TORCH, "<"))
            and self._numpy != (state := _numpy_state())
        ):
            self._numpy = state
            self.blame("numpy.random", _place(frame), "draws NumPy's random numbers, which a graph would draw once")


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
        if self.watch.device.type == "cpu" and _in_capturable_optimizer(sys._getframe(1)):
            return result
        given = tree_leaves((args, kwargs or {}))
        arguments = tuple(_described(value) for value in given)
        tensors = [value for value in given if isinstance(value, Tensor)]
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        fault = self._fault(func, tensors, made)
        if func is torch.ops.aten.lift_fresh.default and tensors[0].device.type == "cpu":
            self.watch._busy = True
            arguments = (*arguments, str(tensors[0].tolist()))
            self.watch._busy = False
        self.watch.operations.append(Operation(str(func), arguments, _place(sys._getframe(1)), fault))
        known = {_storage(tensor) for tensor in tensors}
        for tensor in made:
            if (number := _storage(tensor)) not in known:
                self.watch.made[number] = StorageWeakRef(tensor.untyped_storage())
        return result

    def _fault(self, func: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> str | None:
        aten = torch.ops.aten
        if torch.Tag.data_dependent_output in func.tags:
            return f"reads a value back from the device ({_WORDS.get(func, func.overloadpacket.__name__)})"
        if func is aten.lift_fresh.default and given[0].device.type == self.watch.device.type:
            return "makes a tensor from Python values, which the device must wait for; make it once, or use torch.full"
        if torch.Tag.dynamic_output_shape in func.tags and (
            func is not aten.index.Tensor or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        ):
            return f"takes a shape from values ({func.overloadpacket.__name__})"
        if func in (aten._to_copy.default, aten.copy_.default):
            devices = {tensor.device.type for tensor in (*given, *made)}
            if len(devices) > 1:
                return f"copies between {' and '.join(sorted(devices))}"
        if any(_storage(tensor) in self.watch.kept for tensor in given):
            return "keeps a tensor of one step for the next, which a graph would not find; change a buffer in place"
        return None


_WORDS = {torch.ops.aten._local_scalar_dense.default: "item, bool, float or int of a tensor"}


class _Calls(TorchFunctionMode):
    """Above autograd: calls of a tensor's methods."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READING and not self.watch._busy:
            fault = f"reads values back from the device (Tensor.{func.__name__})"
            self.watch.blame(func.__name__, _place(sys._getframe(1)), fault)
        return func(*args, **(kwargs or {}))


def _described(value: Any) -> str:
    """An argument without a tensor's values; of a generator, that it is one."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.device}"
    return type(value).__name__ if isinstance(value, torch.Generator) else repr(value)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _numpy_state() -> str:
    _, key, *rest = np.random.get_state()  # the key of 624 numbers changes at its start whenever it changes
    return f"{key[0]} {rest}"


def _place(frame: FrameType | None) -> Place:
    """The innermost line below the core's step that is neither torch's nor the core's, and what called it."""
    files, line = [], 0
    while frame is not None and not (file := frame.f_code.co_filename).startswith(_STEP):
        if not file.startswith((_CORE, _TORCH, "<")) and file != random.__file__:
            files.append(file)
            line = line or frame.f_lineno
        frame = frame.f_back
    return Place(files[0], line, tuple(files[1:])) if files and frame is not None else Place()


def _in_capturable_optimizer(frame: FrameType | None) -> bool:
    while frame is not None and not (file := frame.f_code.co_filename).startswith(_STEP):
        if file.startswith(f"{_TORCH}{os.sep}optim"):
            optimizer = frame.f_locals.get("self")
            if isinstance(optimizer, torch.optim.Optimizer):
                return all("capturable" in group for group in optimizer.param_groups)
        frame = frame.f_back
    return False
