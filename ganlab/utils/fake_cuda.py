"""Asks torch, with fake tensors, whether an operation needs tensors' values on CUDA: for the graph check.

Some operations look at values on the CPU only, to check them: `one_hot` with a number of classes leaves that to the
kernel on CUDA. torch's fake tensors have a device and a shape, and no values, so an operation that needs values fails
with them. No GPU is needed.
"""

from __future__ import annotations

from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only


def needs_values_on_cuda(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether one of torch's own functions would need the values of its arguments, were they on CUDA.

    True where fake tensors do not support it, and for a function in Python, which may call anything.
    """
    if not isinstance(function, BuiltinFunctionType | MethodDescriptorType):
        return True

    def on_cuda(tensor: Tensor) -> Tensor:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")

    try:
        with _disable_current_modes(), FakeTensorMode():
            function(*tree_map_only(Tensor, on_cuda, args), **tree_map_only(Tensor, on_cuda, kwargs))
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return True
    return False
