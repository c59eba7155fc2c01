"""The tensor of the pretend device: it says that it is on a device, and its data lie on the CPU.

Decisions:
- An operation runs on the data, so its values are those of the CPU to the bit. What would fail or wait on a real device
  is found by where the arguments say that they are.
- A tensor of the CPU with dimensions in an operation of the device is an error at the line, and so is an index. A 0-dim
  one is allowed, as on real devices, and noted.
- For torch's C++ every tensor is on the first device, the only one that it lets autograd run on. A tensor says which
  one it is on, and where torch names the first one in a process that has chosen another, that one is meant.
- What the device allocates without a value is filled with NaN.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

from ganlab.testing.pretend.events import FROM_CPU, READ, SCALAR, TO_CPU, add_event, current_place, in_first_update
from ganlab.testing.pretend.random_state import device_random, generator_device

NAME = "pretend"
"""The name of the pretend device's type."""


class DeviceMismatch(RuntimeError):
    """Raised by the pretend device where two devices meet, or a train step copies to the CPU; with the line."""


class PretendTensor(Tensor):
    """A tensor of the pretend device, around its data on the CPU."""

    data_on_cpu: Tensor
    device_index: int
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, data: Tensor, index: int = 0, requires_grad: bool = False) -> PretendTensor:
        made: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.data_on_cpu, made.device_index = data, index
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return run_operation(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(NAME, self.device_index)

    # What torch does in C++ for tensors of its own backends, and would fail to for this one.

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise DeviceMismatch(f"{current_place()}: numpy of a tensor on {self.device}; copy it to the CPU first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __format__(self, form: str) -> str:
        return self.item().__format__(form) if self.ndim == 0 else object.__format__(self, form)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        add_event(READ, "its text, as print has it")
        return f"{self.data_on_cpu!r} on {self.device}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"a tensor on {self.device} cannot be pickled; copy it to the CPU")

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(_with_tensors(index, self.device))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_with_tensors(index, self.device), value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError("only tensors that are leaves of the graph can be copied deeply")
        copy = type(self)(self.data_on_cpu.detach().clone(), self.device_index, self.requires_grad)
        memo[id(self)] = copy
        if self.grad is not None:
            copy.grad = self.grad.__deepcopy__(memo)
        vars(copy).update(
            {name: value for name, value in vars(self).items() if name not in ("data_on_cpu", "device_index")}
        )
        return copy

    def as_subclass(self, cls: type) -> Any:
        """An alias of another class, in which the operations of the device still work."""
        kind: Any = cls if issubclass(cls, PretendTensor) else _joined(cls)
        return kind(self.data_on_cpu, self.device_index)

    def new_tensor(self, data: Any, **options: Any) -> Any:  # type: ignore[override]
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **options})

    def _data(self) -> Tensor:
        return self.detach()

    def _set_data(self, value: Tensor) -> None:
        if not isinstance(value, PretendTensor):
            raise DeviceMismatch(
                f"{current_place()}: .data of a tensor on {self.device} is set to one on {value.device}"
            )
        _BASE_DATA.__set__(self, value)
        self.data_on_cpu = value.data_on_cpu

    data = property(_data, _set_data)


_BASE_DATA: Any = vars(Tensor.__base__)["data"]
"""`data` of torch's own tensors: setting it gives a tensor the sizes of another."""


def living_tensors() -> list[PretendTensor]:
    """All tensors of the pretend device that something still refers to."""
    gc.collect()
    return [one for one in gc.get_objects() if issubclass(type(one), PretendTensor)]


def _joined(cls: Any) -> type:
    """A subclass of tensor as one of the device's tensors too.

    It is kept by the class, not in a cache, which would keep for good what a class made in a function refers to.
    """
    if cls is Tensor:
        return PretendTensor
    known: type | None = vars(cls).get(_JOINED)
    if known is None:
        function: Any = classmethod(vars(Tensor)["__torch_function__"].__func__)
        if "__torch_function__" in vars(cls):
            function = vars(cls)["__torch_function__"]
        members = {"__torch_function__": function, "__module__": cls.__module__}
        known = type(cls.__name__, (cls, PretendTensor), members)
        setattr(cls, _JOINED, known)
    return known


