"""What torch does in C++ for its own devices only, replaced in this process while the pretend device is there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _foreach_utils

from ganlab.testing.pretend.events import FROM_CPU, add_event, current_place
from ganlab.testing.pretend.random_state import Generator, PretendGenerator
from ganlab.testing.pretend.tensor import NAME, DeviceMismatch, PretendTensor


def replace_in_torch() -> None:
    """Replaces functions of torch that make tensors of Python values, its generators, and what knows types by name."""
    torch.tensor = _made_on_cpu(torch.tensor)
    torch.as_tensor = _made_on_cpu(torch.as_tensor)
    torch.asarray = _made_on_cpu(torch.asarray)
    for owner, names in ((torch, _DRAWING), (torch.Tensor, _DRAWING_IN_PLACE)):
        for name in names:
            setattr(owner, name, _checked_generator(getattr(owner, name)))
    torch.Generator = Generator  # type: ignore[misc]
    # Otherwise a module's parameters would keep their class, that of the CPU, when it moves to the device.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    # Otherwise optimisers would take the path without foreach, which reads values back.
    _foreach_utils._foreach_supported_types.append(PretendTensor)
    torch.distributed.Backend.default_device_backend_map[NAME] = "gloo"


_DRAWING = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")
_DRAWING_IN_PLACE = ("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_", "log_normal_")


def _checked_generator(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A function that refuses a generator of the device for numbers on the CPU, which the device is not shown."""

    @functools.wraps(draw)
    def drawn(*args: Any, **options: Any) -> Any:
        made = draw(*args, **options)
        generator = options.get("generator")
        if isinstance(generator, PretendGenerator) and not isinstance(made, PretendTensor):
            raise DeviceMismatch(
                f"{current_place()}: {draw.__name__} on {made.device} with a generator of {generator.device}"
            )
        return made

    return drawn


def _made_on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
    """A function that makes a tensor on the device by way of the CPU."""

    @functools.wraps(make)
    def made(data: Any, *, device: Any = None, **options: Any) -> Any:
        data = _with_numbers(data)
        where = None if device is None else torch.device(device)
        if where is None or where.type != NAME:
            return make(data, **options) if device is None else make(data, device=device, **options)
        if isinstance(data, torch.Tensor):
            return make(data, **options).to(where)
        requires_grad = options.pop("requires_grad", False)
        add_event(FROM_CPU, make.__name__)
        return make(data, **options).to(where).requires_grad_(requires_grad)

    return made


def _with_numbers(data: Any) -> Any:
    """Lists in which tensors of the device are numbers, each of which is read back, as torch does on a device."""
    if not isinstance(data, (list, tuple)):
        return data
    return [
        (one.tolist() if one.ndim else one.item()) if isinstance(one, PretendTensor) else _with_numbers(one)
        for one in data
    ]
