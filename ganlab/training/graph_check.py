"""Checks whether a train step can be captured as a CUDA graph, on any device; names the plugin line that prevents it.

A graph repeats the operations of one step with the same Python numbers, and runs no Python. So code in the step must
not read a value back, take a shape from values, draw Python's random numbers, or keep a tensor of one step for the
next, and must do the same operations in every step of a signature. `OperationTrace` records the operations of a step;
`find_capture_fault` compares two traces and returns the first line at fault.

Decisions:
- Two layers are traced: operations below autograd, which include backward passes and optimisers, and calls of tensor
  methods above it, because on the CPU some of them read memory without an operation.
- The line at fault is the innermost one that belongs neither to torch nor to the core.
- A check on the CPU must say what is true on CUDA: a function of torch that looks at values on the CPU only is no fault
  (`utils/fake_cuda.py`).
- torch's optimisers count their updates on the device where they are `capturable`, which they cannot be on the CPU:
  operations of such an optimiser on the CPU are ignored.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import attrs
import numpy as np
import torch
from attrs import define, field, frozen
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ganlab.utils.fake_cuda import needs_values_on_cuda
from ganlab.utils.host_work import host_work
from ganlab.utils.paths import PACKAGE

_READS, _TAKES_SHAPE = "reads a value back from the device", "takes a shape from values"
_READING = {Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__, Tensor.__repr__, Tensor.__format__}
_CORE = f"{PACKAGE}{os.sep}"
_TORCH = str(Path(torch.__file__).parent)  # also matches torchvision and other packages installed next to it
_STEP = tuple(str(Path(__file__).with_name(name)) for name in ("game.py", "train_step.py", "cuda_graphs.py"))


@frozen
class CodeLine:
    """A line of plugin code in the graph check, and its callers; `file` is "" where only torch and the core ran."""

    file: str = ""
    number: int = 0
    callers: tuple[str, ...] = field(default=(), eq=False)


@frozen
class Operation:
    """An operation that the graph check traced: name, arguments without tensors' values, line, fault for a capture."""

    name: str
    arguments: tuple[str, ...]
    line: CodeLine = field(eq=False)
    fault: str | None = None


@frozen
class CaptureFault:
    """What the graph check finds: why a train step cannot be captured as a CUDA graph, and the line at fault."""

    line: CodeLine
    what: str


@define
class OperationTrace:
    """The graph check's context manager: records a train step's operations, to find whether it can be captured.

    `before` is the trace of an earlier step: to read a tensor that was created in it is a fault.
    """

    device: torch.device
    before: OperationTrace | None = None
    operations: list[Operation] = field(factory=list)
    created: dict[int, StorageWeakRef] = field(factory=dict)
    kept: set[int] = field(factory=set, init=False)
    constants: set[int] = field(factory=set, init=False)
    _modes: list[Any] = field(factory=list, init=False)
    _own_call: bool = field(default=False, init=False)
    _numpy: str = field(default="", init=False)
    _profiler: Any = field(default=None, init=False)

    def __enter__(self) -> OperationTrace:
        if self.before is not None:
            # A weak reference keeps the storage's address from being reused.
            self.kept = {address for address, storage in self.before.created.items() if not storage.expired()}
        self._modes = [_MethodTracer(self), _OperationTracer(self)]
        for mode in self._modes:
            mode.__enter__()
        self._numpy = _numpy_state()
        self._profiler = sys.getprofile()
        sys.setprofile(self._trace_random_numbers)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._profiler is None or callable(self._profiler):
            sys.setprofile(self._profiler)
        else:  # before Python 3.12 that of cProfile, which can be set only by itself
            sys.setprofile(None)
            self._profiler.enable()
        for mode in reversed(self._modes):
            mode.__exit__(kind, error, at)
        if self.before is not None:
            self.before.created.clear()

    def add_fault(self, name: str, line: CodeLine, fault: str) -> None:
        self.operations.append(Operation(name, (), line, fault))

    def _trace_random_numbers(self, frame: FrameType, event: str, argument: Any) -> None:
        # Calls of NumPy raise no event, but its random state has changed when the caller returns. That check takes
        # 40 us, and code of torch and the core returns ten thousand times a step, so it is skipped there.
        if event == "c_call" and isinstance(getattr(argument, "__self__", None), random.Random):
            self.add_fault(
                "random", _plugin_line(frame), "draws Python's random numbers, which a graph would draw once"
            )
        elif (
            event == "return"
            and not frame.f_code.co_filename.startswith((_CORE, _TORCH, "<"))
            and self._numpy != (state := _numpy_state())
        ):
            self._numpy = state
            self.add_fault(
                "numpy.random", _plugin_line(frame), "draws NumPy's random numbers, which a graph would draw once"
            )


def find_capture_fault(one: OperationTrace, other: OperationTrace) -> CaptureFault | None:
    """Checks two steps of one signature by their traces; returns what prevents capture as a CUDA graph, None if fit."""
    for trace in (one, other):
        for operation in trace.operations:
            if operation.fault:
                return CaptureFault(operation.line, operation.fault)
    for before, after in zip(one.operations, other.operations, strict=False):
        if before != after:
            return CaptureFault(after.line, f"does not do the same in each step: {_difference(before, after)}")
    if len(one.operations) != len(other.operations):
        longer = max(one.operations, other.operations, key=len)
        extra = longer[min(len(one.operations), len(other.operations))]
        return CaptureFault(extra.line, f"does not do the same in each step: {extra.name} is not in every one")
    return None