_JOINED = "_joined_with_pretend_tensor"


def _with_tensors(index: Any, device: torch.device) -> Any:
    """An index in which lists of numbers are tensors of the device."""
    if isinstance(index, list):
        return torch.tensor(index, device=device)
    if isinstance(index, tuple):
        return tuple(_with_tensors(part, device) if isinstance(part, list) else part for part in index)
    return index


# ---------------------------------------------------------------------------------------------------------------------
# Operations
# ---------------------------------------------------------------------------------------------------------------------

_aten = torch.ops.aten
_COPIES = {_aten.copy_.default, _aten._to_copy.default, _aten._foreach_copy_.default, _aten.copy.default}
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_TAKES_SCALARS = {
    "fill",
    "fill_",
    "masked_fill",
    "masked_fill_",
    "where",
    "index_put",
    "index_put_",
    "_index_put_impl_",
}
"""Operations, besides elementwise ones, that take a 0-dim tensor of the CPU among tensors of a device."""
_CHECKING = {"_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq"}
"""Operations of torch.linalg that CUDA waits for, to raise an error where a matrix has no result."""
_WORDS = {"_local_scalar_dense": "item, bool, float or int of a tensor", "_to_copy": "to"}
"""What the code that is running calls an operation, where its name is another."""


class _Kind:
    """What the pretend device needs to know of an operation."""

    def __init__(self, func: Any) -> None:
        self.name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
        self.copies = func in _COPIES
        self.empty = self.name in _EMPTY
        self.indexed = self.name in _INDEXED
        self.says = _WORDS.get(self.name, self.name)
        self.takes_scalars = torch.Tag.pointwise in func.tags or self.name in _TAKES_SCALARS
        given = func._schema.arguments
        self.writes_first = bool(given and given[0].alias_info is not None and given[0].alias_info.is_write)
        self.generator = torch.Tag.nondeterministic_seeded in func.tags
        reads = torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags
        self.reads = (reads and not self.indexed) or self.name in _CHECKING
        self.moves = torch.Tag.inplace_view in func.tags
        self.view = self.moves or bool(func.is_view)


_kinds: dict[Any, _Kind] = {}


