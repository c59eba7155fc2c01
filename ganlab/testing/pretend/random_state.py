"""Random numbers of the pretend device: a stream of its own for each index, and generators that say where they are.

A stream of the device that has the CPU's seed draws the CPU's numbers, so that a training gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

COUNT = 2
"""How many pretend devices there are."""

_CpuGenerator = torch.Generator
_indices: dict[int, int] = {}
"""The index of the device of each generator, by the address of what torch has of it."""
_streams: list[torch.Generator] = [_CpuGenerator() for _ in range(COUNT)]


class PretendGenerator(_CpuGenerator):
    """A generator of the pretend device, in place of `torch.Generator(device)`, which knows no such device."""

    index: int = 0

    @classmethod
    def on(cls, index: int) -> PretendGenerator:
        made = cls()
        made.index = index
        _indices[_address(made)] = index
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("pretend", self.index)

    def clone_state(self) -> PretendGenerator:
        made = self.on(self.index)
        made.set_state(self.get_state())
        return made

    def __del__(self) -> None:
        _indices.pop(_address(self), None)


def _address(generator: Any) -> int:
    return int(generator._cdata)


def generator_device(generator: torch.Generator) -> torch.device:
    """Where a generator is that torch hands over: it is a new object then, which only its address tells."""
    index = _indices.get(_address(generator))
    return generator.device if index is None else torch.device("pretend", index)


class _GeneratorKind(type):
    """Makes `isinstance(…, torch.Generator)` true of every generator."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _CpuGenerator)


class Generator(metaclass=_GeneratorKind):
    """`torch.Generator` while the pretend device is there: of the CPU or of the device."""

    def __new__(cls, device: Any = "cpu") -> Any:
        where = torch.device(device)
        if where.type != "pretend":
            return _CpuGenerator(where)
        return PretendGenerator.on(where.index or 0)


@contextmanager
def device_random(index: int, arguments: dict[str, Any]) -> Iterator[None]:
    """Lets an operation without a generator draw from the stream of the device, not from the CPU's."""
    if arguments.get("generator") is not None:
        yield
        return
    default = torch.default_generator
    state = default.get_state()
    default.set_state(_streams[index].get_state())
    try:
        yield
    finally:
        _streams[index].set_state(default.get_state())
        default.set_state(state)


def stream(index: int) -> torch.Generator:
    """The random stream of a pretend device."""
    return _streams[index]