def _difference(before: Operation, after: Operation) -> str:
    if before.name != after.name:
        return f"{before.name}, then {after.name}"
    pairs = zip(before.arguments, after.arguments, strict=False)
    one, other = next(((a, b) for a, b in pairs if a != b), ("", ""))
    return f"{before.name} of {one or 'fewer values'}, then of {other or 'fewer values'}"


class _OperationTracer(TorchDispatchMode):
    """The graph check's tracer below autograd: sees the operations of backward passes and optimisers too."""

    def __init__(self, trace: OperationTrace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = trace

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "profiler":  # annotations of torch's optimisers
            return result
        if self.trace.device.type == "cpu" and _in_capturable_optimizer(sys._getframe(1)):
            return result
        given = tree_leaves((args, kwargs or {}))
        arguments = tuple(_argument_text(value) for value in given)
        tensors = [value for value in given if isinstance(value, Tensor)]
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        fault = self._fault(func, tensors, made)
        if func is torch.ops.aten.lift_fresh.default and tensors[0].device.type == "cpu":
            self.trace._own_call = True
            arguments = (*arguments, str(tensors[0].tolist()))
            self.trace.constants |= {_storage_address(tensor) for tensor in made}
            self.trace._own_call = False
        self.trace.operations.append(Operation(str(func), arguments, _plugin_line(sys._getframe(1)), fault))
        known = {_storage_address(tensor) for tensor in tensors}
        for tensor in made:
            if (address := _storage_address(tensor)) not in known:
                self.trace.created[address] = StorageWeakRef(tensor.untyped_storage())
        return result

    def _fault(self, func: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> str | None:
        aten = torch.ops.aten
        if torch.Tag.data_dependent_output in func.tags:
            return f"{_READS} ({_WORDS.get(func, func.overloadpacket.__name__)})"
        if func is aten.lift_fresh.default and given[0].device.type == self.trace.device.type:
            return "makes a tensor from Python values, which the device must wait for; make it once, or use torch.full"
        if torch.Tag.dynamic_output_shape in func.tags and (
            func is not aten.index.Tensor or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        ):
            return f"{_TAKES_SHAPE} ({func.overloadpacket.__name__})"
        if func in (aten._to_copy.default, aten.copy_.default):
            devices = {tensor.device.type for tensor in (*given, *made)}
            if len(devices) > 1:
                return f"copies between {' and '.join(sorted(devices))}"
        given = [tensor for tensor in given if _storage_address(tensor) not in self.trace.constants]
        if self.trace.device.type != "cpu" and (work := host_work(func, given, made)):
            return work
        if any(_storage_address(tensor) in self.trace.kept for tensor in given):
            return "keeps a tensor of one step for the next, which a graph would not find; change a buffer in place"
        return None


_WORDS = {torch.ops.aten._local_scalar_dense.default: "item, bool, float or int of a tensor"}


class _MethodTracer(TorchFunctionMode):
    """The graph check's tracer above autograd: sees calls of tensor methods that read values back, such as `tolist`."""

    def __init__(self, trace: OperationTrace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READING and not self.trace._own_call:
            fault = f"reads values back from the device (Tensor.{func.__name__})"
            self.trace.add_fault(func.__name__, _plugin_line(sys._getframe(1)), fault)
        before = len(self.trace.operations)
        result = func(*args, **(kwargs or {}))
        made = self.trace.operations[before:]
        reading = [operation for operation in made if (operation.fault or "").startswith((_READS, _TAKES_SHAPE))]
        if self.trace.device.type == "cpu" and reading and not needs_values_on_cuda(func, args, kwargs or {}):
            fit = [attrs.evolve(operation, fault=None) if operation in reading else operation for operation in made]
            self.trace.operations[before:] = fit
        return result


def _argument_text(value: Any) -> str:
    """Returns an argument that the graph check traced as text, without a tensor's values or a generator's state."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.device}"
    return type(value).__name__ if isinstance(value, torch.Generator) else repr(value)


def _storage_address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _numpy_state() -> str:
    _, key, *rest = np.random.get_state()  # whenever the key of 624 numbers changes, its first one does
    return f"{key[0]} {rest}"


def _plugin_line(frame: FrameType | None) -> CodeLine:
    """Finds the innermost line of plugin code for the graph check, while a step runs, and the files of its callers."""
    files, number = [], 0
    while frame is not None and not (file := frame.f_code.co_filename).startswith(_STEP):
        if not file.startswith((_CORE, _TORCH, "<")) and file != random.__file__:
            files.append(file)
            number = number or frame.f_lineno
        frame = frame.f_back
    return CodeLine(files[0], number, tuple(files[1:])) if files and frame is not None else CodeLine()


def _in_capturable_optimizer(frame: FrameType | None) -> bool:
    while frame is not None and not (file := frame.f_code.co_filename).startswith(_STEP):
        if file.startswith(f"{_TORCH}{os.sep}optim"):
            optimizer = frame.f_locals.get("self")
            if isinstance(optimizer, torch.optim.Optimizer):
                return all("capturable" in group for group in optimizer.param_groups)
        frame = frame.f_back
    return False
