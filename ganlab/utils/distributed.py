"""Distributed training with torchrun: the process group, this process's rank, and collective operations.

Decisions:
- Rows are gathered in the order of the ranks, so the result is what one process would have had.
- What only rank 0 does, and may refuse, is done in `broadcast_json`, so that every process ends with that error. Where
  a process ends otherwise, the others say only that: their own tracebacks would hide its message.
- Data that is not on a device (flags, JSON, random states) goes through gloo, so that the host need not wait for the
  device.
"""

from __future__ import annotations

import datetime
import importlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from ganlab.utils.device import process_device
from ganlab.utils.errors import GanlabError, LostProcess, RaisedElsewhere, UserError, is_lost_process

MOST_DIMENSIONS = 8
"""How many dimensions rows that are gathered have at most."""

TIMEOUT = datetime.timedelta(hours=1)
"""How long a process waits for the others in a collective operation: what the first one alone does may be slow."""


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Joins the distributed process group if torchrun started this process; yields this process's device.

    Raises `LostProcess` where a collective operation fails because another process has ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    device = process_device(device, int(os.environ["LOCAL_RANK"]))
    # The functions of torch.distributed.nn keep the group that exists at its import as a default, and torch's
    # optimisers import it. If that happened while the group exists, gloo's threads would outlive the group and
    # sometimes abort the process when Python exits.
    importlib.import_module("torch.distributed.nn")
    backend = _backend(device)
    distributed.init_process_group(backend, timeout=TIMEOUT)
    if backend != "gloo":
        _groups.append(distributed.new_group(backend="gloo", timeout=TIMEOUT))
    ended_well = False
    try:
        yield device
        ended_well = True
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        raise LostProcess("another process of this job has ended, as its own message says") from error
    finally:
        # Communicators of NCCL wait, when they are destroyed, for operations in which others may never take part. The
        # group of gloo tells these at once that this process ends.
        distributed.destroy_process_group(None if ended_well else _host_group())
        _groups.clear()


def _backend(device: torch.device) -> str:
    """The backend of torch.distributed for a device, such as NCCL for CUDA; raises UserError where there is none."""
    try:
        return str(distributed.get_default_backend_for_device(device))
    except ValueError:
        raise UserError(f"--device {device}: torch has no backend there for more than one process") from None


def rank() -> int:
    """The distributed rank of this process, from 0. Only rank 0 writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes of the job."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_world_size() -> int:
    """The number of the distributed job's processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if distributed.is_initialized() else 1


def local_share(count: int) -> tuple[int, int]:
    """The half-open range of indices below `count` that belongs to this process's rank."""
    return count * rank() // world_size(), count * (rank() + 1) // world_size()


def all_gather_rows(rows: Tensor) -> Tensor:
    """All-gathers rows (n, …) in rank order; n may differ between processes. Every process must call it.

    A process without rows need not know their shape.
    """
    if world_size() == 1:
        return rows
    own = torch.tensor([*rows.shape, *[-1] * (MOST_DIMENSIONS - rows.ndim)], device=rows.device)
    shapes = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(shapes, own)
    counts = [int(shape[0]) for shape in shapes]
    shape = [side for side in shapes[counts.index(max(counts))].tolist() if side >= 0]
    padded = rows.new_zeros(shape)
    if len(rows):
        padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    distributed.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def all_gather_scalars(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gathers scalars of all processes, by name: (world_size,) each; on one process they stay 0-dim."""
    if world_size() == 1 or not values:
        return dict(values)
    rows = all_gather_rows(torch.stack([*values.values()])[None])
    return dict(zip(values, rows.unbind(1), strict=True))


def own_scalar(value: Tensor) -> Tensor:
    """This process's of what `all_gather_scalars` returned; the mean where there are as many processes no more."""
    if value.ndim == 0:
        return value
    return value[rank()].clone() if len(value) == world_size() else value.mean()


def broadcast_json(compute: Callable[[], Any]) -> Any:
    """Calls `compute` on the distributed rank 0 only and broadcasts its result, which must be JSON-serialisable.

    A `GanlabError` that it raises there is raised by the other processes as `RaisedElsewhere`.
    """
    if world_size() == 1:
        return compute()
    raised: GanlabError | None = None
    answer: dict[str, Any] = {}
    if rank() == 0:
        try:
            answer = {"result": compute()}
        except GanlabError as error:
            raised, answer = error, {"error": [str(error), error.exit_code]}
    text = json.dumps(answer).encode()
    length = torch.tensor([len(text)])
    distributed.broadcast(length, 0, group=_host_group())
    data = torch.empty(int(length), dtype=torch.uint8)
    if rank() == 0:
        data.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
    distributed.broadcast(data, 0, group=_host_group())
    if raised is not None:
        raise raised
    answer = json.loads(data.numpy().tobytes())
    if "error" in answer:
        raise RaisedElsewhere(*answer["error"])
    return answer["result"]


def all_gather_bytes(data: bytes) -> list[bytes]:
    """All-gathers a byte string per process, in rank order."""
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    distributed.all_gather(lengths, torch.tensor([len(data)]), group=_host_group())
    padded = torch.zeros(max(int(length) for length in lengths), dtype=torch.uint8)
    padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    parts = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(parts, padded, group=_host_group())
    return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any distributed process (all-reduce)."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([int(flag)])
    distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=_host_group())
    return bool(flags)


def all_reduce_mean(values: Tensor) -> Tensor:
    """All-reduces a tensor, in place, to its mean over processes."""
    if world_size() > 1:
        distributed.all_reduce(values)
        values /= world_size()
    return values


def all_gather_with_grad(rows: Tensor) -> Tensor:
    """All-gathers rows (n, …) with equal n; the gradient flows back only into this process's own rows.

    It is multiplied by the number of processes, since gradients are averaged over them: so the average is the gradient
    of the whole batch, where each process computes the same value of all rows.
    """
    world = world_size()
    if world == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world)]
    distributed.all_gather(parts, rows.detach().contiguous())
    own = rows.view_as(rows)
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * world)
    parts[rank()] = own
    return torch.cat(parts)


def all_reduce_mean_gradients(parameters: Iterable[Tensor]) -> None:
    """All-reduces gradients in distributed training: to their means over processes, flattened into one tensor."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:  # of a player that the loss does not reach, in all processes
        return
    flat = all_reduce_mean(torch.cat([gradient.flatten() for gradient in gradients]))
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def broadcast_from_first(tensors: Iterable[Tensor]) -> None:
    """Broadcasts the tensors of rank 0, in place, to all processes."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor.data, 0)


def _host_group() -> Any:
    """The gloo process group for tensors on the CPU, whatever the devices are; None is the default group."""
    return _groups[0] if _groups else None


_groups: list[Any] = []
"""The gloo group of the current process group, if the default group is another, such as NCCL."""