def run_operation(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation of the pretend device on the data of its arguments."""
    kind = _kinds.get(func)
    if kind is None:
        kind = _kinds[func] = _Kind(func)
    call = _Call(func, kind)
    inner_args = call.unwrap(args)
    inner_kwargs = {name: call.unwrap(value) for name, value in kwargs.items()} if kwargs else {}
    call.check(args, kwargs)
    if call.target is not None and call.target.type == NAME:
        inner_kwargs["device"] = "cpu"
    drawing = kind.generator and call.index is not None
    try:
        with device_random(call.index or 0, inner_kwargs) if drawing else nullcontext():
            result = func(*inner_args, **inner_kwargs)
    except NotImplementedError as error:
        message = f"{current_place()}: the {NAME} device has no {kind.name}, an operation that torch has on GPUs only"
        raise NotImplementedError(message) from error
    if kind.empty and isinstance(result, Tensor) and result.is_floating_point():
        result.fill_(torch.nan)
    wrapped = call.wrap(result)
    if kind.view:
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    return wrapped


class _Call:
    """One operation of the pretend device: its arguments without their wrappers, and on which devices they are."""

    def __init__(self, func: Any, kind: _Kind) -> None:
        self.func, self.kind = func, kind
        self.index: int | None = None
        self.wrappers: dict[int, Any] = {}
        self.on_cpu: list[Tensor] = []
        self.generators: list[torch.Generator] = []
        self.target: torch.device | None = None

    def unwrap(self, value: Any) -> Any:
        """An argument with the data in place of the device's tensors."""
        if isinstance(value, Tensor):
            if not isinstance(value, PretendTensor):
                self.on_cpu.append(value)
                return value
            data = value.data_on_cpu
            self.wrappers[id(data)] = value
            index = value.device_index
            if self.index is None:
                self.index = index
            elif self.index != index and not self.kind.copies:
                raise DeviceMismatch(
                    f"{current_place()}: {self.kind.name} of tensors on {NAME}:{self.index} and {NAME}:{index}"
                )
            return data
        if type(value) in (list, tuple):
            return type(value)([self.unwrap(one) for one in value])
        if isinstance(value, torch.device):
            self.target = value
        elif isinstance(value, torch.Generator):
            self.generators.append(value)
        return value

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuses what no device would do, and notes what it would wait for."""
        kind = self.kind
        source = None if self.index is None else torch.device(NAME, self.index)
        if self.target is not None:  # a factory, or a copy to another device
            if self.target.type == NAME:
                self.index = self.target.index or current_index()
            elif source is not None:
                if kind.copies:
                    _copied_to_cpu(kind.says, source)
                self.index = None
        elif kind.copies and source is not None:
            if isinstance(args[0], PretendTensor):
                if self.on_cpu:
                    add_event(FROM_CPU, kind.name, sum(tensor.nbytes for tensor in self.on_cpu))
                self.index = args[0].device_index
            elif self.on_cpu:
                _copied_to_cpu(kind.says, source)
        elif source is not None:
            for tensor in self.on_cpu:
                written = kind.writes_first and tensor is args[0]
                if tensor.ndim or written or not kind.takes_scalars:
                    what = f"{kind.name} of tensors on {source} and cpu, of shape {tuple(tensor.shape)}"
                    raise DeviceMismatch(f"{current_place()}: {what}")
                add_event(SCALAR, kind.name)
        if (kind.reads and kwargs.get("output_size") is None) or (kind.indexed and _finds_indices(args)):
            add_event(READ, kind.says)
        for generator in self.generators:
            of = generator_device(generator)
            index = of.index or 0
            if of.type != (NAME if self.index is not None else "cpu") or (
                self.index is not None and index != self.index
            ):
                where = "cpu" if self.index is None else f"{NAME}:{self.index}"
                raise DeviceMismatch(f"{current_place()}: {kind.name} on {where} with a generator of {of}")

    def wrap(self, result: Any) -> Any:
        """A result whose tensors say that they are on the device."""
        if isinstance(result, Tensor):
            known = self.wrappers.get(id(result))
            if known is not None:
                if known.shape != result.shape and not self.kind.moves:  # resized, as the `out` of arange is
                    _BASE_DATA.__set__(known, PretendTensor(result, known.device_index))
                return known
            if any(result is one for one in self.on_cpu) or self.index is None:
                return result
            return PretendTensor(result, self.index)
        if type(result) in (list, tuple):
            return type(result)([self.wrap(one) for one in result])
        return result


def _finds_indices(args: tuple[Any, ...]) -> bool:
    """Whether an operation with indices has a mask among them, whose indices it must find, for which a device waits.

    Where one mask is set to one value, no indices are needed.
    """
    _, indices, *values = args
    masks = [one for one in indices or () if isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8)]
    fills = values and values[0].numel() == 1 and len(indices) == 1 and not (len(values) > 1 and values[1])
    return bool(masks) and not fills


def _copied_to_cpu(name: str, source: torch.device) -> None:
    """Notes a copy to the CPU, and refuses it in a train step, which would wait for the device."""
    event = add_event(TO_CPU, name)
    if event.in_step or in_first_update(event):
        raise DeviceMismatch(f"{event.place}: {name} of a tensor on {source} to cpu inside the train step")


_current = [0]


def current_index() -> int:
    """The index of the current device among the pretend ones."""
    return _current[0]
