"""The processes that torchrun starts for one job: which one this is, and what they tell each other.

Decisions:
- Rows go round in the order of the ranks, so what is put together is what one process would have had.
- What is not on a device (flags, JSON, random states) goes over gloo, so that the host need not wait for the device.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Joins the other processes, where torchrun started this one, and gives this one's device."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # Its functions keep the group that there is at import as a default, and torch's optimisers import it. Were that
    # while the group lives, gloo's threads would outlive it, and abort the process now and then as Python ends.
    importlib.import_module("torch.distributed.nn")
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        _groups.append(distributed.new_group(backend="gloo"))
    try:
        yield device
    finally:
        _groups.clear()
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; the first one writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_world_size() -> int:
    """How many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if distributed.is_initialized() else 1


def local_share(count: int) -> tuple[int, int]:
    """The part of `count` things that is this process's: from the first number to before the second."""
    return count * rank() // world_size(), count * (rank() + 1) // world_size()


def all_gather_rows(rows: Tensor) -> Tensor:
    """The rows (n, …) of every process in the order of their ranks; n need not be the same. Every process must call."""
    if world_size() == 1:
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(world_size())]
    distributed.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    distributed.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def broadcast_json(compute: Callable[[], Any]) -> Any:
    """What `compute` gives the first process, which must be JSON, in every process; the others do not compute."""
    if world_size() == 1:
        return compute()
    text = json.dumps(compute()).encode() if rank() == 0 else b""
    length = torch.tensor([len(text)])
    distributed.broadcast(length, 0, group=_hosts())
    data = torch.empty(int(length), dtype=torch.uint8)
    if rank() == 0:
        data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    distributed.broadcast(data, 0, group=_hosts())
    return json.loads(data.numpy().tobytes())


def all_gather_bytes(data: bytes) -> list[bytes]:
    """The bytes of every process, in the order of their ranks."""
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    distributed.all_gather(lengths, torch.tensor([len(data)]), group=_hosts())
    padded = torch.zeros(max(int(length) for length in lengths), dtype=torch.uint8)
    padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded, group=_hosts())
    return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]


def any_process(flag: bool) -> bool:
    """Whether any process has the flag."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([int(flag)])
    distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=_hosts())
    return bool(flags)


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean over processes of a tensor."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """The rows (n, …) of all processes, n the same in each; a gradient reaches this process's own only."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    distributed.all_gather(parts, rows.detach().contiguous())
    parts[rank()] = rows
    return torch.cat(parts)


def all_reduce_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces each gradient by the sum over processes, all of them in one message."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Overwrites tensors by those of the first process."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.data, 0)


def _hosts() -> Any:
    """The group in which tensors on the CPU go round, whatever the devices are."""
    return _groups[0] if _groups else None


_groups: list[Any] = []
