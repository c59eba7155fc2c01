"""What an operation in a train step does on the CPU beside the step's device: a CUDA graph would not do it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def host_work(operation: Any, given: Sequence[Tensor], made: Sequence[Tensor]) -> str | None:
    """What an operation of torch, with these arguments and results, does on the CPU; None for nothing that matters.

    It is that of a step on another device. Numbers on the CPU that are no constants keep their first value in a graph.
    """
    if torch.Tag.nondeterministic_seeded in operation.tags and any(_on_cpu(tensor) for tensor in made):
        return "draws random numbers on the CPU, which a graph would draw once"
    if operation._schema.is_mutable and given and _on_cpu(given[0]):
        return "changes a tensor on the CPU, which a graph would not change again; keep it on the device"
    if any(not _on_cpu(tensor) for tensor in given) and any(_on_cpu(tensor) and tensor.ndim == 0 for tensor in given):
        return "uses a number on the CPU, of which a graph would keep the first value; keep it on the device"
    return None


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
